"""`minild evaluate`: how good a pipeline is."""

import json

from minild.cli import arguments as options
from minild.cli.pictures import open_pipeline
from minild.cli.terminal import answer, note, without_warnings
from minild.errors import UserError


def add(commands):
    summary = "measure how good a pipeline is"
    command = options.add_command(commands, "evaluate", run, summary, "Prints the figures on the test set.")
    command.add_argument("model", type=options.name, metavar="DIR", help=options.MODEL_HELP)
    dataset = "shapes, emoji, scenes or a folder (default: that of the training)"
    command.add_argument("--dataset", type=options.name, metavar="NAME", help=dataset)
    command.add_argument("--count", type=options.at_least(1, int), help="how many pictures to draw and judge")
    options.add_seed(command)
    own = "dpmpp-2m, ddpm where the variance is learnt, flow-euler for a flow"
    sampler = f"{options.SAMPLER_NAMES} (default: {own})"
    command.add_argument("--sampler", type=options.name, metavar="NAME", help=sampler)
    steps = "steps of the sampler (default: 30 of dpmpp-2m, 50 of others)"
    command.add_argument("--steps", type=options.at_least(1, int), help=steps)
    options.add_guidance(command)
    command.add_argument("--json", type=options.path, metavar="FILE", help="write the figures to this file, too")
    options.add_device(command)
    options.add_dtype(command)
    options.add_variant(command)
    options.add_additions(command)
    options.add_own_ops(command)


def run(arguments):
    """Measure on the data set that the pipeline was trained on, or on another."""
    from minild import data, evaluation
    from minild.cli.own_ops import read_own_ops, using_own_ops, with_own_ops
    from minild.data.pictures import tell_skipped
    from minild.pipelines import output
    from minild.pipelines.inputs import picture_size

    if arguments.json:
        output.require_writable(arguments.json)
    own = read_own_ops(arguments.own_ops)
    pipeline = open_pipeline(arguments)
    dataset = arguments.dataset or _recorded(pipeline, arguments.model)
    train, test = (data.load(dataset, split=split, size=picture_size(pipeline)) for split in ("train", "test"))
    tell_skipped(train)
    with without_warnings(), using_own_ops(arguments.own_ops, own):
        figures = evaluation.evaluate(
            pipeline,
            train,
            test,
            arguments.count,
            arguments.seed,
            arguments.steps,
            arguments.guidance,
            progress=True,
            sampler=arguments.sampler,
        )
    if arguments.json:
        with output.whole_file(arguments.json) as file:
            file.write(json.dumps(figures, indent=2).encode() + b"\n")
    answer(evaluation.format_report(figures))
    if own:
        note(f"{with_own_ops(arguments.own_ops, own)} in place of minild's own")


def _recorded(pipeline, model):
    """The data set that the pipeline's record names. UserError for none, and for one on another computer.

    The record may be a stranger's: a folder that it names is told of.
    """
    dataset = pipeline.record.get("dataset")
    if dataset is None:
        raise UserError(f"{model} does not say what it was trained on: give --dataset")
    if not isinstance(dataset, str) or dataset.startswith(("//", "\\\\")) or "\0" in dataset:
        raise UserError(f"{model} says that it was trained on {dataset!r}, which is no data set: give --dataset")
    if dataset not in ("shapes", "emoji", "scenes"):
        note(f"measured on the pictures in {dataset}, the folder that {model} names")
    return dataset
