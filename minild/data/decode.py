"""One picture file, of any format that Pillow decodes itself, as the pixels that a model learns or begins with."""

import io
import struct

import numpy as np
from PIL import Image, UnidentifiedImageError

from minild.data.bare import ORIENTATION, orientation_alone, pixels_alone
from minild.reading import read_bytes

LARGEST_FILE = 1 << 29  # bytes
LARGEST = 178_956_970  # pixels: more, and Pillow too refuses to decode them
LARGEST_SLOW = 4_000_000  # pixels of a format whose decoder is written in Python: a second or two of work
LARGEST_SQUARE = 80_000_000  # pixels: of more, Pillow cuts nothing out without a warning

# Pillow hands these to other programs (Ghostscript) or to the system's libraries, or has no bound for what they unpack.
NEVER = ("EPS", "WMF", "FITS", "BUFR", "GRIB", "HDF5")
SLOW = ("BLP", "DDS", "FTEX", "MSP", "QOI", "SGI", "XPM")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ON_THEIR_SIDE = (5, 6, 7, 8)  # of the orientations
# By how much Pillow scales a PNG's grey, and not the grey that the file calls transparent; and likewise for colours.
KEY_SCALES = {"L;2": 85, "L;4": 17, "RGB;16B": 1 / 256}


def extensions():
    """The endings, in lower case, of the files that Pillow can open."""
    kinds = set(Image.OPEN) - set(NEVER)
    return {ending for ending, kind in Image.registered_extensions().items() if kind in kinds} | {".mpo"}


def read_picture(path, size):
    """The middle of a picture of any size and mode, resized (Lanczos) to `size` -> (H, W, 3) uint8.

    size: the side of a square, (H, W), or a function that says (H, W) from the picture's own height and width. It is
    asked again once the picture is turned. The middle is as much of the picture as has that shape.

    Turned as its orientation says; what is transparent is white; 16 bits are scaled to 8. What lies beside the pixels,
    such as EXIF, text and colour profiles, may be broken or huge. A picture of more than LARGEST pixels is decoded at a
    fraction of its size if it is a JPEG or a JPEG 2000, and is an error if not; so is a file of more than LARGEST_FILE
    bytes, and any that is no regular file.

    OSError, ValueError, or whatever else its decoder raises, for a picture that cannot be read.
    """
    data = read_bytes(path, LARGEST_FILE)
    try:
        return _read(io.BytesIO(data), size)
    except Exception as error:
        bare = pixels_alone(data)
        if bare is None:
            raise
        try:
            return _read(io.BytesIO(bare), size)
        except Exception:
            raise error from None


def _read(file, size):
    image = open_image(file)
    whole = image.height, image.width
    height, width = _target(size, *whole)  # before it is turned, which changes neither's magnitude
    least = 4 * max(height, width)
    image.draft(None, (least, least))  # a large JPEG decodes faster at a half, quarter or eighth
    if image.width * image.height > (LARGEST_SLOW if image.format in SLOW else LARGEST):
        _load_at_a_fraction(image, least)
    scale = KEY_SCALES.get(image.tile[0][3]) if image.format == "PNG" else None
    image.load()
    key = _scaled(image.info.get("transparency"), scale)
    orientation = _orientation(image)
    turn = TURNS.get(orientation)
    picture = _to_rgb(image.transpose(turn) if turn is not None else image, key)
    return fitted(picture, _target(size, *(whole[::-1] if orientation in ON_THEIR_SIDE else whole)))


def fitted(picture, size):
    """The middle of an RGB image, as much as has the shape of `size` = (H, W), resized to it -> (H, W, 3) uint8."""
    height, width = size
    if picture.size == (width, height):
        return np.asarray(picture)
    box = _middle(picture, height, width)
    few = (box[2] - box[0]) * (box[3] - box[1]) <= LARGEST_SQUARE
    part = picture.crop(box) if few else picture.reduce(2, box)
    return np.asarray(part.resize((width, height), Image.Resampling.LANCZOS))


def _target(size, height, width):
    if callable(size):
        return size(height, width)
    return size if isinstance(size, tuple) else (size, size)


def _middle(picture, height, width):
    """The largest box in the middle of a picture of the shape height : width, in whole pixels."""
    scale = min(picture.width / width, picture.height / height)
    across, down = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (picture.width - across) // 2, (picture.height - down) // 2
    return left, top, left + across, top + down


def open_image(file):
    """Image.open, but for NEVER, and without its bound on the size: that would refuse a JPEG before it is asked for a
    fraction. Nothing is decoded yet: whoever does that looks at the size first.
    """
    prefix = file.read(16)
    Image.init()
    for kind in (kind for kind in Image.ID if kind not in NEVER):
        factory, accepts = Image.OPEN[kind]
        try:
            accepted = accepts is None or accepts(prefix)
            if accepted and not isinstance(accepted, str):  # a text tells why not
                file.seek(0)
                return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # what plugins say to a file that is not theirs
            continue
    raise UnidentifiedImageError("not a picture of a known format")


def _load_at_a_fraction(image, least):
    """Decode a JPEG 2000 with so many halvings that no side is shorter than `least` pixels for it."""
    width, height = image.size
    most = LARGEST_SLOW if image.format in SLOW else LARGEST
    told = f"it is too large: {width} x {height} pixels, and {most:,} is the most"
    halvings = max(1, min(width, height) // least).bit_length() - 1
    if image.format != "JPEG2000" or width * height >> 2 * halvings > LARGEST:
        raise ValueError(told)
    image.reduce = halvings
    try:
        image.load()
    except OSError:  # the file holds fewer halvings
        raise ValueError(told) from None


def _orientation(image):
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # a broken block or tag, of which nothing else is wanted
        exif = Image.Exif()
        exif.load(orientation_alone(image.info.get("exif", b"")))
        return exif.get(ORIENTATION)


def _scaled(key, scale):
    """A PNG's transparent grey or colour, on the scale of the decoded pixels; None for none."""
    if key is None or scale is None:
        return key
    return tuple(int(scale * value) for value in key) if isinstance(key, tuple) else int(scale * key)


def _to_rgb(image, key):
    """key: the value or colour that is transparent; for a palette its index, or every entry's opacity; or None."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose white is not known")
    if image.mode.startswith("I"):  # 16 bit grey; Pillow's own conversion would cut off all above 255
        values = np.asarray(image)
        grey = np.clip(values.astype(np.float32) / 257 + 0.5, 0, 255).astype(np.uint8)
        if key is not None:
            grey[values == key] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.getbands()[-1] in ("A", "a") or key is not None:
        if key is not None:
            image.info["transparency"] = key
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
