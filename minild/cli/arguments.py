"""What the subcommands' arguments have in common: their types, and the options that mean the same everywhere."""

import argparse
from pathlib import Path

MODEL_HELP = "a pipeline folder, or emoji, scenes or shapes for those that come with minild"
SAMPLER_NAMES = (
    "ddpm, ddim, ddim-inverse, pndm, lms, euler, euler-a, heun, dpm2, dpm2-a, dpmpp-2m, dpmpp-2m-karras, "
    "dpmpp-2m-sde, dpmpp-3m, dpmpp-3m-sde, dpm-solver, dpm-solver-sde, dpm-singlestep, deis, unipc, lcm or flow-euler"
)


def add_command(commands, name, run, summary, details=None):
    """A new subcommand's parser. summary: its line in the list of commands, and with `details` its own description."""
    description = summary[0].upper() + summary[1:] + ("." if details is None else f". {details}")
    command = commands.add_parser(name, help=summary, description=description)
    command.set_defaults(run=run)
    return command


def at_least(least, kind):
    """An argparse type: a finite number of `kind` not below `least`."""

    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value < float("inf"):
            noun = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"expected {noun} from {least}, got {text!r}")
        return value

    return convert


def port(text):
    """An argparse type: the number of a TCP port."""
    number = at_least(1, int)(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return number


def name(text):
    """An argparse type: the name of a file, a folder or a choice, which is never empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a name, got an empty text")
    return text


def path(text):
    """An argparse type: a name as a Path."""
    return Path(name(text))


def seeds(text):
    """An argparse type: the number of a text such as "7"; of "7,12,30" the list of numbers."""
    numbers = [at_least(0, int)(part) for part in text.split(",")]
    return numbers if len(numbers) > 1 else numbers[0]


def share(text):
    """An argparse type: (K, N) of "K/N", K from 0 to N - 1."""
    rank, _, size = text.partition("/")
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise argparse.ArgumentTypeError(f"expected K/N such as 0/4, K from 0 to N - 1, got {text!r}")
    return int(rank), int(size)


def lora(text):
    """An argparse type: (path, scale) of "FILE", or "FILE:0.8"."""
    file, colon, number = text.rpartition(":")
    try:
        scale = float(number)
    except ValueError:  # all of it is a name, be there a colon in it or not
        return path(text), 1.0
    return (path(file), scale) if colon else (path(text), 1.0)


def weight(text):
    """An argparse type: (word, factor) of "red=1.5"; the word's number where it is given by that."""
    word, _, number = text.rpartition("=")
    try:
        factor = float(number)
    except ValueError:
        word = ""
    if not word.strip():
        raise argparse.ArgumentTypeError(f"expected WORD=FACTOR such as red=1.5, got {text!r}")
    return (int(word) if word.isdecimal() else word), factor


def size(text):
    """The (height, width) of a text such as "64" or "48x64"."""
    from minild.pipelines.image_to_image import LARGEST_SIDE

    try:
        sides = [int(side) for side in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or not all(1 <= side <= LARGEST_SIDE for side in sides):
        expected = f"64 or 48x64 (height x width, up to {LARGEST_SIDE})"
        raise argparse.ArgumentTypeError(f"expected a size such as {expected}, got {text!r}")
    return sides[0], sides[-1]


def add_model(command):
    command.add_argument("--model", type=name, metavar="DIR", help=f"{MODEL_HELP} (default: emoji)")


def add_variant(command):
    variant = "weights to read where a model has several: fp16 or non_ema, say (default: those that have no such name)"
    command.add_argument("--variant", type=name, metavar="NAME", help=variant)


def add_lora(command):
    """--lora, by which a pipeline has learnt something since."""
    updates = "low-rank updates of the model, and how strongly (default: 1); may be given several times"
    command.add_argument("--lora", type=lora, action="append", default=[], metavar="FILE[:SCALE]", help=updates)


def add_additions(command):
    """--lora and --embedding, of a pipeline that words lead."""
    add_lora(command)
    embedding = "a learnt word, to be used in prompts; may be given several times"
    command.add_argument("--embedding", type=path, action="append", default=[], metavar="FILE", help=embedding)


def add_control(command):
    """--controlnet and the picture that it looks at."""
    controlnet = "a ControlNet, which leads the model by a picture: the folder that `train controlnet` wrote, say"
    command.add_argument("--controlnet", type=path, metavar="DIR", help=controlnet)
    control = (
        "the picture that the ControlNet looks at, as it is: one of white outlines on black, where it has learnt from "
        "those; it is made as large as what is drawn"
    )
    command.add_argument("--control", type=path, metavar="IMAGE", help=control)
    outline = "--control is any picture: its outlines are found first, and those are followed"
    command.add_argument("--outline", action="store_true", help=outline)
    scale = "how strongly the ControlNet leads (default: 1)"
    command.add_argument("--control-scale", type=float, metavar="S", help=scale)


def add_steps(command, what):
    command.add_argument("--steps", type=at_least(1, int), default=50, help=f"{what} (default: 50)")


def add_guidance(command):
    guidance = "guidance scale; 1 or less is none, the prompt alone (default: the model's own, or 7.5)"
    command.add_argument("--guidance", type=float, help=guidance)


def add_sampler(command):
    command.add_argument("--sampler", type=name, metavar="NAME", help=f"{SAMPLER_NAMES} (default: the model's own)")


def add_negative_prompt(command):
    command.add_argument("--negative-prompt", default="", metavar="TEXT", help="what guidance leads away from")


def add_seed(command):
    command.add_argument("--seed", type=at_least(0, int), default=0, help="of the random numbers (default: 0)")


def add_seeds(command):
    """--seed where pictures are drawn: one for all, or one for each."""
    seed = "of the random numbers: one for each picture, or the first, from which they count up (default: 0)"
    command.add_argument("--seed", type=seeds, default=0, metavar="N[,N...]", help=seed)


def add_fit(command):
    """--size and --sheet of a command that begins with a picture."""
    fit = "what the picture is made to fit, in pixels, multiples of the autoencoder's f"
    command.add_argument("--size", type=size, metavar="H|HxW", help=fit)
    add_sheet(command)


def add_sheet(command):
    sheet = "write what was given and what was drawn beside each other, too"
    command.add_argument("--sheet", type=path, metavar="FILE.png", help=sheet)


def add_device(command):
    command.add_argument("--device", default="cpu", metavar="cpu|cuda", help="where to compute (default: cpu)")


def add_dtype(command):
    command.add_argument(
        "--dtype", default="float32", metavar="float32|float16", help="precision to compute in (default: float32)"
    )


def add_own_ops(command, draws=False):
    own = "compute with your own ops: FILE.py defines pairs such as group_norm and group_norm_backward"
    if draws:
        own = "draw with your own ops: FILE.py, such as a chapter's exercises, defines group_norm, attention or others"
    command.add_argument("--with", dest="own_ops", type=path, metavar="FILE.py", help=own)
