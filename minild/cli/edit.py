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
        "what both captions say alike mostly stays. Prints the name of the file it wrote."
    )
    command = options.add_command(commands, "edit", run, "change a picture by changing its caption", details)
    command.add_argument("image", type=options.path, metavar="IMAGE", help="the picture to begin with")
    command.add_argument("--from", dest="source", required=True, metavar="TEXT", help="what it shows")
    command.add_argument("--to", dest="target", required=True, metavar="TEXT", help="what it is to show")
    options.add_model(command)
    output = ".png, or .npy as float32 (1, H, W, 3) in [0, 1] (default: --to, as .png)"
    command.add_argument("--output", type=options.path, metavar="FILE", help=output)
    options.add_steps(command, "steps of DDIM, there and back")
    guidance = "guidance scale towards --to; less keeps more of the picture (default: 2)"
    command.add_argument("--guidance", type=float, default=2.0, help=guidance)
    options.add_fit(command)
    options.add_device(command)
    options.add_dtype(command)
    options.add_variant(command)


def run(arguments):
    """Change, write and name the picture."""
    from minild.pipelines.request import require_texts

    captions = arguments.source, arguments.target
    for option, caption, what in zip(("--from", "--to"), captions, ("shows", "is to show")):
        if not caption.strip():
            raise UserError(f"{option} is empty: say what the picture {what}")
    require_texts(captions)
    paths = writable_paths(arguments.output, arguments.target, 1)
    require_sheet(arguments.sheet)
    pipeline = open_pipeline(arguments)
    pipeline.require_way("edit", pipeline.kinds == ("text",))
    tell_dropped(pipeline.tokenizer, captions)
    picture, _ = read_image(arguments.image, fitting(pipeline, arguments.size))
    with without_warnings():
        drawn = pipeline.edit(
            picture, arguments.source, arguments.target, arguments.steps, arguments.guidance, progress=True
        )
    if arguments.sheet:
        write_beside(arguments.sheet, [(arguments.source, picture / 255), (arguments.target, drawn[0])])
    settings = how_drawn(arguments, arguments.guidance, "ddim", image=arguments.image.name)
    write(paths, drawn, [{"prompt": arguments.target, "from": arguments.source}], settings)
