"""python -m tests.benchmarks.objectives: what the U-Net learns to tell, compared: faithfulness and loss, one table.

    --steps N           of stage two, for every objective alike; or
    --minutes M         of a whole training, stage one included, as of `minild train shapes`
    --first-steps N     of stage one, where --steps is given (as many)
    --objectives A,B    these only (epsilon, v_prediction and flow); all are named by a wrong one
    --count N           held-out captions that are drawn and judged (512)
    --sampler-steps N   of DDIM, of Euler's method for a flow, of DDPM where the variance is learnt (50)
    --guidance S        of all drawings (the preset's)
    --seed N            of the training and of the drawings (0)
    --folder DIR        where the trainings lie (runs/objectives); what is there already is gone on with
    --output NAME       NAME.json and NAME.md are written after every objective (tests/benchmarks/objectives)

All share one autoencoder: stage one is trained once. Losses of different objectives are of different things, and cannot
be compared; a loss can with that of another run of the same objective.
"""

import argparse
import dataclasses
import json
import shutil
import sys
from pathlib import Path

from minild import checkpoints, data
from minild.checkpoints import STAGES
from minild.errors import UserError
from minild.evaluation import evaluate
from minild.pipelines import load
from minild.pipelines.scheduler_config import default_sampler
from minild.training import train
from minild.training.presets import OBJECTIVES, SHAPES

from .report import table

# Changes of a Preset: every objective, and a flow with other times.
VARIANTS = {name: {"objective": name} for name in OBJECTIVES} | {
    "flow-logit-normal": {"objective": "flow", "times": "logit_normal"},
    "flow-shift-3": {"objective": "flow", "schedule": {"shift": 3.0}},
}
CHOSEN = ("epsilon", "v_prediction", "flow")
HEADERS = ("objective", "followed in full", "withheld pairs", "shapes", "colours", "relation", "its loss at the end",
           "steps")  # fmt: skip


def parser():
    p = argparse.ArgumentParser(prog="python -m tests.benchmarks.objectives", description=__doc__.partition("\n")[0])
    length = p.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int)
    length.add_argument("--minutes", type=float)
    p.add_argument("--first-steps", type=int)
    p.add_argument("--objectives", default=",".join(CHOSEN))
    p.add_argument("--count", type=int, default=512)
    p.add_argument("--sampler-steps", type=int, default=50)
    p.add_argument("--guidance", type=float)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--folder", type=Path, default=Path("runs/objectives"))
    p.add_argument("--output", type=Path, default=Path(__file__).with_name("objectives"))
    return p


def main(arguments=None):
    """Exit status: 0 done, 2 for a mistake."""
    given = parser().parse_args(arguments)
    try:
        names = given.objectives.split(",")
        for name in names:
            if name not in VARIANTS:
                raise UserError(f"unknown objective {name!r}: use some of {', '.join(VARIANTS)}")
        first = train_first(given)
        results = []
        for name in names:
            folder = train_second(name, first, given)
            results.append({"objective": name} | measure(folder, given))
            write(results, given)
    except UserError as error:
        print(f"objectives: {error}", file=sys.stderr)
        return 2
    print(told(results, given))
    return 0


def train_first(given):
    """Stage one, unless the folder holds it -> its folder, whose state says that stage two comes next."""
    folder = given.folder / "first"
    steps = given.steps if given.first_steps is None else given.first_steps
    whole = {"minutes": given.minutes, "steps": None if given.steps is None else steps}
    begun = checkpoints.any_in(folder)
    if begun:
        state = checkpoints.newest(folder).state
        if state["seed"] != given.seed or any(state[field] != value for field, value in whole.items()):
            raise UserError(f"{folder} was begun with another --seed, --steps or --minutes: name another --folder")
    if not begun or state["stage"] == STAGES[0]:
        train("shapes", folder, **whole, seed=given.seed, preset=SHAPES, resume=begun, autoencoder_only=True)
    return folder


def train_second(name, first, given):
    """Stage two of an objective on that autoencoder -> the folder of the pipeline."""
    folder = given.folder / name
    preset = dataclasses.replace(SHAPES, **VARIANTS[name])
    if not checkpoints.any_in(folder):
        shutil.copytree(first / "vae", folder / "vae", dirs_exist_ok=True)
        (folder / checkpoints.FOLDER).mkdir(exist_ok=True)
        own = {"steps": given.steps, "minutes": given.minutes, "choices": preset.choices}
        checkpoints.write(folder, checkpoints.newest(first).state | own, {})
    taken = checkpoints.newest(folder).state["taken"][STAGES[1]]
    if given.steps is None or taken < given.steps:
        train("shapes", folder, given.minutes, given.steps, resume=True, preset=preset)
    return folder


def measure(folder, given):
    """{name: figure} of a pipeline: evaluation's, and the mean training loss over the last tenth of its steps."""
    pipeline = load(folder)
    figures = evaluate(
        pipeline,
        data.load("shapes", "train"),
        data.load("shapes", "test"),
        given.count,
        given.seed,
        given.sampler_steps,
        given.guidance,
        sampler=default_sampler(pipeline.schedule),
    )
    return figures | last_loss(folder)


def last_loss(folder):
    """{"loss", "trained"} of stage two: the mean loss of the last tenth of its lines, and its steps. None where a
    training was too short for a line.
    """
    path = folder / checkpoints.FOLDER / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line["stage"] == STAGES[1] and "loss" in line]
    last = lines[-max(1, len(lines) // 10) :]
    return {
        "loss": sum(line["loss"] for line in last) / len(last) if last else None,
        "trained": checkpoints.newest(folder).state["taken"][STAGES[1]],
    }


def told(results, given):
    """The table, with what it was measured under, as Markdown."""
    first = results[0]
    rows = [
        [
            r["objective"],
            *(f"{r[name]:.1%}" for name in ("all", "withheld", "shapes", "colours", "relation")),
            "-" if r["loss"] is None else f"{r['loss']:.4f}",
            f"{r['trained']:,}",
        ]
        for r in results
    ]
    length = f"--minutes {given.minutes:g}" if given.steps is None else f"--steps {given.steps}"
    if given.first_steps is not None:
        length += f" --first-steps {given.first_steps}"
    text = f"""\
# What the U-Net learns to tell, compared

`python -m tests.benchmarks.objectives {length}`: one autoencoder ({first["psnr"]:.1f} dB), {first["drawn"]} held-out
captions of the shapes, {first["steps"]} steps of DDIM (of Euler's method for a flow, of DDPM for a learnt variance),
guidance {first["guidance_scale"]:g}, seed {first["seed"]}. Losses of different objectives are of different things: they
cannot be compared with each other.
"""
    return f"{text}\n{table(HEADERS, rows)}\n"


def write(results, given):
    """Both files anew."""
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    given.output.with_suffix(".md").write_text(told(results, given), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
