"""The command `minild`: a thin layer over minild.training, minild.pipelines, minild.evaluation and minild.course.

A file a subcommand: add(commands) gives it its arguments, run(arguments) does it. What options have in common is in
arguments.py, what reaches the terminal goes through terminal.py. What a subcommand needs is imported when it runs, so
that --help is quick.
"""

import argparse
import sys

from minild import __version__, launch
from minild.cli import (
    class2img,
    course,
    doctor,
    edit,
    evaluate,
    img2img,
    info,
    interpolate,
    led,
    playground,
    train,
    txt2img,
)  # fmt: skip
from minild.cli.terminal import answer, note
from minild.errors import Terminated, UserError

CLOSED_PIPE = 141  # what a shell reports of a program that SIGPIPE ended


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaint is the user's one line."""

    def error(self, message):
        raise UserError(f"{message} (see {self.prog} --help)")

    def exit(self, status=0, message=None):
        answer()  # the help that stdout still holds back
        super().exit(status, message)


def main(argv=None):
    """Run the command -> its exit status: 0 done, 1 done but for some lines of a list, 2 a user's mistake, 130
    interrupted, 141 nobody reads stdout, 143 asked to end (SIGTERM).
    """
    argv = sys.argv[1:] if argv is None else argv
    if _is_list(argv):  # which is shared out: no process waits for another
        return _run(argv)
    return launch.together(lambda: _run(argv))


def _is_list(argv):
    return any(word.partition("=")[0] == "--prompts" for word in argv)


def _run(argv):
    try:
        arguments = _parser().parse_args(_usable(argv))
        if launch.place()[1] > 1 and not (arguments.command == "train" or _is_list(argv)):
            raise UserError(f"mpiexec is for the training of pipelines, not for {arguments.command}: leave it out")
        return arguments.run(arguments) or 0
    except UserError as error:
        return _refuse(error)
    except MemoryError as error:
        return _refuse(f"not enough memory ({error}): use a smaller --size or --count, or a smaller model")
    except BrokenPipeError:
        return CLOSED_PIPE
    except OSError as error:  # a full disk, a name too long: whatever the system refuses
        return _refuse(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except Terminated:
        return 143
    except KeyboardInterrupt:
        return 130


def _usable(argv):
    """The arguments. UserError for one that argparse itself would make an empty list of."""
    for text in argv:
        if text.startswith("--") and text.endswith("=--"):
            raise UserError(f"{text} gives no value: put one after the =")
    return argv


def _refuse(error):
    note(error)
    return 2


def _parser():
    parser = Parser(prog="minild", description="Latent diffusion written with nothing but arrays.")
    parser.add_argument("--version", action="version", version=f"minild {__version__}")
    commands = parser.add_subparsers(metavar="command", dest="command", required=True)
    in_order = (  # of the help
        train, doctor, txt2img, img2img, edit, led, class2img, interpolate, playground, evaluate, info, course,
    )  # fmt: skip
    for subcommand in in_order:
        subcommand.add(commands)
    return parser
