"""python -m tests.benchmarks.tasks: image to image, inpainting and editing on true scenes, judged by machine.

    --model NAME        shapes or scenes, or a folder of a training on one of them (shapes)
    --tasks A,B         these only (all)
    --count N           test scenes of each (200)
    --steps N           of the sampler (50)
    --seed N            of the choices and of the drawings (0)
    --output NAME       NAME.json and NAME.md are written, and NAME.png, a sheet (tests/benchmarks/tasks-MODEL)

Of every scene one of the two objects is replaced by another in the caption:
    inpaint     drawn inside the old object's box and 2 pixels around it, at strength 0.8
    img2img     drawn from the whole picture, at strength 0.6
    edit        drawn from the noise that DDIM finds for the picture and its old caption
    p2p         the same, with the attention carried over as prompt-to-prompt usually has it
    p2p-blend   and with a local blend
Followed is what the judge of the data set reads as the new caption in full. The other object is kept where its box is
as it was, within 0.1 of [0, 1] on average; the layout, where both objects' middles are, within a tenth of the width.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np

from minild import data
from minild.data import scenes, shapes
from minild.data.grounds import draw_ground
from minild.data.relations import RELATIONS
from minild.errors import UserError
from minild.evaluation.measures import wilson_interval
from minild.pipelines import load
from minild.pipelines.editing import CROSS_REPLACE_STEPS

from .report import table, write

AROUND = 2  # pixels
STRENGTH = 0.6
INPAINTED = 0.8  # at 1 the new object may lie across the box's edge, where it is cut off: the old one is forgotten
NEAR = 0.1
APART = 0.25  # from the ground, of [0, 1], is an object
SHOWN = 8  # scenes of the sheet
HEADERS = ("task", "scenes", "followed in full", "95 %: from", "to", "other object kept", "layout kept")


def new_object(dataset, scene, which, rng):
    """Another object in place of `which`, of those that training knows beside the other one."""
    other = scene.objects[1 - which]
    choices = shapes.SEEN if dataset.name == "shapes" else scenes.NAMES
    while True:
        chosen = choices[rng.integers(len(choices))]
        if chosen not in scene.objects and frozenset((chosen, other)) not in scenes.WITHHELD:
            return chosen


def drawing(dataset):
    """The module that draws the scenes and says their captions."""
    return {"shapes": shapes, "scenes": scenes}[dataset.name]


def box(dataset, scene, which, around=0):
    """Where an object is, grown by `around` pixels -> two slices."""
    unit = shapes.SUB if dataset.name == "shapes" else 1
    size = scene.sizes[which]
    ends = [(corner // unit - around, -(-corner // unit) + size + around) for corner in scene.places[which]]
    return tuple(slice(max(0, first), min(dataset.base, last)) for first, last in ends)


def ground(dataset, scene):
    """The picture of a scene without its objects, in [0, 1]."""
    if dataset.name == "shapes":
        return np.array(shapes.BACKGROUNDS[scene.background]) / 255
    return draw_ground(scene.ground, dataset.base, *scene.texture) / 255


def middles(dataset, scene, picture):
    """The centre of mass of each object that stands out from the ground, (2, 2), where the scene has its two places."""
    axis = RELATIONS.index(scene.relation)
    (first, second) = (box(dataset, scene, which)[axis] for which in (0, 1))
    middle = (first.stop + second.start) // 2
    seen = np.moveaxis(abs(picture - ground(dataset, scene)).max(axis=-1) > APART, axis, 0)
    halves = seen[:middle], seen[middle:]
    return np.array([np.argwhere(half).mean(axis=0) if half.any() else (np.inf, np.inf) for half in halves])


def inpaint(pipe, cases, seed, **settings):
    return pipe.inpaint(cases.pictures, cases.masks, cases.captions, INPAINTED, seed=seed, **settings)


def image_to_image(pipe, cases, seed, **settings):
    return pipe.image_to_image(cases.pictures, cases.captions, STRENGTH, seed=seed, **settings)


def edit(pipe, cases, seed, **settings):
    return pipe.edit(cases.pictures, cases.sources, cases.captions, **settings)


def edit_with_attention(pipe, cases, seed, **settings):
    return edit(pipe, cases, seed, cross_replace_steps=CROSS_REPLACE_STEPS, **settings)


def edit_in_place(pipe, cases, seed, **settings):
    return edit_with_attention(pipe, cases, seed, blend=True, **settings)


TASKS = {
    "inpaint": inpaint,
    "img2img": image_to_image,
    "edit": edit,
    "p2p": edit_with_attention,
    "p2p-blend": edit_in_place,
}


class Cases:
    """The scenes that are changed: pictures, what their captions become, and where."""

    def __init__(self, dataset, count, seed):
        rng = np.random.default_rng(seed)
        self.before = [dataset.scene(i) for i in range(count)]
        self.pictures = np.stack([drawing(dataset).render(scene) for scene in self.before])
        self.masks, self.kept, self.after = np.zeros(self.pictures.shape[:3], bool), [], []
        for scene, mask in zip(self.before, self.masks):
            which = int(rng.integers(2))
            objects = list(scene.objects)
            objects[which] = new_object(dataset, scene, which, rng)
            self.after.append(dataclasses.replace(scene, objects=tuple(objects)))
            self.kept.append(box(dataset, scene, 1 - which))
            mask[box(dataset, scene, which, AROUND)] = True
            mask[self.kept[-1]] = False
        self.sources = [drawing(dataset).captions(scene)[0] for scene in self.before]
        self.captions = [drawing(dataset).captions(scene)[0] for scene in self.after]

    def measure(self, dataset, drawn):
        """-> {"followed": share, "interval": its 95 %, "kept": share of the other objects, "layout": share}."""
        judge = dataset.judge
        followed = [judge.read(picture) == scene.key for picture, scene in zip(drawn, self.after)]
        change = abs(drawn - self.pictures / 255)
        kept = [each[part].mean() < NEAR for each, part in zip(change, self.kept)]
        layout = [
            abs(middles(dataset, scene, each) - middles(dataset, scene, drawing(dataset).render(scene) / 255)).max()
            <= dataset.base / 10
            for each, scene in zip(drawn, self.after)
        ]
        share = float(np.mean(followed))
        found = {"followed": share, "interval": wilson_interval(share, len(followed))}
        return found | {"kept": float(np.mean(kept)), "layout": float(np.mean(layout))}


def main(argv):
    p = argparse.ArgumentParser(prog="python -m tests.benchmarks.tasks", description=__doc__.partition("\n")[0])
    p.add_argument("--model", default="shapes")
    p.add_argument("--tasks", default=",".join(TASKS))
    p.add_argument("--count", type=int, default=200)
    p.add_argument("--steps", type=int, default=50)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--output", type=Path)
    options = p.parse_args(argv)
    names = options.tasks.split(",")
    if unknown := [name for name in names if name not in TASKS]:
        raise UserError(f"unknown task {unknown[0]!r}: use {', '.join(TASKS)}")
    pipe = load(options.model)
    dataset = data.load(pipe.record.get("dataset"), "test", pipe.record.get("size"))
    output = options.output or Path(__file__).with_name(f"tasks-{dataset.name}")
    cases = Cases(dataset, options.count, options.seed)
    settings = {"steps": options.steps, "progress": True}
    tiles, labels, results = [*cases.pictures[:SHOWN] / 255], ["given"] * SHOWN, {}
    for name in names:
        drawn = TASKS[name](pipe, cases, options.seed, **settings)
        results[name] = cases.measure(dataset, drawn)
        tiles += [*drawn[:SHOWN]]
        labels += [f"{name}: {caption}" for caption in cases.captions[:SHOWN]]
    rows = [
        (name, str(options.count), *map("{:.1%}".format, (r["followed"], *r["interval"], r["kept"], r["layout"])))
        for name, r in results.items()
    ]
    some = "" if set(names) == set(TASKS) else f" --tasks {options.tasks}"
    asked = f"--model {options.model}{some} --count {options.count} --steps {options.steps}"
    command = f"python -m tests.benchmarks.tasks {asked}"
    text = f"`{command}`\n\n{table(HEADERS, rows)}\n"
    write(output, text, {"command": command, **results}, tiles, labels, SHOWN)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"minild: {error}")
