"""What the commands that draw share: which pictures are asked for, reading one to begin with, writing them."""

from minild.cli.additions import learn, told_of_additions
from minild.cli.terminal import answer, note, plural
from minild.errors import UserError
from minild.reading import read_bytes, require_regular

MOST_PICTURES = 10_000  # of one command
LOSSY = ("JPEG", "JPEG2000", "MPO")  # formats of grey pictures in which a number may become another
LARGEST_TILE = 512  # pixels a side of a picture on a sheet


def several(texts, count):
    """Each text `count` times. UserError where that is more pictures than one command draws."""
    wanted = len(texts) * count
    if wanted > MOST_PICTURES:
        raise UserError(f"{wanted:,} pictures are too many for one command: ask for {MOST_PICTURES:,} at most")
    return [text for text in texts for _ in range(count)]


def asked_seeds(seed, count):
    """A seed for each of `count` pictures. UserError for another number of seeds than one, or that."""
    seeds = seed if isinstance(seed, list) else [seed + i for i in range(count)]
    if len(seeds) != count:
        raise UserError(f"{len(seeds)} seeds for {plural(count, 'picture')}: give one for each, or only one")
    return seeds


def require_prompt(prompt, negative_prompt):
    """UserError for a prompt that says nothing, or is no text."""
    from minild.pipelines import prompts

    prompts.require_prompt(prompt, negative_prompt)


def open_pipeline(arguments):
    """The pipeline that a command names, with what it has learnt since; notes say what of its folder is passed over."""
    from minild.pipelines import load

    pipeline = load(arguments.model, arguments.dtype, arguments.device, arguments.variant)
    for line in pipeline.passed_over:
        note(line)
    learn(arguments, pipeline)
    return pipeline


def require_sheet(path, paths):
    """UserError unless --sheet, where it is given, is a .png that can be written, and none of the pictures' `paths`."""
    from minild.pipelines import output

    if path is None:
        return
    if path.suffix.lower() != ".png":
        raise UserError(f"sheet {path}: expected a name that ends in .png")
    if path.resolve() in [each.resolve() for each in paths]:
        raise UserError(f"sheet {path}: a picture is to be written there: name another file")
    output.require_writable(path)


def writable_paths(path, name, count):
    """The files of `count` pictures: at `path`, or named after `name`. UserError where one cannot be written."""
    from minild.pipelines import output

    paths = output.output_paths(path or output.default_name(name), count)
    for each in paths:
        output.require_writable(each)
    return paths


def write(paths, pictures, texts, settings, others=()):
    """Write the pictures, each PNG with what it is of (`texts`, a dict each) and how it was drawn, and name the files,
    and others that were written.

    No dates: a seed gives one file, byte for byte.
    """
    from minild.pipelines import output

    if paths[0].suffix.lower() == ".npy":
        output.write_npy(paths[0], pictures)
    else:
        for path, text, picture in zip(paths, texts, pictures):
            output.write_png(path, picture, {"Software": "minild", **text, **settings})
    answer(*paths, *others)


def asked_settings(arguments, seeds):
    """The settings that the pipeline's ways to draw have in common, by the names of their arguments."""
    return {
        "negative_prompt": arguments.negative_prompt,
        "steps": arguments.steps,
        "guidance_scale": arguments.guidance,
        "sampler": arguments.sampler,
        "seed": seeds,
        "progress": True,
    }


def write_drawn(arguments, pipeline, paths, pictures, texts, told, shown, name, tile=None):
    """`write` pictures, and where a sheet is asked for, that of `shown`, [(name, picture)], and of these, all `name`.

    told: what their files say of how they were drawn beside the settings; tile: as of write_beside.
    """
    guidance = pipeline.guidance_scale if arguments.guidance is None else arguments.guidance
    settings = how_drawn(arguments, guidance, arguments.sampler or pipeline.sampler, **told)
    if arguments.sheet:
        write_beside(arguments.sheet, [*shown, *((name, picture) for picture in pictures)], tile)
    write(paths, pictures, texts, settings)


def how_drawn(arguments, guidance, sampler, **more):
    """What a PNG says of how it was drawn, beside what is told of each picture."""
    from minild.pipelines import output

    named = arguments.model, arguments.dtype, arguments.variant
    more = more | told_of_additions(arguments)
    return output.how_drawn(*named, arguments.steps, guidance, sampler, **more)


