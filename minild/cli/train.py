"""`minild train`: a pipeline from pictures and captions, or more for one; or a network that judges or leads them."""

from minild import launch
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
    "lora": "low-rank updates of a pipeline, from a few pictures (txt2img --lora)",
    "textual-inversion": "a new word for a pipeline, from a few pictures (txt2img --embedding)",
    "dreambooth": "a whole pipeline that knows a new thing, from a few pictures (txt2img --model)",
    "finetune": "a whole pipeline that goes on learning, from any number of pictures (txt2img --model)",
    "controlnet": "what leads a pipeline by the outlines of pictures (txt2img --controlnet)",
    "decoder": "a pipeline whose decoder draws sharper, for its encoder's latents as they are (txt2img --model)",
}
CHOSEN = ("regularisation", "objective", "condition", "first_stage")  # of what is trained as a whole
TO_FILE = ("lora", "textual-inversion")
GUIDED = (*TO_FILE, "dreambooth", "finetune", "controlnet")  # of pictures and captions
TUNED = (*GUIDED, "decoder")  # a pipeline that is there, on --data
TAKEN_BY = {  # options that not all of them have
    "model": ("classifier", *TUNED),
    "dataset": ("clip", "classifier", *TUNED),
    "size": (PIPELINE, "perceptual", "clip", *TUNED),
    **dict.fromkeys(("batch_size", "learning_rate"), TUNED),
    **dict.fromkeys(("prompt", "recompute"), GUIDED),
    **dict.fromkeys(("rank", "alpha"), ("lora",)),
    "text_encoder": ("lora", "dreambooth", "finetune"),
    **dict.fromkeys(("class_prompt", "class_pictures", "prior_weight"), ("dreambooth",)),
    **dict.fromkeys(("token", "initial", "vectors"), ("textual-inversion",)),
    "latent_noise": ("decoder",),
    **dict.fromkeys(("resume", "keep", *CHOSEN), (PIPELINE,)),
}


def add(commands):
    summary = "train a pipeline: the autoencoder, then the diffusion model"
    command = options.add_command(commands, "train", run, summary, f"{FOLDERS} Prints the name of the folder it wrote.")
    others = "; ".join(f"{name}: {what}" for name, what in OTHERS.items())
    choices = "|".join(["shapes|emoji|scenes|FOLDER", *OTHERS])
    what = f"a data set of minild's, or a folder of captioned pictures; or {others}"
    command.add_argument("what", type=options.name, metavar=choices, help=what)
    dataset = (
        "what is learned from, a folder or a data set's name: by a clip (default: shapes), a classifier (that of the "
        f"pipeline), a {', '.join(TUNED)}"
    )
    command.add_argument("--dataset", "--data", type=options.name, metavar="NAME", help=dataset)
    model = f"the pipeline that a {', '.join(['classifier', *TUNED])} is for"
    command.add_argument("--model", type=options.name, metavar="DIR", help=model)
    output = f"the folder to write; the .safetensors file of a {' or '.join(TO_FILE)}"
    command.add_argument("--output", type=options.path, required=True, metavar="DIR", help=output)
    length = command.add_mutually_exclusive_group()
    minutes = (
        "of a pipeline, a limit for both stages: where the preset's steps take longer here, fewer are taken; of all "
        "else, how long it learns (default: 3; a perceptual 6, a clip 10, a decoder 20)"
    )
    length.add_argument("--minutes", type=options.at_least(0, float), help=minutes)
    steps = "of each stage of a pipeline, fewer or more than its preset takes; of all else, in place of minutes"
    length.add_argument("--steps", type=options.at_least(1, int), help=steps)
    options.add_seed(command)
    size = (
        "of the pictures, in pixels: a multiple of 4, of 32 for shapes, of 64 for scenes; for emoji a divisor of 64 "
        "(default: 32; for scenes and perceptual 64; in a fine-tuning what the model draws)"
    )
    command.add_argument("--size", type=options.at_least(1, int), help=size)
    regularisation = "of the latents: a little KL, or vq, a codebook (default: the data set's preset, kl)"
    command.add_argument("--regularisation", choices=["kl", "vq"], help=regularisation)
    known = "epsilon, v_prediction (default for scenes), sample, zero-snr, learned-variance or flow"
    command.add_argument("--objective", metavar="NAME", help=f"what the U-Net learns to tell: {known}")
    condition = (
        "what leads it: text, class, image, semantic-map, low-resolution, masked, or text and one of the last three, "
        "text+masked (default: text)"
    )
    command.add_argument("--condition", type=options.name, metavar="NAME", help=condition)
    first_stage = "take the autoencoder of this pipeline, and train the diffusion model alone"
    command.add_argument("--first-stage", type=options.name, metavar="DIR", help=first_stage)
    _add_tuning(command)
    command.add_argument("--resume", action="store_true", help="go on with the training that DIR holds")
    keep = "how many saves of it stay in DIR/training (default: 2)"
    command.add_argument("--keep", type=options.at_least(1, int), metavar="K", help=keep)
    options.add_device(command)
    options.add_own_ops(command)


