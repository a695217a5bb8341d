"""python -m tests.benchmarks.upscaling: held-out pictures made f times smaller and enlarged again, beside bicubic.

    --model DIR         a pipeline of low-resolution pictures (minild train ... --condition low-resolution)
    --count N           test pictures, evenly spread (200)
    --levels A,B        noise levels, where the model is told them (0,20,100)
    --steps N           of the sampler (50)
    --guidance S        away from no picture (1, none)
    --seed N            of the drawings (0)
    --output NAME       NAME.json and NAME.md are written, and NAME.png, a sheet (tests/benchmarks/upscaling-DATASET)

PSNR and LPIPS are of the whole pictures, the means over them; LPIPS is by minild's own network. `autoencoder` is the
true picture encoded and decoded: no drawing from latents can be nearer. Of two that are as likely, bicubic shows the
mean, which PSNR rewards, and a drawing shows one of them, which LPIPS rewards.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from minild import data
from minild.data.pictures import gather
from minild.errors import UserError
from minild.evaluation.measures import psnr
from minild.evaluation.perceptual import load_perceptual, lpips
from minild.pipelines import load
from minild.pipelines.conditions import encode, reduced

from .report import table, write

SHOWN = 6  # pictures of the sheet
HEADERS = ("enlarged by", "PSNR", "LPIPS")


def bicubic(pictures, f):
    """Pictures (N, h, w, 3) in [0, 1] enlarged -> (N, f · h, f · w, 3) in [0, 1]."""
    N, h, w, _ = pictures.shape
    planes = pictures.transpose(0, 3, 1, 2).reshape(-1, h, w).astype(np.float32)
    large = [Image.fromarray(plane).resize((f * w, f * h), Image.Resampling.BICUBIC) for plane in planes]
    stacked = np.stack([np.asarray(plane) for plane in large]).reshape(N, 3, f * h, f * w)
    return stacked.transpose(0, 2, 3, 1).clip(0, 1)


def enlarged(pipe, small, pictures, levels, progress=True, **settings):
    """{name: (N, H, W, 3) in [0, 1]} of each way to enlarge, and of the autoencoder.

    small (N, h, w, 3) in [0, 1], what pictures (N, H, W, 3) uint8 were made. A model that is told no level has one way.
    """
    ways = {"bicubic": bicubic(small, pipe.vae.downsampling)}
    ways["autoencoder"] = pipe.decode(encode(pipe.vae, (pictures / 127.5 - 1).astype(np.float32)))
    if pipe.augmentation is None:
        return ways | {"minild": pipe.upscale(small, progress=progress, **settings)}
    for level in levels:
        drawn = pipe.upscale(small, noise_level=level, progress=progress, **settings)
        ways[f"minild, noise level {level}"] = drawn
    return ways


def measured(ways, pictures, network):
    """{name: {"psnr": dB, "lpips": distance}} of what `enlarged` gave."""
    truth = pictures / np.float32(255)
    return {
        name: {"psnr": float(psnr(truth, drawn).mean()), "lpips": float(lpips(truth, drawn, network).mean())}
        for name, drawn in ways.items()
    }


def main(argv):
    p = argparse.ArgumentParser(prog="python -m tests.benchmarks.upscaling", description=__doc__.partition("\n")[0])
    p.add_argument("--model", required=True)
    p.add_argument("--count", type=int, default=200)
    p.add_argument("--levels", default="0,20,100")
    p.add_argument("--steps", type=int, default=50)
    p.add_argument("--guidance", type=float, default=1.0)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--output", type=Path)
    options = p.parse_args(argv)
    try:
        levels = [int(level) for level in options.levels.split(",")]
    except ValueError:
        raise UserError(f"levels: expected numbers such as 0,20, got {options.levels!r}") from None
    pipe = load(options.model)
    pipe.require_way("upscale", pipe.kinds == ("low resolution",))
    dataset = data.load(pipe.record.get("dataset"), "test", pipe.record.get("size"))
    output = options.output or Path(__file__).with_name(f"upscaling-{dataset.name}")
    pictures, _ = gather(dataset, options.count)
    small = reduced(pictures, pipe.vae.downsampling)
    settings = {"steps": options.steps, "guidance_scale": options.guidance, "seed": options.seed}
    ways = enlarged(pipe, small, pictures, levels, **settings)
    figures = measured(ways, pictures, load_perceptual())
    rows = [(name, f"{each['psnr']:.2f} dB", f"{each['lpips']:.4f}") for name, each in figures.items()]
    asked = f"--model {options.model} --count {len(pictures)} --steps {options.steps} --guidance {options.guidance:g}"
    command = f"python -m tests.benchmarks.upscaling {asked}"
    text = f"`{command}`\n\n{table(HEADERS, rows)}\n"
    shown = {"true": pictures / 255, **ways}
    tiles = np.concatenate([each[:SHOWN] for each in shown.values()])
    columns = min(SHOWN, len(pictures))
    labels = [name for name in shown for _ in range(columns)]
    write(output, text, {"command": command, **figures}, tiles, labels, columns)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"minild: {error}")
