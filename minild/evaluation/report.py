"""A whole pipeline measured on a data set, and the figures as a table."""

from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from minild.data.pictures import gather, spread
from minild.evaluation.autoencoding import codes, rebuild
from minild.evaluation.clip import clip_scores, load_clip_for
from minild.evaluation.measures import (
    NEIGHBOURS,
    WINDOW,
    codebook_use,
    frechet_distance,
    nearest,
    precision_recall,
    psnr,
    ssim,
    wilson_interval,
)
from minild.evaluation.perceptual import features, load_perceptual, lpips
from minild.models import VQModel
from minild.pipelines.conditions import FIELDS
from minild.pipelines.inputs import draw_from, inputs
from minild.pipelines.planning import in_batches
from minild.pipelines.scheduler_config import DEFAULT_SAMPLER, default_sampler

SAMPLER, STEPS = "dpmpp-2m", 30  # what pictures are drawn by: like 50 steps of DDIM (data/pretrained/README.md)
OTHER_STEPS = 50  # of other samplers
RETRIEVALS = 300  # pictures drawn where count is not given
NEAREST = 5

# What a report says of each figure, and how; shares in per cent.
LINES = {
    "rebuilt": ("pictures rebuilt by the autoencoder", "{:,}"),
    "psnr": ("PSNR", "{:.2f} dB"),
    "ssim": ("SSIM", "{:.3f}"),
    "lpips": ("LPIPS, by minild's own network", "{:.4f}"),
    "frechet": ("Fréchet distance of the rebuilt, same network", "{:.2f}"),
    "codes": ("codes of the codebook used", "{:.1%}"),
    "perplexity": ("perplexity of the codes", "{:.1f}"),
    "sampler": ("sampler", "{}"),
    "steps": ("steps of it", "{}"),
    "guidance_scale": ("guidance scale", "{:g}"),
    "seed": ("seed", "{}"),
    "drawn": ("pictures drawn", "{:,}"),
    "psnr_drawn": ("PSNR of the drawn to those they were given of", "{:.2f} dB"),
    "lpips_drawn": ("LPIPS of the same, by minild's own network", "{:.4f}"),
    "frechet_drawn": ("Fréchet distance of the drawn, same network", "{:.2f}"),
    "precision": ("precision of the drawn, same network", "{:.1%}"),
    "recall": ("recall of the drawn, same network", "{:.1%}"),
    "clip_score": ("CLIP score, by minild's own CLIP", "{:.1f}"),
    "clip_score_real": ("CLIP score of the test pictures", "{:.1f}"),
    "candidates": ("distinct real pictures compared with", "{:,}"),
    "top1": ("nearest is of the caption asked for", "{:.2%}"),
    "top5": (f"one of the {NEAREST} nearest is", "{:.2%}"),
    "chance": ("nearest would be, by chance", "{:.2%}"),
    "all": ("all of it as asked for", "{:.1%}"),
    "withheld": ("all of it, pairs withheld in training", "{:.1%}"),
    "outline": ("outline IoU with the best-fitting shapes", "{:.3f}"),
    "ssim_fit": ("SSIM to the best-fitting true drawing", "{:.3f}"),
}


class Drawn(NamedTuple):
    """Pictures that a pipeline drew, of which data set's pictures, figures, and of how many pictures each share is."""

    pictures: np.ndarray
    dataset: Any
    rows: list
    captions: list
    figures: dict
    counts: dict


