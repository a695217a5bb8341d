"""python -m tests.benchmarks.tables NAME: a table of the latent diffusion paper in miniature.

    autoencoders   (a) Fréchet distance and PSNR of the rebuilt over f in {2, 4, 8} and KL, VQ    6 trainings
    pixels         (b) pixel against latent diffusion over f in {1, 2, 4, 8}                      4 trainings, and (a)'s
    guidance       (c) guidance scale against fidelity and diversity
    samplers       (d) sampler against number of steps
    losses         (e) L1 + L2, + LPIPS, + GAN side by side                                       3 trainings

Cells that are done are kept in --work, so that a command that was stopped goes on where it was. The table, as
Markdown and JSON, and its plot go to --output.
"""

import argparse
import sys
from pathlib import Path

from minild.errors import UserError
from minild.pipelines import load

from . import autoencoders, pixels, plots, sampling
from .cells import Cells, publish
from .measures import Judge

RESULTS = Path(__file__).parent / "results"


def parser():
    p = argparse.ArgumentParser(prog="python -m tests.benchmarks.tables", description=__doc__.partition("\n")[0])
    p.add_argument("table", choices=sorted(TABLES))
    p.add_argument("--minutes", type=float, default=5, help="of each training (5)")
    p.add_argument("--count", type=int, default=256, help="pictures drawn for a cell (256)")
    p.add_argument("--model", default="scenes", help="of guidance and samplers (scenes)")
    p.add_argument("--work", type=Path, default=Path("runs/tables"), help="what is computed on the way (runs/tables)")
    p.add_argument("--output", type=Path, default=RESULTS, help="where the table goes (beside this program)")
    return p


def main(arguments=None):
    """Exit status: 0 done; 2 for a mistake."""
    given = parser().parse_args(arguments)
    if given.minutes <= 0 or given.count < 2:
        print("tables: --minutes is more than 0, --count 2 or more", file=sys.stderr)
        return 2
    given.output.mkdir(parents=True, exist_ok=True)
    judge = Judge(given.work / "judge")
    command = f"python -m tests.benchmarks.tables {given.table}"
    command += f" --minutes {given.minutes:g}" if given.table in TRAINED else f" --model {given.model}"
    if given.table not in ("autoencoders", "losses"):
        command += f" --count {given.count}"
    try:
        rows, columns = TABLES[given.table](given, Cells(given.work / given.table), judge)
    except UserError as error:
        print(f"tables: {error}", file=sys.stderr)
        return 2
    print(publish(given.output, given.table, command, columns, rows))
    return 0


def _autoencoders(given, cells, judge):
    rows = autoencoders.over_f(cells, judge, given.minutes)
    plots.rate_and_distortion(rows, given.output / "autoencoders.png")
    return rows, {"f": "{f}", "": "{regularisation}", "PSNR, dB": "{psnr:.2f}", "LPIPS": "{lpips:.3f}",
                  "Fréchet distance": "{frechet:.1f}"}  # fmt: skip


def _losses(given, cells, judge):
    rows = autoencoders.over_losses(cells, judge, given.minutes, given.output / "losses.png")
    return rows, {"losses": "{losses}", "PSNR, dB": "{psnr:.2f}", "LPIPS": "{lpips:.3f}",
                  "Fréchet distance": "{frechet:.1f}"}  # fmt: skip


def _pixels(given, cells, judge):
    first_stages = Cells(given.work / "autoencoders")
    rows = pixels.over_f(cells, first_stages, judge, given.minutes, given.count)
    plots.quality_over_time(rows, given.output / "pixels.png")
    return rows, {"f": "{f}", "U-Net's parameters": "{parameters:,}",
                  "trained, images/s": "{trained_images_per_second:.1f}",
                  "drawn, images/s": "{drawn_images_per_second:.2f}", "Fréchet distance": "{frechet:.1f}"}  # fmt: skip


def _guidance(given, cells, judge):
    rows = sampling.over_guidance(cells, judge, sampling.Asked(load(given.model), given.count))
    plots.lines(rows, given.output / "guidance.png", "Guidance", ("guidance", "guidance scale"),
                ("frechet", "Fréchet distance (lower is better)"))  # fmt: skip
    return rows, {"guidance": "{guidance:g}", "followed in full": "{followed:.1%}", "Fréchet distance": "{frechet:.1f}",
                  "precision": "{precision:.2f}", "recall": "{recall:.2f}"}  # fmt: skip


def _samplers(given, cells, judge):
    rows = sampling.over_steps(cells, judge, sampling.Asked(load(given.model), given.count))
    plots.lines(rows, given.output / "samplers.png", "Samplers", ("steps", "steps"),
                ("frechet", "Fréchet distance (lower is better)"), by="sampler", logarithmic=True)  # fmt: skip
    return rows, {"sampler": "{sampler}", "steps": "{steps}", "followed in full": "{followed:.1%}",
                  "Fréchet distance": "{frechet:.1f}"}  # fmt: skip


TABLES = {
    "autoencoders": _autoencoders,
    "pixels": _pixels,
    "guidance": _guidance,
    "samplers": _samplers,
    "losses": _losses,
}
TRAINED = ("autoencoders", "pixels", "losses")  # that train what they measure

if __name__ == "__main__":
    sys.exit(main())
