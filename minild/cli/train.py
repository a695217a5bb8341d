"""`minild train`: a pipeline from pictures and captions; or a network that judges pictures or leads them."""

from minild.cli import arguments as options
from minild.cli.terminal import answer, note, without_warnings
from minild.errors import UserError

FOLDERS = (
    "A folder of your own has its captions in metadata.jsonl, metadata.csv or metadata.parquet, with the columns "
    "file_name and text, or in the names of its sub-folders; sub-folders or pictures called train and test are the two "
    "splits, and validation is the test where there is no other. What is passed over is told before the training."
)


PIPELINE = "pipelines"  # what is trained on all that is not named here
OTHERS = {
    "perceptual": "the network of the perceptual distance",
    "clip": "a CLIP of a data set's pictures and captions",
    "classifier": "a classifier of a pipeline's noisy latents, which leads it (class2img --classifier)",
}
TAKEN_BY = {  # options that not all of them have
    "model": ("classifier",),
    "dataset": ("clip", "classifier"),
    "size": (PIPELINE, "perceptual", "clip"),
    **dict.fromkeys(("resume", "regularisation", "objective", "condition"), (PIPELINE,)),
}


def add(commands):
    summary = "train a pipeline: the autoencoder, then the diffusion model"
    command = options.add_command(commands, "train", run, summary, f"{FOLDERS} Prints the name of the folder it wrote.")
    others = "; ".join(f"{name}: {what}" for name, what in OTHERS.items())
    choices = "|".join(["shapes|emoji|scenes|FOLDER", *OTHERS])
    what = f"a data set of minild's, or a folder of captioned pictures; or {others}"
    command.add_argument("what", type=options.name, metavar=choices, help=what)
    dataset = "what a clip (default: shapes) or a classifier (that of the pipeline) learns from"
    command.add_argument("--dataset", type=options.name, metavar="NAME", help=dataset)
    model = "the pipeline of a classifier"
    command.add_argument("--model", type=options.name, metavar="DIR", help=model)
    output = "the folder to write"
    command.add_argument("--output", type=options.path, required=True, metavar="DIR", help=output)
    length = command.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=options.at_least(0, float), help="stop both stages within this time")
    length.add_argument("--steps", type=options.at_least(1, int), help="stop each stage after this many steps")
    options.add_seed(command)
    size = (
        "of the pictures, in pixels: a multiple of 4, of 32 for shapes, of 64 for scenes; for emoji a divisor of 64 "
        "(default: 32; for scenes and perceptual 64)"
    )
    command.add_argument("--size", type=options.at_least(1, int), help=size)
    regularisation = "of the latents: a little KL, or vq, a codebook (default: the data set's preset, kl)"
    command.add_argument("--regularisation", choices=["kl", "vq"], help=regularisation)
    known = "epsilon (default), v_prediction, sample, zero-snr, learned-variance or flow"
    command.add_argument("--objective", metavar="NAME", help=f"what the U-Net learns to tell: {known}")
    condition = (
        "what leads it: text, class, image, semantic-map, low-resolution, masked, or text and one of the last three, "
        "text+masked (default: text)"
    )
    command.add_argument("--condition", type=options.name, metavar="NAME", help=condition)
    command.add_argument("--resume", action="store_true", help="go on with the training that DIR holds")
    options.add_device(command)
    options.add_own_ops(command)


def run(arguments):
    """Train; an interrupted training says what it has saved."""
    from minild import training
    from minild.cli.own_ops import read_own_ops, using_own_ops, with_own_ops

    if arguments.minutes == 0:
        raise UserError("--minutes must be more than 0")
    refuse_strangers(arguments)
    own = read_own_ops(arguments.own_ops)
    length = {name: getattr(arguments, name) for name in ("minutes", "steps", "seed", "device")}
    try:
        with without_warnings(), using_own_ops(arguments.own_ops, own):
            if arguments.what == "perceptual":
                training.train_perceptual(arguments.output, size=arguments.size or 64, **length)
            elif arguments.what == "clip":
                size = arguments.size or 32
                training.train_clip(arguments.dataset or "shapes", arguments.output, size=size, **length)
            elif arguments.what == "classifier":
                training.train_classifier(arguments.model, arguments.output, dataset=arguments.dataset, **length)
            else:
                chosen = {choice: getattr(arguments, choice) for choice in ("regularisation", "objective", "condition")}
                how = chosen | {"size": arguments.size, "resume": arguments.resume}
                training.train(arguments.what, arguments.output, **how, **length)
    except KeyboardInterrupt:
        from minild.training.run import what_is_saved

        note(f"stopped; {what_is_saved(arguments.output)}")
        raise
    answer(arguments.output)
    if own:
        note(f"{with_own_ops(arguments.own_ops, own)} in place of minild's own")


def refuse_strangers(arguments):
    """UserError for an option that what is trained does not have, or for one that it needs."""
    kind = arguments.what if arguments.what in OTHERS else PIPELINE
    for option, kinds in TAKEN_BY.items():
        if getattr(arguments, option) and kind not in kinds:
            raise UserError(f"--{option} is not for {arguments.what}, only for {' and '.join(kinds)}: leave it out")
    if kind == "classifier" and not arguments.model:
        raise UserError("a classifier needs --model, the pipeline whose latents it learns to tell apart")
