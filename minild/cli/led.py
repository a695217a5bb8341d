"""`minild upscale`, `variations` and `semantic2img`: pictures led by a picture or a map, beside words or without."""

from minild.cli import arguments as options
from minild.cli.pictures import (
    asked_seeds,
    asked_settings,
    fitting,
    open_pipeline,
    read_image,
    read_map,
    require_sheet,
    several,
    tell_dropped,
    writable_paths,
    write_drawn,
)
from minild.cli.terminal import without_warnings
from minild.errors import UserError


def add(commands):
    details = (
        "For models of `minild train ... --condition low-resolution`, which draw a picture anew with f = 4 times as "
        "many pixels a side, say. One larger than the model was trained on is drawn in tiles. Prints the name of the "
        "file it wrote."
    )
    command = options.add_command(commands, "upscale", run_upscale, "draw a picture with more pixels", details)
    _add_image(command, "IMAGE", "the picture to enlarge")
    prompt = "what it shows, for a model that words lead, too (default: nothing in particular)"
    command.add_argument("prompt", nargs="?", default="", metavar="PROMPT", help=prompt)
    level = "how noisy the picture is made first: more, and more is mended and made up (default: 20)"
    command.add_argument("--noise-level", type=options.at_least(0, int), metavar="N", help=level)
    _add_settings(command, "IMAGE-upscaled", "what the picture is made to fit first, in pixels (default: its own size)")

    details = (
        "For models of `minild train ... --condition image`. The picture is cut to the shape that the model draws. "
        "Prints the names of the files it wrote; several pictures become NAME-0.png, NAME-1.png, ..."
    )
    command = options.add_command(commands, "variations", run_variations, "draw pictures like a picture", details)
    _add_image(command, "IMAGE", "the picture to draw the like of")
    fit = "what the picture is cut and resized to (default: that of the training)"
    _add_settings(command, "IMAGE-variation", fit, words=False)

    details = (
        "For models of `minild train ... --condition semantic-map`; `minild info DIR` lists the classes. The map says "
        "by numbers what each pixel is to show: a PNG, of grey values or of a palette, or a .npy of whole numbers "
        "(H, W). Drawn is its size. Prints the names of the files it wrote."
    )
    command = options.add_command(commands, "semantic2img", run_semantic, "draw pictures of a semantic map", details)
    _add_image(command, "MAP", "the map: in each pixel the number of a class")
    prompt = "what to draw, for a model that words lead, too (default: nothing in particular)"
    command.add_argument("prompt", nargs="?", default="", metavar="PROMPT", help=prompt)
    _add_settings(command, "MAP-drawn")


def _add_image(command, name, what):
    command.add_argument("image", type=options.path, metavar=name, help=what)
    command.add_argument("--model", type=options.name, required=True, metavar="DIR", help="the pipeline folder")


def _add_settings(command, usual, fit=None, words=True):
    output = f".png, or .npy for all pictures as float32 (N, H, W, 3) in [0, 1] (default: {usual}.png)"
    command.add_argument("--output", type=options.path, metavar="FILE", help=output)
    options.add_steps(command, "steps of the sampler")
    options.add_guidance(command)
    options.add_sampler(command)
    if words:
        options.add_negative_prompt(command)
    else:
        command.set_defaults(prompt="", negative_prompt="")
    command.add_argument("--count", type=options.at_least(1, int), default=1, help="pictures to draw (default: 1)")
    options.add_seeds(command)
    if fit:
        command.add_argument("--size", type=options.size, metavar="H|HxW", help=fit)
    options.add_sheet(command)
    options.add_device(command)
    options.add_dtype(command)
    options.add_variant(command)


def run_upscale(arguments):
    """Draw a picture with more pixels."""
    from minild.pipelines.image_to_image import LARGEST_SIDE

    def read(pipeline):
        f = pipeline.vae.downsampling

        def size(height, width):
            height, width = arguments.size or (height, width)
            if f * max(height, width) > LARGEST_SIDE:
                told = f"{height} x {width} pixels would become {f * height} x {f * width}"
                raise UserError(f"{told}, and {LARGEST_SIDE} a side is the most: cut it, or give a --size")
            return height, width

        return read_image(arguments.image, size)[0]

    def draw(pipeline, picture, asked):
        told = {} if arguments.noise_level is None else {"noise_level": arguments.noise_level}
        pictures = pipeline.upscale(picture, arguments.prompt, **told, **asked)
        return pictures, ("bicubic", _enlarged(picture, pictures.shape[1:3])), told

    _run(arguments, "upscaled", "low resolution", read, draw)


def run_variations(arguments):
    """Draw the like of a picture."""

    def read(pipeline):
        shape = arguments.size or pipeline.default_size
        return read_image(arguments.image, tuple(shape) if shape else fitting(pipeline, None))[0]

    def draw(pipeline, picture, asked):
        pictures = pipeline.condition_to_image(picture, **asked)
        return pictures, (arguments.image.name, picture / 255), {}

    _run(arguments, "variation", "image", read, draw)


def run_semantic(arguments):
    """Draw what a semantic map says."""

    def draw(pipeline, map_, asked):
        pictures = pipeline.condition_to_image(map_, prompts=arguments.prompt, **asked)
        return pictures, (arguments.image.name, _coloured(map_, len(pipeline.classes))), {}

    _run(arguments, "drawn", "semantic map", lambda pipeline: read_map(arguments.image), draw)


def _run(arguments, what, kind, read, draw):
    """Read, draw, write and name the pictures.

    kind   of pipelines.conditions.FIELDS, that the model is to be led by
    read   read(pipeline) -> what leads
    draw   draw(pipeline, that, settings) -> pictures, (name, picture) to show beside them, what more a PNG says
    """
    from minild.pipelines.request import require_texts

    require_texts([arguments.prompt, arguments.negative_prompt])
    seeds = asked_seeds(arguments.seed, len(several([arguments.prompt], arguments.count)))
    paths = writable_paths(arguments.output, f"{arguments.image.stem} {what}", len(seeds))
    require_sheet(arguments.sheet, paths)
    pipeline = open_pipeline(arguments)
    pipeline.require_way(arguments.command, pipeline.kinds[-1] == kind)
    if pipeline.tokenizer:
        tell_dropped(pipeline.tokenizer, [arguments.prompt, arguments.negative_prompt])
    given = read(pipeline)
    with without_warnings():
        pictures, shown, told = draw(pipeline, given, asked_settings(arguments, seeds))
    texts = [{"prompt": arguments.prompt, "seed": seed} for seed in seeds]
    told = {"image": arguments.image.name, **told, "negative_prompt": arguments.negative_prompt}
    name = arguments.prompt or what
    write_drawn(arguments, pipeline, paths, pictures, texts, told, [shown], name, max(pictures.shape[1:3]))


def _enlarged(picture, size):
    """A picture (h, w, 3) uint8 enlarged bicubically to (H, W), in [0, 1]."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC)) / 255


def _coloured(map_, classes):
    """A map (H, W) as a picture in [0, 1]: class 0 black, the others in the colours of the rainbow."""
    import colorsys

    import numpy as np

    rainbow = [colorsys.hsv_to_rgb(i / max(1, classes - 1), 0.8, 0.9) for i in range(max(1, classes - 1))]
    return np.array([(0.0, 0.0, 0.0), *rainbow])[map_]
