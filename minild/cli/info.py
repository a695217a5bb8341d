"""`minild info`: what a pipeline holds, or what goes with one."""

from minild.cli import arguments as options
from minild.cli.terminal import answer


def add(commands):
    summary = "tell what a model's folder or file holds and how it was trained"
    command = options.add_command(commands, "info", run, summary)
    others = "or what goes with one: a classifier, a ControlNet, a CLIP, a perceptual network, a LoRA, a learnt word"
    what = f"{options.MODEL_HELP} (default: emoji); {others}"
    command.add_argument("model", nargs="?", type=options.name, metavar="DIR", help=what)
    options.add_variant(command)


def run(arguments):
    from minild.pipelines.info import describe

    answer(*describe(arguments.model, arguments.variant))
