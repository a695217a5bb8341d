"""python -m tests.benchmarks.new_thing: a LoRA of ten pictures of a thing that no scene shows, judged by machine.

    --model DIR         scenes, or the folder of a training on them (scenes)
    --thing NAME        one of minild.data.scenes.NEW (koala)
    --minutes M         of the training (5)
    --rank N            of the updates (8)
    --count N           captions of each kind (100)
    --steps N           of the sampler (50)
    --output NAME       NAME.json, NAME.md and NAME.png, a sheet, are written (tests/benchmarks/new-thing)

The pictures to learn from are scenes of the thing and another one, with their captions. Asked for are then the thing
beside others, on any ground, in captions that were not learnt; and scenes without it, before and after. Followed is
what the judge reads as the caption in full; it tells the thing from the two hundred.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from minild import data
from minild.data.grounds import GROUNDS
from minild.data.relations import RELATIONS
from minild.data.scene_judge import read
from minild.data.scenes import NAMES, NEW, PAIRS, Scene, captions, places_at, render
from minild.errors import UserError
from minild.evaluation.measures import wilson_interval
from minild.pipelines import load
from minild.training import train_lora

from .report import table, write

PICTURES = 10
SHOWN = 6  # of each kind, on the sheet
HEADERS = ("captions", "model", "count", "followed in full", "95 %: from", "to", "the thing is there")


def scenes_with(thing, count, seed):
    """Scenes of the thing and another one, which is first as often as second."""
    rng = np.random.default_rng(seed)

    def one(i):
        other, ground = NAMES[rng.integers(len(NAMES))], list(GROUNDS)[rng.integers(len(GROUNDS))]
        relation, sizes = RELATIONS[rng.integers(2)], PAIRS[rng.integers(len(PAIRS))]
        objects = (thing, other) if i % 2 else (other, thing)
        return Scene(objects, relation, ground, sizes, places_at(relation, sizes, rng.random(5)))

    return [one(i) for i in range(count)]


def write_pictures(folder, scenes):
    """A folder as `minild train lora --data` reads it: the scenes' pictures, and a caption of each."""
    lines = []
    for i, scene in enumerate(scenes):
        Image.fromarray(render(scene)).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": captions(scene)[0]}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(pictures, keys, thing):
    """-> {"followed": share, "interval": its 95 %, "there": the share of pictures that show the thing}."""
    shown = [read(picture, (*NAMES, thing)) for picture in pictures]
    share = float(np.mean([one == key for one, key in zip(shown, keys, strict=True)]))
    there = float(np.mean([thing in one[:2] for one in shown]))
    return {"followed": share, "interval": wilson_interval(share, len(keys)), "there": there}


def main(argv):
    p = argparse.ArgumentParser(prog="python -m tests.benchmarks.new_thing", description=__doc__.partition("\n")[0])
    p.add_argument("--model", default="scenes")
    p.add_argument("--thing", default=NEW[0])
    p.add_argument("--minutes", type=float, default=5)
    p.add_argument("--rank", type=int, default=8)
    p.add_argument("--count", type=int, default=100)
    p.add_argument("--steps", type=int, default=50)
    p.add_argument("--output", type=Path, default=Path(__file__).with_name("new-thing"))
    options = p.parse_args(argv)
    if options.thing not in NEW:
        raise UserError(f"unknown thing {options.thing!r}: use one of {', '.join(NEW)}")
    learnt, asked = (scenes_with(options.thing, *which) for which in ((PICTURES, 0), (options.count, 1)))
    test = data.load("scenes", "test")
    others = [test.scene(i) for i in range(options.count)]
    pipe, found, tiles, labels = load(options.model), {}, [], []
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), learnt)
        file = Path(folder) / "lora.safetensors"
        how = {"rank": options.rank, "text_encoder": True, "minutes": options.minutes}
        steps = train_lora(options.model, folder, file, **how)
        for model in ("before", "after"):
            if model == "after":
                pipe.load_lora(file)
            for kind, scenes in ((f"with a {options.thing}", asked), ("without", others)):
                texts = [captions(scene)[0] for scene in scenes]
                drawn = pipe.text_to_image(texts, steps=options.steps, progress=True)
                found[kind, model] = measure(drawn, [scene.key for scene in scenes], options.thing)
                tiles += [*drawn[:SHOWN]]
                labels += [f"{model}: {text}" for text in texts[:SHOWN]]
    rows = [
        (kind, model, str(options.count), *map("{:.1%}".format, (r["followed"], *r["interval"], r["there"])))
        for (kind, model), r in found.items()
    ]
    chosen = f"--model {options.model} --thing {options.thing} --minutes {options.minutes:g} --rank {options.rank}"
    command = f"python -m tests.benchmarks.new_thing {chosen} --count {options.count} --steps {options.steps}"
    text = f"`{command}`: {steps:,} steps of training\n\n{table(HEADERS, rows)}\n"
    figures = {f"{kind}, {model}": r for (kind, model), r in found.items()}
    write(options.output, text, {"command": command, **figures}, tiles, labels, SHOWN)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"minild: {error}")
