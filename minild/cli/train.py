"""`minild train`: a pipeline from pictures and captions; the network of the perceptual distance; or a CLIP."""

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
    choices = "shapes|emoji|scenes|FOLDER|perceptual|clip"
    command.add_argument("dataset", type=options.name, metavar=choices, help=f"{dataset}; clip: a CLIP")
    pairs = "whose pictures and captions a clip learns from: shapes, emoji, scenes or a folder (default: shapes)"
    command.add_argument("--dataset", dest="pairs", type=options.name, metavar="NAME", help=pairs)
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
    if arguments.dataset in ("perceptual", "clip") and arguments.resume:
        raise UserError(f"--resume is not for {arguments.dataset}, which takes minutes: begin anew in another folder")
    others = {"regularisation": "has no latents", "objective": "is no diffusion model", "condition": "nothing leads"}
    for choice, word in others.items():
        if arguments.dataset in ("perceptual", "clip") and getattr(arguments, choice):
            raise UserError(f"--{choice} is not for {arguments.dataset}, which {word}: leave it out")
    if arguments.pairs and arguments.dataset != "clip":
        raise UserError(f"--dataset is for clip: leave it out, the training is on {arguments.dataset}")
    own = read_own_ops(arguments.own_ops)
    length = {name: getattr(arguments, name) for name in ("minutes", "steps", "seed", "device")}
    try:
        with without_warnings(), using_own_ops(arguments.own_ops, own):
            if arguments.dataset == "perceptual":
                training.train_perceptual(arguments.output, size=arguments.size or 64, **length)
            elif arguments.dataset == "clip":
                training.train_clip(arguments.pairs or "shapes", arguments.output, size=arguments.size or 32, **length)
            else:
                chosen = {choice: getattr(arguments, choice) for choice in ("regularisation", "objective", "condition")}
                how = chosen | {"size": arguments.size, "resume": arguments.resume}
                training.train(arguments.dataset, arguments.output, **how, **length)
    except KeyboardInterrupt:
        from minild.training.run import what_is_saved

        note(f"stopped; {what_is_saved(arguments.output)}")
        raise
    answer(arguments.output)
    if own:
        note(f"{with_own_ops(arguments.own_ops, own)} in place of minild's own")
