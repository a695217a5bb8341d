"""The command `minild`: a thin layer over minild.training, minild.pipelines and minild.evaluation.

What a subcommand needs is imported when it runs, so that --help is quick.
"""

import argparse
import contextlib
import json
import os
import sys
import warnings
from pathlib import Path

from minild import __version__
from minild.course import command as course
from minild.errors import UserError

MODEL_HELP = "a pipeline folder, or emoji or shapes for those that come with minild"
SAMPLER_NAMES = (
    "ddpm, ddim, ddim-inverse, pndm, lms, euler, euler-a, heun, dpmpp-2m, dpmpp-2m-karras, dpmpp-2m-sde, unipc or lcm"
)
LARGEST_SIDE = 2048  # pixels; beyond a multiple of its training size a model repeats itself, at a cost of side⁴
MOST_PICTURES = 10_000  # of one command
CLOSED_PIPE = 141  # what a shell reports of a program that SIGPIPE ended
WORDS_SHOWN = 5  # of a prompt's lost end


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaint is the user's one line."""

    def error(self, message):
        raise UserError(f"{message} (see {self.prog} --help)")

    def exit(self, status=0, message=None):
        _answer()  # the help that stdout still holds back
        super().exit(status, message)


def main(argv=None):
    """Run the command -> its exit status: 0 done, 2 a user's mistake, 130 interrupted, 141 nobody reads stdout."""
    try:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
    except UserError as error:
        return _refuse(error)
    except MemoryError as error:
        return _refuse(f"not enough memory ({error}): use a smaller --size or --count, or a smaller model")
    except BrokenPipeError:
        return CLOSED_PIPE
    except OSError as error:  # a full disk, a name too long: whatever the system refuses
        return _refuse(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except KeyboardInterrupt:
        return 130
    return 0


def _refuse(error):
    _note(error)
    return 2


def _note(message):
    """One line on stderr."""
    with contextlib.suppress(OSError):  # a stderr that takes nothing has no other place to say so
        print("minild:", " ".join(str(message).splitlines()), file=sys.stderr)


def _answer(*lines):
    """Lines on stdout, at once. UserError where it cannot take them; BrokenPipeError where nobody reads it any more."""
    try:
        print(*lines, sep="\n", end="\n" if lines else "", flush=True)
    except UnicodeEncodeError as error:
        shown = ascii(error.object[error.start : error.end])
        raise UserError(f"done, but stdout, in {error.encoding}, has no {shown}: set PYTHONIOENCODING=utf-8") from None
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python, at its exit, writes the rest
        if isinstance(error, BrokenPipeError):
            raise
        raise UserError(f"cannot write to stdout: {error.strerror}") from None


@contextlib.contextmanager
def _without_warnings():
    """Within it, NumPy does not warn of numbers too large: whoever finds pictures that are no numbers says what to do.

    A filter, and not numpy.errstate, which the threads that draw would not see.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def _parser():
    parser = Parser(prog="minild", description="Latent diffusion written with nothing but arrays.")
    parser.add_argument("--version", action="version", version=f"minild {__version__}")
    commands = parser.add_subparsers(metavar="command", dest="command", required=True)
    _add_train(commands)
    _add_txt2img(commands)
    _add_evaluate(commands)
    _add_info(commands)
    _add_course(commands)
    return parser


def _add_command(commands, name, run, summary, details=None):
    description = summary[0].upper() + summary[1:] + ("." if details is None else f". {details}")
    command = commands.add_parser(name, help=summary, description=description)
    command.set_defaults(run=run)
    return command


def _add_computing(command, dtype=True):
    command.add_argument("--device", default="cpu", metavar="cpu|cuda", help="where to compute (default: cpu)")
    if dtype:
        command.add_argument(
            "--dtype", default="float32", metavar="float32|float16", help="precision to compute in (default: float32)"
        )


def _at_least(least, kind):
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


def _name(text):
    """An argparse type: the name of a file, a folder or a choice, which is never empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a name, got an empty text")
    return text


def _path(text):
    """An argparse type: a name as a Path."""
    return Path(_name(text))


def _seeds(text):
    """An argparse type: the number of a text such as "7"; of "7,12,30" the list of numbers."""
    seeds = [_at_least(0, int)(part) for part in text.split(",")]
    return seeds if len(seeds) > 1 else seeds[0]


def _size(text):
    """The (height, width) of a text such as "64" or "48x64"."""
    try:
        sides = [int(side) for side in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or not all(1 <= side <= LARGEST_SIDE for side in sides):
        expected = f"64 or 48x64 (height x width, up to {LARGEST_SIDE})"
        raise argparse.ArgumentTypeError(f"expected a size such as {expected}, got {text!r}")
    return sides[0], sides[-1]


def _add_txt2img(commands):
    details = (
        "Prints the names of the files it wrote. Several pictures become NAME-0.png, NAME-1.png, ..., in the order of "
        "the prompts, --count of each."
    )
    command = _add_command(commands, "txt2img", _txt2img, "draw pictures from words", details)
    command.add_argument("prompts", nargs="+", metavar="PROMPT", help="what to draw")
    command.add_argument("--model", type=_name, metavar="DIR", help=f"{MODEL_HELP} (default: emoji)")
    command.add_argument(
        "--output",
        type=_path,
        metavar="FILE",
        help=".png, or .npy for all pictures as float32 (N, H, W, 3) in [0, 1] (default: the first prompt, as .png)",
    )
    command.add_argument("--steps", type=_at_least(1, int), default=50, help="steps of the sampler (default: 50)")
    command.add_argument("--guidance", type=float, help="guidance scale, 1 for none (default: the model's own, or 7.5)")
    command.add_argument("--sampler", type=_name, metavar="NAME", help=f"{SAMPLER_NAMES} (default: the model's own)")
    command.add_argument("--negative-prompt", default="", metavar="TEXT", help="what to lead away from")
    command.add_argument("--count", type=_at_least(1, int), default=1, help="pictures of each prompt (default: 1)")
    seed = "of the random numbers: one for each picture, or the first, from which they count up (default: 0)"
    command.add_argument("--seed", type=_seeds, default=0, metavar="N[,N...]", help=seed)
    clip_skip = "last layers of the text encoder to skip (default: 0)"
    command.add_argument("--clip-skip", type=_at_least(0, int), default=0, metavar="N", help=clip_skip)
    rescale = "how much of the contrast that guidance adds to take back, 0 to 1 (default: 0)"
    command.add_argument("--guidance-rescale", type=float, default=0.0, metavar="PHI", help=rescale)
    command.add_argument("--size", type=_size, metavar="H|HxW", help="in pixels (default: that of the training)")
    command.add_argument(
        "--latents", type=_path, metavar="FILE.npy", help="the initial unit-variance noise (N, h, w, c): N pictures"
    )
    _add_computing(command)


def _txt2img(arguments):
    from minild.pipelines import load, output
    from minild.pipelines.request import require_texts

    for prompt in arguments.prompts:
        if not prompt.strip():
            raise UserError("a prompt is empty: say what to draw")
    require_texts([*arguments.prompts, arguments.negative_prompt])
    wanted = len(arguments.prompts) * arguments.count
    if wanted > MOST_PICTURES:
        raise UserError(f"{wanted:,} pictures are too many for one command: ask for {MOST_PICTURES:,} at most")
    prompts = [prompt for prompt in arguments.prompts for _ in range(arguments.count)]
    latents = None
    if arguments.latents:
        latents = _read_latents(arguments.latents)
        prompts = prompts * len(latents) if len(prompts) == 1 else prompts
    seeds = arguments.seed if isinstance(arguments.seed, list) else [arguments.seed + i for i in range(len(prompts))]
    if len(seeds) != len(prompts):
        raise UserError(f"{len(seeds)} seeds for {_plural(len(prompts), 'picture')}: give one for each, or only one")
    paths = output.output_paths(arguments.output or output.default_name(prompts[0]), len(prompts))
    for path in paths:
        output.require_writable(path)

    pipeline = load(arguments.model, arguments.dtype, arguments.device)
    guidance = pipeline.guidance_scale if arguments.guidance is None else arguments.guidance
    for text in dict.fromkeys([*prompts, arguments.negative_prompt]):
        if dropped := pipeline.tokenizer.dropped(text):
            _note(f"a prompt is longer than the {pipeline.tokenizer.max_length} tokens that fit: {_lost(dropped)}")
    with _without_warnings():
        pictures = pipeline.text_to_image(
            prompts,
            arguments.negative_prompt,
            arguments.steps,
            guidance,
            arguments.sampler,
            seeds,
            latents,
            arguments.size,
            progress=True,
            clip_skip=arguments.clip_skip,
            guidance_rescale=arguments.guidance_rescale,
        )
    if paths[0].suffix.lower() == ".npy":
        output.write_npy(paths[0], pictures)
    else:
        settings = _settings(arguments, pipeline, guidance)
        for path, prompt, seed, picture in zip(paths, prompts, seeds, pictures):
            output.write_png(path, picture, {"Software": "minild", "prompt": prompt, "seed": seed, **settings})
    _answer(*paths)


def _plural(count, noun):
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _lost(dropped):
    """What to say of the end of a prompt that is cut off: how it begins, and how long it is."""
    words = dropped.split()
    start = " ".join(words[:WORDS_SHOWN])[:60]
    more = " ..." if start != " ".join(words) else ""
    return f"left out {'is' if len(words) == 1 else 'are'} {_plural(len(words), 'word')}, {start!r}{more}"


def _settings(arguments, pipeline, guidance):
    """What a PNG says of how it was drawn, beside prompt and seed. No dates: a seed gives one file, byte for byte."""
    settings = {
        "negative_prompt": arguments.negative_prompt,
        "model": arguments.model or "emoji",
        "steps": arguments.steps,
        "guidance": guidance,
        "sampler": arguments.sampler or pipeline.sampler,
        "dtype": arguments.dtype,
    }
    if arguments.clip_skip:
        settings["clip_skip"] = arguments.clip_skip
    if arguments.guidance_rescale:
        settings["guidance_rescale"] = arguments.guidance_rescale
    if arguments.latents:
        settings["latents"] = arguments.latents.name
    return settings


def _read_latents(path):
    import tokenize

    import numpy as np

    try:
        latents = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (EOFError, SyntaxError, ValueError, tokenize.TokenError):  # all of them ways to say that the header is bad
        raise UserError(f"{path} is no .npy file of numbers") from None
    if not isinstance(latents, np.ndarray) or latents.ndim != 4 or not len(latents):
        shape = getattr(latents, "shape", "several arrays")
        raise UserError(f"{path}: expected latents of shape (N, h, w, c), got {shape}")
    return latents


def _add_train(commands):
    command = _add_command(
        commands,
        "train",
        _train,
        "train a pipeline: the autoencoder, then the diffusion model",
        "Prints the name of the folder it wrote.",
    )
    command.add_argument(
        "dataset", type=_name, metavar="shapes|emoji|FOLDER", help="a data set of minild's, or a captioned folder"
    )
    command.add_argument("--output", type=_path, required=True, metavar="DIR", help="the pipeline folder to write")
    length = command.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=_at_least(0, float), help="stop both stages within this time")
    length.add_argument("--steps", type=_at_least(1, int), help="stop each stage after this many steps")
    command.add_argument("--seed", type=_at_least(0, int), default=0, help="of the random numbers (default: 0)")
    command.add_argument("--size", type=_at_least(1, int), default=32, help="of the pictures, in pixels (default: 32)")
    command.add_argument("--resume", action="store_true", help="go on with the training that DIR holds")
    _add_computing(command, dtype=False)


def _train(arguments):
    from minild.training import train

    if arguments.minutes == 0:
        raise UserError("--minutes must be more than 0")
    try:
        train(
            arguments.dataset,
            arguments.output,
            minutes=arguments.minutes,
            steps=arguments.steps,
            seed=arguments.seed,
            device=arguments.device,
            resume=arguments.resume,
            size=arguments.size,
        )
    except KeyboardInterrupt:
        from minild.training.run import what_is_saved

        _note(f"stopped; {what_is_saved(arguments.output)}")
        raise
    _answer(arguments.output)


def _add_evaluate(commands):
    command = _add_command(
        commands, "evaluate", _evaluate, "measure how good a pipeline is", "Prints the figures on the test set."
    )
    command.add_argument("model", type=_name, metavar="DIR", help=MODEL_HELP)
    command.add_argument(
        "--dataset", type=_name, metavar="NAME", help="shapes, emoji or a folder (default: that of the training)"
    )
    command.add_argument("--count", type=_at_least(1, int), help="how many pictures to draw and judge")
    command.add_argument("--seed", type=_at_least(0, int), default=0, help="of the random numbers (default: 0)")
    command.add_argument("--steps", type=_at_least(1, int), default=50, help="DDIM steps (default: 50)")
    command.add_argument("--guidance", type=float, help="guidance scale, 1 for none (default: the model's own, or 7.5)")
    command.add_argument("--json", type=_path, metavar="FILE", help="write the figures to this file, too")
    _add_computing(command)


def _evaluate(arguments):
    from minild import data, evaluation
    from minild.data.pictures import tell_skipped
    from minild.pipelines import load, output

    if arguments.json:
        output.require_writable(arguments.json)
    pipeline = load(arguments.model, arguments.dtype, arguments.device)
    dataset = arguments.dataset or pipeline.record.get("dataset")
    if dataset is None:
        raise UserError(f"{arguments.model} does not say what it was trained on: give --dataset")
    size = pipeline.record.get("size") or (pipeline.default_size or (32, 32))[0]
    train, test = (data.load(dataset, split=split, size=size) for split in ("train", "test"))
    tell_skipped(train)
    with _without_warnings():
        figures = evaluation.evaluate(
            pipeline, train, test, arguments.count, arguments.seed, arguments.steps, arguments.guidance, progress=True
        )
    if arguments.json:
        with output.whole_file(arguments.json) as file:
            file.write(json.dumps(figures, indent=2).encode() + b"\n")
    _answer(evaluation.format_report(figures))


def _add_info(commands):
    command = _add_command(commands, "info", _info, "tell what a pipeline folder holds and how it was trained")
    command.add_argument("model", nargs="?", type=_name, metavar="DIR", help=f"{MODEL_HELP} (default: emoji)")


def _info(arguments):
    from minild.pipelines.info import describe

    _answer(*describe(arguments.model))


def _add_course(commands):
    for name, run, summary, details, add_arguments in course.COMMANDS:
        command = _add_command(commands, name, lambda a, run=run: _answer(*run(a)), summary, details)
        add_arguments(command, _path, _at_least)
