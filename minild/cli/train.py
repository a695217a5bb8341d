"""`minild train`: a pipeline from pictures and captions; or the network of the perceptual distance."""

from minild.cli import arguments as options
from minild.cli.terminal import answer, note, without_warnings
from minild.errors import UserError

FOLDERS = (
    "A folder of your own has its captions in metadata.jsonl, metadata.csv or metadata.parquet, with the columns "
    "file_name and text, or in the names of its sub-folders; sub-folders or pictures called train and test are the two "
    "splits, and validation is the test where there is no other. What is passed over is told before the training."
)


def add(commands):
    summary = "train a pipeline: the autoencoder, then the diffusion model"
    command = options.add_command(commands, "train", run, summary, f"{FOLDERS} Prints the name of the folder it wrote.")
    dataset = "a data set of minild's, or a folder of captioned pictures; perceptual: the perceptual distance's network"
    command.add_argument("dataset", type=options.name, metavar="shapes|emoji|scenes|FOLDER|perceptual", help=dataset)
    output = "the folder to write"
    command.add_argument("--output", type=options.path, required=True, metavar="DIR", help=output)
    length = command.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=options.at_least(0, float), help="stop both stages within this time")
    length.add_argument("--steps", type=options.at_least(1, int), help="stop each stage after this many steps")
    options.add_seed(command)
    size = "of the pictures, in pixels, a multiple of f = 4 (default: 32; for scenes and perceptual 64)"
    command.add_argument("--size", type=options.at_least(1, int), help=size)
    regularisation = "of the latents: a little KL, or vq, a codebook (default: the data set's preset, kl)"
    command.add_argument("--regularisation", choices=["kl", "vq"], help=regularisation)
    command.add_argument("--resume", action="store_true", help="go on with the training that DIR holds")
    options.add_device(command)
    options.add_own_ops(command)


def run(arguments):
    """Train; an interrupted training says what it has saved."""
    from minild import training
    from minild.cli.own_ops import read_own_ops, using_own_ops, with_own_ops

    if arguments.minutes == 0:
        raise UserError("--minutes must be more than 0")
    if arguments.dataset == "perceptual" and arguments.resume:
        raise UserError("--resume is not for perceptual, which takes minutes: begin anew in another folder")
    if arguments.dataset == "perceptual" and arguments.regularisation:
        raise UserError("--regularisation is not for perceptual, which has no latents: leave it out")
    own = read_own_ops(arguments.own_ops)
    length = {name: getattr(arguments, name) for name in ("minutes", "steps", "seed", "device")}
    try:
        with without_warnings(), using_own_ops(arguments.own_ops, own):
            if arguments.dataset == "perceptual":
                training.train_perceptual(arguments.output, size=arguments.size or 64, **length)
            else:
                length |= {"regularisation": arguments.regularisation, "resume": arguments.resume}
                training.train(arguments.dataset, arguments.output, size=arguments.size, **length)
    except KeyboardInterrupt:
        from minild.training.run import what_is_saved

        note(f"stopped; {what_is_saved(arguments.output)}")
        raise
    answer(arguments.output)
    if own:
        note(f"{with_own_ops(arguments.own_ops, own)} in place of minild's own")