def tell_dropped(tokenizer, texts):
    """A note where a text is longer than the context: what of it is left out."""
    from minild.pipelines.prompts import lost_ends

    for line in lost_ends(tokenizer, texts):
        note(line)


def read_image(path, size):
    """-> (pixels (H, W, 3) uint8, (height, width) of the picture as it was). UserError for what cannot be read.

    size: (H, W), or a function that says it, as of data.decode.read_picture.
    """
    from minild.data.decode import read_picture

    own = []

    def target(height, width):
        own[:] = height, width  # asked again once the picture is turned as its orientation says
        return size(height, width) if callable(size) else size

    try:
        return read_picture(path, target), tuple(own)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or 'not a picture that Pillow can open'}") from None
    except (MemoryError, UserError):
        raise
    except Exception as error:
        raise UserError(f"cannot read {path}: {error}") from None


def read_map(path):
    """A semantic map, whole numbers (H, W), of a .npy, or of a picture's grey values or palette.

    UserError for what cannot be read, or is larger than what can be drawn.
    """
    import io

    import numpy as np
    from PIL import ImageOps

    from minild.data.decode import LARGEST_FILE, open_image
    from minild.pipelines.image_to_image import LARGEST_SIDE

    def require_size(height, width):
        if max(height, width) > LARGEST_SIDE:
            told = f"the map is of {height} x {width} pixels, and {LARGEST_SIDE} a side is the most"
            raise UserError(f"cannot read {path}: {told}")

    try:
        if path.suffix.lower() == ".npy":
            map_ = read_array(path)
            if map_.ndim != 2:
                raise UserError(f"cannot read {path}: expected a map of shape (H, W), got {map_.shape}")
            require_size(*map_.shape)
            return np.array(map_)
        with open_image(io.BytesIO(read_bytes(path, LARGEST_FILE))) as image:
            require_size(image.height, image.width)
            if image.mode not in ("P", "L", "1"):
                told = f"the picture is {image.mode}, where a map has one number in each pixel"
                raise UserError(f"cannot read {path}: {told}: save it as grey values, or with a palette")
            if image.format in LOSSY:
                raise UserError(f"cannot read {path}: {image.format} changes the numbers: save the map as a PNG")
            return np.asarray(ImageOps.exif_transpose(image)).astype(int)
    except (MemoryError, UserError):
        raise
    except FileNotFoundError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except Exception:  # whatever a decoder raises
        raise UserError(f"cannot read {path}: neither a picture that Pillow can open nor an array") from None


def read_array(path):
    """The array of a .npy, mapped: its memory is the file's. OSError for no such file, ValueError for no array."""
    import tokenize

    import numpy as np
    from numpy.lib.format import open_memmap

    require_regular(path)
    try:
        with np.errstate(over="ignore"):  # of a shape that no memory holds
            return open_memmap(path, mode="r")
    except (EOFError, OverflowError, SyntaxError, TypeError, tokenize.TokenError) as error:  # all say: a bad header
        raise ValueError(str(error)) from None


def write_beside(path, named, tile=None):
    """Write pictures (H, W, 3) in [0, 1], a list of (name, picture), beside each other on one sheet.

    tile: the side of each there, in pixels, where that is more than a sheet's usual one; LARGEST_TILE at most.
    """
    import numpy as np

    from minild.pipelines.sheet import TILE, draw_sheet

    names, pictures = zip(*named)
    side = max(max(picture.shape[:2]) for picture in pictures)
    squares = np.ones((len(pictures), side, side, 3), np.float32)
    for square, picture in zip(squares, pictures):
        top, left = ((side - length) // 2 for length in picture.shape[:2])
        square[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    drawn = max(TILE, min(tile or 0, LARGEST_TILE))
    draw_sheet(path, squares, names, columns=min(8, len(pictures)), tile=(drawn, drawn))


def fitting(pipeline, size):
    """The `size` of read_image for a picture to begin with.

    That asked for, a (height, width); else the picture's own shape, its shorter side as long as the model was trained
    on, in whole f.
    """
    from minild.pipelines.image_to_image import fitted_size

    if size:
        return tuple(size)
    if pipeline.default_size is None:
        raise UserError("the U-Net's config names no sample_size: give a --size")
    return lambda height, width: fitted_size(pipeline, height, width)
