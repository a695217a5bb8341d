"""`minild class2img`: pictures of a class, by a model that labels lead."""

from minild.cli import arguments as options
from minild.cli.pictures import asked_seeds, how_drawn, open_pipeline, several, writable_paths, write
from minild.cli.terminal import note, without_warnings


def add(commands):
    details = (
        "For models of `minild train ... --condition class`; `minild info DIR` lists the classes. Prints the names of "
        "the files it wrote. Several pictures become NAME-0.png, NAME-1.png, ..., in the order of the labels, --count "
        "of each."
    )
    command = options.add_command(commands, "class2img", run, "draw pictures of a class", details)
    command.add_argument("labels", nargs="+", metavar="LABEL", help="which class, by number or by name")
    command.add_argument("--model", type=options.name, required=True, metavar="DIR", help="the pipeline folder")
    output = ".png, or .npy for all pictures as float32 (N, H, W, 3) in [0, 1] (default: the first label, as .png)"
    command.add_argument("--output", type=options.path, metavar="FILE", help=output)
    options.add_steps(command, "steps of the sampler")
    guidance = "guidance scale, away from the picture of no class; 1 or less is none (default: the model's own)"
    command.add_argument("--guidance", type=float, help=guidance)
    classifier = "a classifier that leads, too: the folder that `minild train classifier` wrote"
    command.add_argument("--classifier", type=options.path, metavar="DIR", help=classifier)
    scale = "how strongly it leads (default: 1)"
    command.add_argument("--classifier-scale", type=float, default=1.0, metavar="S", help=scale)
    options.add_sampler(command)
    count = "pictures of each label (default: 1)"
    command.add_argument("--count", type=options.at_least(1, int), default=1, help=count)
    options.add_seeds(command)
    size = "in pixels, multiples of the autoencoder's f, mostly 4 (default: that of the training)"
    command.add_argument("--size", type=options.size, metavar="H|HxW", help=size)
    options.add_device(command)
    options.add_dtype(command)
    options.add_variant(command)
    options.add_lora(command)
    options.add_own_ops(command)


def run(arguments):
    """Draw, write and name the pictures."""
    from minild.cli.own_ops import read_own_ops, using_own_ops, with_own_ops

    labels = several(arguments.labels, arguments.count)
    seeds = asked_seeds(arguments.seed, len(labels))
    paths = writable_paths(arguments.output, labels[0], len(labels))
    own = read_own_ops(arguments.own_ops)
    pipeline = open_pipeline(arguments)
    guidance = pipeline.guidance_scale if arguments.guidance is None else arguments.guidance
    leads = {"classifier": arguments.classifier, "classifier_scale": arguments.classifier_scale}
    with without_warnings(), using_own_ops(arguments.own_ops, own):
        pictures = pipeline.class_to_image(
            labels, arguments.steps, guidance, arguments.sampler, seeds, size=arguments.size, progress=True, **leads
        )
    if "class" not in pipeline.kinds:
        if arguments.guidance is not None:
            note("not used: --guidance, for the classifier alone leads a model that no classes lead")
        guidance = 1.0
    texts = [{"class": label, "seed": seed} for label, seed in zip(labels, seeds)]
    write(paths, pictures, texts, _settings(arguments, pipeline, guidance))
    if own:
        note(f"{with_own_ops(arguments.own_ops, own)} in place of minild's own")


def _settings(arguments, pipeline, guidance):
    """What a PNG says of how it was drawn, beside class and seed."""
    settings = how_drawn(arguments, guidance, arguments.sampler or pipeline.sampler)
    if arguments.own_ops:
        settings["with"] = arguments.own_ops.name
    if arguments.classifier:
        settings |= {"classifier": arguments.classifier.name, "classifier_scale": arguments.classifier_scale}
    return settings