def evaluate(
    pipeline, train, test, count=None, seed=0, steps=None, guidance_scale=None, progress=True, sampler=None
):
    """Measure a pipeline on a data set's two splits -> {name: figure}, mostly of those in LINES; shares in [0, 1].

    What leads a model beside words, a class or a picture, is taken from the data set's pictures, masks at random.

    Reconstruction: PSNR of the test pictures through the autoencoder and, where they are 11 pixels or more, SSIM, LPIPS
    and the Fréchet distance between them and the rebuilt, the last two by the network of load_perceptual. With a
    codebook, the share of its codes that the test pictures use, and their perplexity.
    Faithfulness, of words and a set with a `judge` (see _faithfulness): the share of the pictures drawn for the test
    captions that follow them, attribute by attribute; and what the judge measures of them, such as their outlines, and
    their SSIM to the true drawings of the same captions that are nearest to them.
    Retrieval, of words and other sets: pictures are drawn for the captions of random train pictures; how often the
    nearest of all the set's distinct pictures, and one of the five nearest (where there are more than five), has the
    caption asked.
    Drawn against real: the Fréchet distance between the drawn (without words, one for each test picture) and the test
    pictures, precision and recall, by the same network; PSNR and LPIPS between the drawn and the pictures whose masked
    or low-resolution likes, or maps, they were given; and the CLIP scores of the drawn and of the test pictures, where
    words lead and a CLIP for the data set comes with minild.

    "intervals" holds {name: [low, high, count]}: the 95 % interval (Wilson's) of each share that is of `count` pictures
    judged one by one. Precision and recall have none: their pictures are judged by each other.

    A picture is drawn from the noise of its own seed, but with others (planning.in_batches): among more or fewer of
    them its last bits are others.

    count           pictures to draw, and at most that many to rebuild; None for 300 (with a judge and to rebuild: all)
    seed            of the random choice, and of the first picture drawn
    guidance_scale  1 or less is none; None for the one recorded with the model, 7.5 where there is none
    steps           of the sampler; None for STEPS of SAMPLER, and for OTHER_STEPS of others
    sampler         None for SAMPLER; but a rectified flow is drawn by "flow-euler" only, and a learnt variance used by
                    "ddpm" only
    """
    own = default_sampler(pipeline.schedule)
    sampler = sampler or (SAMPLER if own == DEFAULT_SAMPLER else own)
    steps = steps or (STEPS if sampler == SAMPLER else OTHER_STEPS)
    pictures, captions = gather(test, count)
    model = load_perceptual() if min(pictures.shape[1:3]) >= WINDOW else None
    real = features(pictures, model) if model else None
    if guidance_scale is None:
        guidance_scale = pipeline.guidance_scale
    settings = {"sampler": sampler, "steps": steps, "guidance_scale": guidance_scale, "seed": seed}

    @in_batches()
    def draw(dataset, rows, captions):
        how = settings | {"size": pictures.shape[1:3], "progress": progress}
        if pipeline.kinds == ("text",):
            return pipeline.text_to_image(captions, **how)
        asked = inputs(pipeline, dataset, rows, _pictures(dataset, rows), np.random.default_rng(seed))
        return draw_from(pipeline, asked, captions, **how)

    figures = _reconstruction(pipeline.vae, pictures, model, real, progress)
    if "text" not in pipeline.kinds:
        rows = spread(test, count)
        drawn = Drawn(draw(test, rows, None), test, rows, [], {}, {})
    elif getattr(test, "judge", None):
        drawn = _faithfulness(draw, test, len(pictures), progress)
    else:
        drawn = _retrieval(draw, train, test, RETRIEVALS if count is None else count, seed)
    intervals = {name: [*wilson_interval(drawn.figures[name], n), n] for name, n in drawn.counts.items()}
    figures |= settings | {"drawn": len(drawn.pictures)} | drawn.figures
    if FIELDS[pipeline.kinds[-1]] == "channels":
        figures |= _one_by_one(drawn, model)
    figures |= _as_sets(drawn.pictures, model, real)
    clip = load_clip_for(getattr(test, "name", None), pictures.shape[1])
    if clip and drawn.captions:
        figures["clip_score"] = float(clip_scores(drawn.pictures, drawn.captions, clip).mean())
        own = [several[0] for several in captions]
        figures["clip_score_real"] = float(clip_scores(pictures, own, clip).mean())
    return figures | {"intervals": intervals}


def _pictures(dataset, rows):
    return np.stack([dataset[i][0] for i in rows])


def _reconstruction(vae, pictures, model, real, progress):
    rebuilt = rebuild(vae, pictures, progress)
    figures = {"rebuilt": len(pictures), "psnr": _mean(psnr, rebuilt, pictures)}
    if model:
        figures["ssim"] = _mean(ssim, rebuilt, pictures)
        figures["lpips"] = float(lpips(rebuilt, pictures, model).mean())
        figures["frechet"] = frechet_distance(features(rebuilt, model), real)
    if isinstance(vae, VQModel):
        figures["codes"], figures["perplexity"] = codebook_use(codes(vae, pictures), vae.config["num_vq_embeddings"])
    return figures


def _mean(measure, x, y):
    """The mean of psnr or ssim, a picture at a time: their float64 intermediates are many times the pictures' size."""
    return float(np.mean([measure(x[i : i + 1], y[i : i + 1])[0] for i in range(len(x))]))


