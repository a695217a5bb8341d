"""`minild img2img`, `inpaint` and `outpaint`: pictures that begin with a given one."""

from minild.cli import arguments as options
from minild.cli.control import control_of, require_control, told_of_control
from minild.cli.pictures import (
    asked_seeds,
    asked_settings,
    fitting,
    open_pipeline,
    read_image,
    require_prompt,
    require_sheet,
    several,
    tell_dropped,
    writable_paths,
    write_drawn,
)
from minild.cli.terminal import without_warnings
from minild.errors import UserError

READ = (
    "The picture may be of any size and kind that Pillow opens. It is made as large as the model was trained on, its "
    "shorter side that long, or as --size says. "
)
NAMED = "Prints the names of the files it wrote; several pictures become NAME-0.png, NAME-1.png, ..."


def add(commands):
    again = "draw a picture anew from words, over one that is there"
    command = options.add_command(commands, "img2img", run_img2img, again, READ + NAMED)
    _add_picture(command)
    _add_strength(command, "0.8", "how much may change, above 0 and up to 1, the share of the steps that are taken")
    _add_settings(command)

    inside = "draw a part of a picture anew from words"
    whole = "The rest comes back as it was, bit for bit. " + READ + NAMED
    command = options.add_command(commands, "inpaint", run_inpaint, inside, whole)
    _add_picture(command)
    mask = "a picture as large as the other: white, or transparent, where to draw, black where to keep"
    command.add_argument("--mask", type=options.path, required=True, metavar="FILE", help=mask)
    _add_strength(command, "1", "how much may change inside the mask; at 1 it begins as noise alone")
    _add_settings(command)

    outside = "draw a picture further than its edges"
    command = options.add_command(commands, "outpaint", run_outpaint, outside, whole)
    _add_picture(command)
    for side in ("top", "right", "bottom", "left"):
        length = f"pixels to add at the {side}; of the picture as it is drawn (default: 0)"
        command.add_argument(f"--{side}", type=options.at_least(0, int), default=0, metavar="N", help=length)
    _add_settings(command)


def _add_picture(command):
    command.add_argument("image", type=options.path, metavar="IMAGE", help="the picture to begin with")
    command.add_argument("prompt", metavar="PROMPT", help="what to draw")
    options.add_model(command)


def _add_strength(command, usual, what):
    help_ = f"{what} (default: {usual})"
    command.add_argument("--strength", type=float, default=float(usual), metavar="S", help=help_)


def _add_settings(command):
    output = ".png, or .npy for all pictures as float32 (N, H, W, 3) in [0, 1] (default: the prompt, as .png)"
    command.add_argument("--output", type=options.path, metavar="FILE", help=output)
    options.add_steps(command, "steps of the sampler, of which the strength leaves some out")
    options.add_guidance(command)
    options.add_sampler(command)
    options.add_negative_prompt(command)
    command.add_argument("--count", type=options.at_least(1, int), default=1, help="pictures to draw (default: 1)")
    options.add_seeds(command)
    options.add_fit(command)
    options.add_control(command)
    options.add_device(command)
    options.add_dtype(command)
    options.add_variant(command)
    options.add_additions(command)


def run_img2img(arguments):
    """Draw a prompt over a picture."""

    def draw(pipeline, picture, own, settings):
        return pipeline.image_to_image(picture, arguments.prompt, arguments.strength, **settings), []

    _run(arguments, draw, {"strength": arguments.strength})


def run_inpaint(arguments):
    """Draw the masked part of a picture."""

    def draw(pipeline, picture, own, settings):
        mask = _read_mask(arguments.mask, fitting(pipeline, arguments.size), own)
        drawn = pipeline.inpaint(picture, mask, arguments.prompt, arguments.strength, **settings)
        return drawn, [("mask", mask[..., None].repeat(3, axis=-1).astype("float32"))]

    _run(arguments, draw, {"strength": arguments.strength, "mask": arguments.mask.name})


def run_outpaint(arguments):
    """Draw what lies around a picture."""
    margins = arguments.top, arguments.right, arguments.bottom, arguments.left
    if not any(margins):
        raise UserError("nothing to add: give --top, --right, --bottom or --left")

    def draw(pipeline, picture, own, settings):
        return pipeline.outpaint(picture, margins, arguments.prompt, **settings), []

    _run(arguments, draw, {"margins": " ".join(map(str, margins))}, margins)


def _run(arguments, draw, told, margins=(0, 0, 0, 0)):
    """Draw, write and name the pictures.

    draw(pipeline, picture, own, settings) -> pictures, [(name, picture to show beside them)]; own: (height, width) of
    the picture's file. margins: by how many pixels more is drawn, at the top, right, bottom and left.
    """
    from minild.pipelines.image_to_image import LARGEST_SIDE

    require_prompt(arguments.prompt, arguments.negative_prompt)
    require_control(arguments)
    prompts = several([arguments.prompt], arguments.count)
    seeds = asked_seeds(arguments.seed, len(prompts))
    paths = writable_paths(arguments.output, arguments.prompt, len(prompts))
    require_sheet(arguments.sheet, paths)
    pipeline = open_pipeline(arguments)
    picture, own = read_image(arguments.image, fitting(pipeline, arguments.size))
    if pipeline.tokenizer:
        tell_dropped(pipeline.tokenizer, [arguments.prompt, arguments.negative_prompt])
    top, right, bottom, left = margins
    drawn = picture.shape[0] + top + bottom, picture.shape[1] + left + right
    if max(drawn) > LARGEST_SIDE:
        raise UserError(f"{drawn[0]} x {drawn[1]} pixels are too many: {LARGEST_SIDE} a side is the most")
    control = control_of(arguments, pipeline, drawn)
    with without_warnings():
        pictures, beside = draw(pipeline, picture, own, asked_settings(arguments, seeds) | control)
    texts = [{"prompt": prompt, "seed": seed} for prompt, seed in zip(prompts, seeds)]
    told = {"image": arguments.image.name, **told, "negative_prompt": arguments.negative_prompt}
    told |= told_of_control(arguments)
    followed = [(arguments.control.name, control["control"] / 255)] if control else []
    shown = [(arguments.image.name, picture / 255), *followed, *beside]
    write_drawn(arguments, pipeline, paths, pictures, texts, told, shown, arguments.prompt)


def _read_mask(path, size, like):
    """The mask as booleans (H, W), made to fit as the picture was, whose file is `like` = (height, width) pixels."""
    grey, own = read_image(path, size)
    if own != like:
        (h, w), (H, W) = own, like
        raise UserError(f"the mask is {h} x {w} pixels, the picture {H} x {W}: make them alike")
    mask = grey.mean(axis=-1) > 127.5
    if not mask.any():
        raise UserError(f"{path} is black all over, or white in too few places: make it white where to draw")
    return mask
