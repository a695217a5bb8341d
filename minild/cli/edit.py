"""`minild edit`: a picture changed by changing its caption."""

from minild.cli import arguments as options
from minild.cli.pictures import (
    fitting,
    how_drawn,
    open_pipeline,
    read_image,
    require_sheet,
    tell_dropped,
    writable_paths,
    write,
    write_beside,
)
from minild.cli.terminal import without_warnings
from minild.errors import UserError


def add(commands):
    details = (
        "The picture is taken back to the noise that draws it by the caption --from, and drawn from there by --to: "
        "what both captions say alike mostly stays. Without a picture, both captions are drawn from the same noise, "
        "with the attention carried over. Prints the name of the file it wrote."
    )
    command = options.add_command(commands, "edit", run, "change a picture by changing its caption", details)
    image = "the picture to begin with; without one it is drawn, from --seed"
    command.add_argument("image", type=options.path, nargs="?", metavar="IMAGE", help=image)
    command.add_argument("--from", dest="source", required=True, metavar="TEXT", help="what it shows")
    command.add_argument("--to", dest="target", required=True, metavar="TEXT", help="what it is to show")
    options.add_model(command)
    output = ".png, or .npy as float32 (1, H, W, 3) in [0, 1] (default: --to, as .png)"
    command.add_argument("--output", type=options.path, metavar="FILE", help=output)
    options.add_steps(command, "steps of DDIM, there and back")
    guidance = "guidance scale towards --to; less keeps more of the picture (default: 2; without IMAGE the model's own)"
    command.add_argument("--guidance", type=float, help=guidance)
    seed = "of the noise, without IMAGE (default: 0)"
    command.add_argument("--seed", type=options.at_least(0, int), metavar="N", help=seed)
    _add_attention(command)
    options.add_fit(command)
    options.add_device(command)
    options.add_dtype(command)
    options.add_variant(command)
    options.add_additions(command)


def _add_attention(command):
    carry = command.add_argument_group(
        "attention carried over",
        "Things stay where they are if what is drawn by --to attends as --from does (prompt-to-prompt). Any of these "
        "options does that, as does leaving out IMAGE.",
    )
    cross = "the share of the steps, the first, with the attention to words carried over, 0 to 1 (default: 0.8)"
    carry.add_argument("--cross-replace-steps", type=float, metavar="S", help=cross)
    own = "that with the attention between places carried over, too: more keeps more of the shapes (default: 0.4)"
    carry.add_argument("--self-replace-steps", type=float, metavar="S", help=own)
    weight = "how much a word of --to counts in these steps, -2 to 2, say; or give its number from 0; repeatable"
    carry.add_argument("--weight", type=options.weight, action="append", default=[], metavar="WORD=FACTOR", help=weight)
    blend = "change only the places that look at the words in which --from and --to differ"
    carry.add_argument("--local-blend", action="store_true", help=blend)


def run(arguments):
    """Change, write and name the picture."""
    from minild.pipelines.request import require_texts

    captions = arguments.source, arguments.target
    for option, caption, what in zip(("--from", "--to"), captions, ("shows", "is to show")):
        if not caption.strip():
            raise UserError(f"{option} is empty: say what the picture {what}")
    require_texts(captions)
    if arguments.image and arguments.seed is not None:
        raise UserError("--seed is for an edit without IMAGE: a picture has its own noise")
    paths = writable_paths(arguments.output, arguments.target, 1)
    require_sheet(arguments.sheet, paths)
    pipeline = open_pipeline(arguments)
    pipeline.require_way("edit", pipeline.kinds == ("text",))
    tell_dropped(pipeline.tokenizer, captions)
    (before, after), told = (_changed if arguments.image else _drawn)(arguments, pipeline)
    if arguments.sheet:
        write_beside(arguments.sheet, list(zip(captions, (before, after))))
    write(paths, after[None], [{"prompt": arguments.target, "from": arguments.source}], told)


def _changed(arguments, pipeline):
    """-> (the picture, what became of it), and how it was drawn."""
    picture, _ = read_image(arguments.image, fitting(pipeline, arguments.size))
    guidance, carried = 2.0 if arguments.guidance is None else arguments.guidance, _carried(arguments)
    with without_warnings():
        drawn = pipeline.edit(
            picture, arguments.source, arguments.target, arguments.steps, guidance, progress=True, **carried
        )
    return (picture / 255, drawn[0]), how_drawn(arguments, guidance, "ddim", image=arguments.image.name, **carried)


def _drawn(arguments, pipeline):
    """The same without a picture to begin with."""
    guidance, carried = arguments.guidance, _carried(arguments)
    seed = arguments.seed or 0
    asked = {"steps": arguments.steps, "guidance_scale": guidance, "seed": seed, "size": arguments.size}
    with without_warnings():
        before, after = pipeline.draw_edited(arguments.source, arguments.target, **asked, progress=True, **carried)
    guidance = pipeline.guidance_scale if guidance is None else guidance
    return (before[0], after[0]), how_drawn(arguments, guidance, pipeline.sampler, seed=seed, **carried)


def _carried(arguments):
    """What of the attention is carried over, as Pipeline.edit takes it: only what was asked for."""
    asked = {
        "cross_replace_steps": arguments.cross_replace_steps,
        "self_replace_steps": arguments.self_replace_steps,
        "weights": dict(arguments.weight),
        "blend": arguments.local_blend,
    }
    return {name: value for name, value in asked.items() if value is not None and value is not False and value != {}}
