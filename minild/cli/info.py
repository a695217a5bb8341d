"""`minild info`: what a pipeline folder holds."""

from minild.cli import arguments as options
from minild.cli.terminal import answer


def add(commands):
    summary = "tell what a pipeline folder holds and how it was trained"
    command = options.add_command(commands, "info", run, summary)
    command.add_argument(
        "model", nargs="?", type=options.name, metavar="DIR", help=f"{options.MODEL_HELP} (default: emoji)"
    )
    options.add_variant(command)


def run(arguments):
    from minild.pipelines.info import describe

    answer(*describe(arguments.model, arguments.variant))