def _add_tuning(command):
    """The options of what is trained for a pipeline that is there."""
    prompt = (
        "the caption of pictures that have none; of all of them for dreambooth, with a new word in it: a sks dog, say"
    )
    command.add_argument("--prompt", type=options.name, metavar="TEXT", help=prompt)
    rank = "of a lora's updates (default: 4)"
    command.add_argument("--rank", type=options.at_least(1, int), metavar="N", help=rank)
    alpha = "a lora's updates are multiplied by alpha / rank (default: the rank)"
    command.add_argument("--alpha", type=options.at_least(0, float), metavar="ALPHA", help=alpha)
    text_encoder = "a lora of the text encoder, too; a dreambooth and a finetune train it, too"
    command.add_argument("--text-encoder", action="store_true", help=text_encoder)
    token = "the new word of a textual inversion, <thing>, say"
    command.add_argument("--token", type=options.name, metavar="WORD", help=token)
    initial = "words that the new word begins as (default: all that there are)"
    command.add_argument("--initial", type=options.name, metavar="TEXT", help=initial)
    vectors = "of the new word (default: 1)"
    command.add_argument("--vectors", type=options.at_least(1, int), metavar="N", help=vectors)
    kind = "what a dreambooth's thing is one of, a dog, say: it learns from pictures that the model draws of it, too"
    command.add_argument("--class-prompt", type=options.name, metavar="TEXT", help=kind)
    pictures = "how many of those are drawn (default: 100)"
    command.add_argument("--class-pictures", type=options.at_least(1, int), metavar="N", help=pictures)
    weight = "how much those count (default: 1)"
    command.add_argument("--prior-weight", type=options.at_least(0, float), metavar="WEIGHT", help=weight)
    noise = "how far off the latents are that a decoder learns from, in their deviations; 0.2, say (default: 0)"
    command.add_argument("--latent-noise", type=options.at_least(0, float), metavar="SHARE", help=noise)
    batch = (
        "pictures a step (default: 16, of a dreambooth and a decoder 8, of a finetune the preset's; 1 of more than 128 "
        "pixels)"
    )
    command.add_argument("--batch-size", type=options.at_least(1, int), metavar="N", help=batch)
    rate = (
        "at its peak (default: 0.001 for a lora and a controlnet, 0.0015 for a decoder, 0.0002 for a dreambooth, 0.005 "
        "for a word; of pictures of more than 128 pixels 0.0001, 0.00001, 0.0015, 0.000005 and 0.005; for a finetune "
        "two thirds of the preset's, or 0.00001)"
    )
    command.add_argument("--learning-rate", type=options.at_least(0, float), metavar="RATE", help=rate)
    recompute = "less memory for more time: compute each block once more in its backward"
    command.add_argument("--recompute", action="store_true", help=recompute)


def run(arguments):
    """Train; an interrupted training says what it has saved."""
    from minild import training
    from minild.cli.own_ops import read_own_ops, using_own_ops, with_own_ops
    from minild.training.signals import sigterm_raises

    if arguments.minutes == 0:
        raise UserError("--minutes must be more than 0")
    refuse_strangers(arguments)
    own = read_own_ops(arguments.own_ops)
    length = {name: getattr(arguments, name) for name in ("minutes", "steps", "seed", "device")}
    try:
        with sigterm_raises(), without_warnings(), using_own_ops(arguments.own_ops, own):
            if arguments.what == "perceptual":
                training.train_perceptual(arguments.output, size=arguments.size or 64, **length)
            elif arguments.what == "clip":
                size = arguments.size or 32
                training.train_clip(arguments.dataset or "shapes", arguments.output, size=size, **length)
            elif arguments.what == "classifier":
                training.train_classifier(arguments.model, arguments.output, dataset=arguments.dataset, **length)
            elif arguments.what in TUNED:
                _tune(training, arguments, length)
            else:
                chosen = {choice: getattr(arguments, choice) for choice in CHOSEN}
                how = chosen | {"size": arguments.size, "resume": arguments.resume}
                how |= {"keep": arguments.keep} if arguments.keep else {}
                training.train(arguments.what, arguments.output, **how, **length)
    except KeyboardInterrupt:
        from minild.training.alone import is_used
        from minild.training.state import what_is_saved

        if arguments.what in TUNED and (arguments.output.is_file() or is_used(arguments.output)):
            note(f"stopped; {arguments.output} holds what was learnt so far")
            raise
        note(f"stopped; {what_is_saved(arguments.output)}")
        raise
    answer(arguments.output)
    if own:
        note(f"{with_own_ops(arguments.own_ops, own)} in place of minild's own")


def _tune(training, arguments, length):
    """Train one of TUNED, by the options that were given."""
    names = [option for option, kinds in TAKEN_BY.items() if arguments.what in kinds]
    chosen = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    model, pictures = chosen.pop("model"), chosen.pop("dataset")
    if "recompute" in chosen:
        chosen["recomputing"] = chosen.pop("recompute")
    learn = getattr(training, f"train_{arguments.what.replace('-', '_')}")
    learn(model, pictures, arguments.output, **chosen, **length)


def refuse_strangers(arguments):
    """UserError for an option that what is trained does not have, or for one that it needs."""
    kind = arguments.what if arguments.what in OTHERS else PIPELINE
    if kind != PIPELINE and launch.place()[1] > 1:
        raise UserError(f"mpiexec is for the training of pipelines, not of a {kind}: leave it out")
    for option, kinds in TAKEN_BY.items():
        value = getattr(arguments, option)
        if value is not None and value is not False and kind not in kinds:
            name, those = option.replace("_", "-"), " and ".join(kinds)
            raise UserError(f"--{name} is not for {arguments.what}, only for {those}: leave it out")
    if kind == "classifier" and not arguments.model:
        raise UserError("a classifier needs --model, the pipeline whose latents it learns to tell apart")
    if kind in TUNED:
        for option, what in (("model", "the pipeline that is to learn"), ("dataset", "the pictures to learn from")):
            if not getattr(arguments, option):
                raise UserError(f"a {kind} needs --{'data' if option == 'dataset' else option}, {what}")
    if kind == "dreambooth" and not arguments.prompt:
        raise UserError("a dreambooth needs --prompt, what the pictures show: a word for the thing, and its kind")
    if kind == "textual-inversion" and not arguments.token:
        raise UserError("a textual-inversion needs --token, the new word")