def _one_by_one(drawn, model):
    """Drawn pictures beside those whose masked or low-resolution likes, or maps, they were given."""
    originals = _pictures(drawn.dataset, drawn.rows)
    figures = {"psnr_drawn": _mean(psnr, drawn.pictures, originals)}
    return figures | ({"lpips_drawn": float(lpips(drawn.pictures, originals, model).mean())} if model else {})


def _as_sets(drawn, model, real):
    """The drawn pictures beside the features of the test pictures, by a network; {} without one."""
    if not model:
        return {}
    found = features(drawn, model)
    figures = {"frechet_drawn": frechet_distance(found, real)}
    if min(len(found), len(real)) > NEIGHBOURS:
        figures["precision"], figures["recall"] = precision_recall(real, found)
    return figures


def _faithfulness(draw, test, count, progress):
    """What a data set's judge says of the pictures drawn for its first `count` captions.

    judge.report(pictures, captions, withheld) -> {name: share}; judge.SIZE is the height and width it reads, to which
    larger pictures are averaged. A share is of all the pictures; "withheld" of those with test.withheld(i); others as
    judge.counts(captions, withheld) -> {name: number of pictures} says, where there is one. What judge.MEANS names, if
    it has that, are no shares but means. judge.nearest(picture, caption), where there is one, gives the true drawing of
    a caption that is nearest to a picture.
    """
    judge = test.judge
    captions, withheld = [test.caption(i) for i in range(count)], [test.withheld(i) for i in range(count)]
    drawn = draw(test, range(count), captions)
    k = test.size // judge.SIZE
    read = drawn.reshape(count, judge.SIZE, k, judge.SIZE, k, 3).mean(axis=(2, 4))

    def shown(step):
        return tqdm(read, desc=step, unit="picture", delay=1, disable=not progress)

    figures = judge.report(shown("judge"), captions, withheld)
    counts = dict.fromkeys(figures, count) | {"withheld": sum(withheld)} | dict.fromkeys(getattr(judge, "MEANS", ()), 0)
    if hasattr(judge, "counts"):
        counts |= judge.counts(captions, withheld)
    counts = {name: counts[name] for name in figures if counts[name]}
    if hasattr(judge, "nearest"):
        true = np.stack([judge.nearest(picture, caption) for picture, caption in zip(shown("fit"), captions)])
        figures["ssim_fit"] = _mean(ssim, read, true)
    return Drawn(drawn, test, range(count), captions, figures, counts)


def _retrieval(draw, train, test, count, seed):
    names = {}  # every distinct picture's captions, by its bytes
    (first, first_captions), (second, second_captions) = gather(train), gather(test)
    for picture, captions in zip([*first, *second], [*first_captions, *second_captions]):
        names.setdefault(picture.tobytes(), set()).update(captions)
    candidates = np.stack([np.frombuffer(data, np.uint8).reshape(first.shape[1:]) for data in names])
    names = list(names.values())

    rows = np.random.default_rng(seed).choice(len(first), min(count, len(first)), replace=False).tolist()
    asked = [first_captions[row][0] for row in rows]
    drawn = draw(train, rows, asked)
    found = nearest(drawn, candidates, NEAREST)
    right = np.array([[caption in names[j] for j in row] for caption, row in zip(asked, found)])
    figures = {"candidates": len(candidates), "top1": float(right[:, 0].mean())}
    if len(candidates) > NEAREST:
        figures["top5"] = float(right.any(axis=1).mean())
    counts = {name: len(asked) for name in ("top1", "top5") if name in figures}
    chance = float(np.mean([sum(caption in several for several in names) for caption in asked])) / len(names)
    return Drawn(drawn, train, rows, asked, figures | {"chance": chance}, counts)


def format_report(figures):
    """The figures that evaluate gave -> aligned lines with their units; after a share its 95 % interval."""
    intervals = figures.get("intervals", {})
    rows = []
    for name, figure in figures.items():
        if name != "intervals":
            title, form = LINES.get(name, (f"{name} as asked for", "{:.1%}"))
            low_high = [form.format(bound) for bound in intervals.get(name, ())[:2]]
            rows.append((title, form.format(figure), low_high and f"{low_high[0]} to {low_high[1]}"))
    width, value_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [
        f"{title:<{width}}  {value:<{value_width}}  {interval} (95 %)" if interval else f"{title:<{width}}  {value}"
        for title, value, interval in rows
    ]
    return "\n".join(lines)
