"""(c) Guidance scale against fidelity and diversity; (d) sampler against number of steps."""

from minild import data, evaluation
from minild.data.pictures import gather
from minild.pipelines.planning import in_batches

GUIDANCE = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
SAMPLERS = ("ddim", "pndm", "euler", "heun", "dpmpp-2m", "dpmpp-2m-karras", "unipc", "euler-a", "ddpm")
STEPS = (5, 10, 20, 50)


class Asked:
    """The captions that a pipeline is asked for, from the test split of what it was trained on, and the real ones."""

    def __init__(self, pipeline, count):
        self.test = data.load(pipeline.record["dataset"], "test", pipeline.record["size"])
        count = min(count, len(self.test))
        self.captions = [self.test.caption(i) for i in range(count)]
        self.real, _ = gather(self.test)
        self.pipeline = pipeline

    @in_batches()
    def draw(self, **settings):
        """A picture for each caption."""
        size = self.real.shape[1:3]
        return self.pipeline.text_to_image(self.captions, size=size, progress=True, **settings)


def over_guidance(cells, judge, asked):
    """Table (c): a row for each scale."""

    def compute(scale):
        drawn = asked.draw(steps=50, sampler="ddim", guidance_scale=scale)
        precision, recall = evaluation.precision_recall(judge.features(asked.real), judge.features(drawn))
        return {
            "followed": faithfulness(asked, drawn),
            "frechet": judge.frechet(drawn, asked.real),
            "precision": precision,
            "recall": recall,
        }

    return [{"guidance": scale} | cells.get(f"guidance-{scale:g}", lambda s=scale: compute(s)) for scale in GUIDANCE]


def over_steps(cells, judge, asked):
    """Table (d): a row for each sampler and number of steps."""

    def compute(sampler, steps):
        drawn = asked.draw(steps=steps, sampler=sampler)
        return {"followed": faithfulness(asked, drawn), "frechet": judge.frechet(drawn, asked.real)}

    return [
        {"sampler": sampler, "steps": steps} | cells.get(f"{sampler}-{steps}", lambda a=sampler, b=steps: compute(a, b))
        for sampler in SAMPLERS
        for steps in STEPS
    ]


def faithfulness(asked, drawn):
    """The share of drawn pictures that follow their captions in full."""
    return asked.test.judge.report(drawn, asked.captions)["all"]
