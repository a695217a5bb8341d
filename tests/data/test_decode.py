"""One picture file: every mode and format, its size, its orientation, and what is broken beside its pixels."""

import io
import struct
import zlib

import numpy as np
import PIL
import pytest
from PIL import Image

from minild.data import decode
from minild.data.bare import pixels_alone
from minild.data.decode import extensions, read_picture

BLUE, WHITE = (0, 0, 255), (255, 255, 255)


def test_the_square_in_the_middle_is_area_averaged(tmp_path):
    wide = np.zeros((8, 20, 3), np.uint8)
    wide[:, :6], wide[:, 14:] = BLUE, BLUE  # beside the square
    wide[:, 10:14] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    picture = read_picture(tmp_path / "wide.png", 2)
    assert picture.dtype == np.uint8 and picture.shape == (2, 2, 3)
    assert np.array_equal(picture[0], picture[1]) and (picture[:, :, :1] == picture).all()  # no blue
    assert picture[0, 0, 0] < 30 and picture[0, 1, 0] > 170  # Lanczos mixes a little over the edge
    checkers = np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 255
    Image.fromarray(checkers).save(tmp_path / "checkers.png")
    assert np.abs(read_picture(tmp_path / "checkers.png", 4).astype(int) - 127).max() <= 2
    assert read_picture(tmp_path / "checkers.png", 100).shape == (100, 100, 3)


def modes():
    """Pictures of the red of (200, 100, 50), or of the grey 100, in every mode that files have."""
    colour = Image.new("RGB", (9, 7), (200, 100, 50))
    palette = Image.new("P", (9, 7), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    clear = Image.new("P", (9, 7), 0)
    clear.putpalette([0, 0, 0, 200, 100, 50])
    grey16 = Image.fromarray(np.full((7, 9), 100 * 257, np.uint16))
    yield "rgb.png", colour, {}, (200, 100, 50)
    yield "palette.png", palette, {}, (200, 100, 50)
    yield "clear-palette.png", clear, {"transparency": 0}, WHITE
    yield "clear-palette-bytes.png", clear, {"transparency": b"\x80\xff"}, (127, 127, 127)
    yield "clear-rgb.png", colour, {"transparency": (200, 100, 50)}, WHITE
    yield "animated.gif", palette, {"save_all": True, "append_images": [clear]}, (200, 100, 50)
    yield "grey.png", Image.new("L", (9, 7), 100), {}, (100, 100, 100)
    yield "bilevel.png", Image.new("1", (9, 7), 1), {}, WHITE
    yield "alpha.png", Image.new("RGBA", (9, 7), (200, 0, 0, 51)), {}, (244, 204, 204)
    yield "grey-alpha.png", Image.new("LA", (9, 7), (0, 0)), {}, WHITE
    yield "16bit.png", grey16, {}, (100, 100, 100)
    yield "16bit.tif", grey16, {}, (100, 100, 100)
    yield "32bit.tif", Image.new("I", (9, 7), 100 * 257), {}, (100, 100, 100)
    yield "cmyk.jpg", Image.new("CMYK", (9, 7), (0, 255, 255, 0)), {"quality": 100}, (255, 0, 0)
    yield "ycbcr.jpg", Image.new("YCbCr", (9, 7), (100, 128, 128)), {"quality": 100}, (100, 100, 100)
    yield "lossy.webp", colour, {"lossless": True}, (200, 100, 50)
    yield "clear-grey.png", Image.new("L", (9, 7), 100), {"transparency": 100}, WHITE
    yield "16bit-big-endian.tif", Image.fromarray(np.full((7, 9), 100 * 257, ">u2")), {}, (100, 100, 100)
    yield "16bit.pgm", Image.new("I", (9, 7), 100 * 257), {}, (100, 100, 100)


@pytest.mark.parametrize(("name", "image", "settings", "expected"), [pytest.param(*m, id=m[0]) for m in modes()])
def test_every_mode_becomes_rgb_on_white(tmp_path, name, image, settings, expected):
    image.save(tmp_path / name, **settings)
    picture = read_picture(tmp_path / name, 4)
    assert np.abs(picture.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png"])
def test_exif_orientation_is_followed(tmp_path, name):
    stored = np.zeros((32, 32, 3), np.uint8)
    stored[:, :16] = 255  # white on the left as stored; turned a quarter clockwise it is on top
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / name, exif=exif)
    picture = read_picture(tmp_path / name, 4).astype(int)
    assert picture[0].min() > 230 and picture[3].max() < 25


def test_a_large_jpeg_decoded_at_a_fraction_looks_the_same(tmp_path, rng):
    smooth = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = smooth.resize((800, 600), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "large.jpg", quality=95)
    smooth.save(tmp_path / "large.png")
    jpeg, png = (read_picture(tmp_path / f"large.{kind}", 32).astype(int) for kind in ("jpg", "png"))
    assert np.abs(jpeg - png).max() <= 6


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def segment(marker, body):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def png(depth, colours, row, transparent=None, before=b"", after=b""):
    """A PNG of one row of two pixels, laid out by hand, for Pillow writes few of these."""
    key = [chunk(b"tRNS", transparent)] if transparent else []
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, colours, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"".join([b"\x89PNG\r\n\x1a\n", head, before, *key, pixels, after, chunk(b"IEND", b"")])


GREY, RGB, GREY_ALPHA = 0, 2, 4


@pytest.mark.parametrize(
    ("depth", "colours", "row", "transparent"),
    [
        pytest.param(1, GREY, b"\x40", b"\0\1", id="1 bit"),
        pytest.param(2, GREY, b"\x30", b"\0\3", id="2 bits"),
        pytest.param(4, GREY, b"\x09", b"\0\x09", id="4 bits"),
        pytest.param(8, GREY, b"\0\x64", b"\0\x64", id="8 bits"),
        pytest.param(16, GREY, b"\0\0\x64\x12", b"\x64\x12", id="16 bits"),
        pytest.param(16, GREY_ALPHA, b"\0\0\xff\xff\x64\x12\0\0", None, id="16 bits and opacity"),
        pytest.param(8, RGB, b"\0\0\0\x64\x32\x12", b"\0\x64\0\x32\0\x12", id="8 bits, colour"),
        pytest.param(16, RGB, bytes(6) + b"\x64\1\x32\2\x12\3", b"\x64\1\x32\2\x12\3", id="16 bits, colour"),
    ],
)
def test_a_transparent_value_is_white_at_every_depth(tmp_path, monkeypatch, depth, colours, row, transparent):
    """The left pixel is black, the right one transparent."""
    seen, to_rgb = [], decode._to_rgb
    monkeypatch.setattr(decode, "_to_rgb", lambda *given: seen.append(to_rgb(*given)) or seen[-1])
    (tmp_path / "a.png").write_bytes(png(depth, colours, row, transparent))
    read_picture(tmp_path / "a.png", 1)
    assert np.asarray(seen[0]).tolist() == [[[0] * 3, [255] * 3]]
    if transparent and depth >= 8:  # and where another value is the transparent one, it is seen
        other = b"\1\1" * (len(transparent) // 2)
        (tmp_path / "a.png").write_bytes(png(depth, colours, row, other))
        read_picture(tmp_path / "a.png", 1)
        assert np.asarray(seen[1])[0, :, 0].tolist() == [0, 100]


def require(kind):
    """Skip a test of a format that this Pillow cannot write."""
    if Image.registered_extensions().get(f".{kind}") not in Image.SAVE:
        pytest.skip(f"no {kind} in Pillow {PIL.__version__}")


def test_whatever_pillow_opens_is_a_picture():
    common = ".apng .bmp .dib .gif .ico .jfif .jp2 .jpe .jpeg .jpg .mpo .pbm .pgm .png .ppm .tga .tif .tiff .webp"
    assert set(common.split()) <= extensions() and not {".pdf", ".txt", ".svg"} & extensions()


@pytest.mark.parametrize("kind", "apng avif bmp dib gif ico jfif jp2 jpe pcx pgm ppm qoi sgi tga tiff webp".split())
def test_formats_are_told_by_what_is_in_them(tmp_path, kind):
    require(kind)
    Image.new("RGB", (32, 32), (200, 200, 200)).save(tmp_path / f"a.{kind}")
    (tmp_path / f"a.{kind}").rename(tmp_path / "a.png")
    assert np.abs(read_picture(tmp_path / "a.png", 4).astype(int) - 200).max() <= 4


def test_a_format_that_pillow_was_built_without_is_unknown(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    read_picture(tmp_path / "a.png", 4)
    monkeypatch.setitem(Image.OPEN, "PNG", (Image.OPEN["PNG"][0], lambda prefix: "support for it is not installed"))
    with pytest.raises(Image.UnidentifiedImageError):
        read_picture(tmp_path / "a.png", 4)


def exif(*entries, order="<", start=8):
    """An EXIF block of (tag, type, count, four bytes)."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    rows = [struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries]
    return mark + struct.pack(order + "IH", start, len(rows)) + b"".join(rows) + bytes(4)


SIDEWAYS = (0x0112, 3, 1, struct.pack("<HH", 6, 0))  # a quarter clockwise
MAKER, AFAR = 0x010F, struct.pack("<I", 99_999)
BLOCKS = {  # and whether the orientation can be told
    "whole": (exif(SIDEWAYS), True),
    "big-endian": (exif((0x0112, 3, 1, struct.pack(">HH", 6, 0)), order=">"), True),
    "a tag out of reach": (exif(SIDEWAYS, (MAKER, 2, 100, AFAR)), True),
    "a tag out of reach, first": (exif((MAKER, 2, 100, AFAR), SIDEWAYS), True),
    "a tag without end": (exif((MAKER, 2, 0xFFFFFFFF, struct.pack("<I", 8)), SIDEWAYS), True),
    "a tag of no type": (exif((MAKER, 99, 1, bytes(4)), SIDEWAYS), True),
    "a resolution in letters": (exif(SIDEWAYS, (0x011A, 2, 4, b"abc\0"), (0x0128, 2, 4, b"abc\0")), True),
    "a part that is itself": (exif(SIDEWAYS, (0x8825, 4, 1, struct.pack("<I", 8))), True),
    "a part that is nowhere": (exif(SIDEWAYS, (0x8769, 4, 1, AFAR)), True),
    "an end too early": (exif(SIDEWAYS, (MAKER, 2, 100, AFAR))[:-14], True),
    "fewer tags than it says": (exif(SIDEWAYS)[:8] + b"\xff\1" + exif(SIDEWAYS)[10:], True),
    "two orientations": (exif((0x0112, 3, 2, struct.pack("<HH", 6, 6))), True),
    "no such orientation": (exif((0x0112, 3, 1, struct.pack("<HH", 77, 0))), False),
    "an orientation in letters": (exif((0x0112, 2, 2, b"6\0\0\0")), False),
    "letters": (b"this is no block at all", False),
    "zeros": (bytes(64), False),
    "nothing": (b"", False),
    "a mark and no more": (b"II*\0", False),
    "a start out of reach": (exif(SIDEWAYS, start=10_000), False),
}


def left_white():
    stored = np.zeros((32, 32, 3), np.uint8)
    stored[:, :16] = 255
    return Image.fromarray(stored)


def saved(kind, **settings):
    file = io.BytesIO()
    left_white().save(file, kind, **settings)
    return file.getvalue()


def shown(tmp_path, data):
    """Whether the white half of the stored picture is on the left, or, turned as its orientation says, on top."""
    (tmp_path / "a.any").write_bytes(data)
    picture = read_picture(tmp_path / "a.any", 4).astype(int)
    if picture[:, 0].min() > 200 and picture[:, 3].max() < 60:
        return "left"
    assert picture[0].min() > 200 and picture[3].max() < 60
    return "top"


def with_exif(kind, block):
    if kind == "jpeg":
        data = saved("jpeg", quality=95)
        return data[:2] + segment(0xE1, b"Exif\0\0" + block) + data[2:]
    if kind == "webp":
        return saved("webp", exif=b"Exif\0\0" + block)
    data = saved("png")
    at = 33 if kind == "png" else data.index(b"IEND") - 4
    return data[:at] + chunk(b"eXIf", block) + data[at:]


@pytest.mark.parametrize("kind", ["jpeg", "png", "png, at its end", "webp"])
@pytest.mark.parametrize("block", BLOCKS)
def test_a_broken_exif_block_costs_no_picture(tmp_path, kind, block):
    data, told = BLOCKS[block]
    assert shown(tmp_path, with_exif(kind, data)) == ("top" if told else "left")


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
def test_a_broken_tag_costs_no_tiff(tmp_path, compression):
    data = saved("tiff", compression=compression)
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    rows = [data[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
    rows += [struct.pack("<HHI", *entry[:3]) + entry[3] for entry in (SIDEWAYS, (MAKER, 2, 100, AFAR))]
    rows.sort(key=lambda row: struct.unpack_from("<H", row))
    directory = struct.pack("<H", len(rows)) + b"".join(rows) + bytes(4)
    assert shown(tmp_path, data[:4] + struct.pack("<I", len(data)) + data[8:] + directory) == "top"


def test_a_broken_exif_block_costs_no_avif(tmp_path):
    require("avif")
    data = saved("avif", exif=b"Exif\0\0" + exif((MAKER, 2, 4, b"abc\0"), SIDEWAYS))
    at = data.rindex(b"II*\0")
    assert shown(tmp_path, data[:at] + b"????" + data[at + 4 :]) == "top"


LONG = zlib.compress(b"x" * (2 << 20))  # Pillow reads a megabyte
BESIDE_PNG = {
    "a long text": chunk(b"zTXt", b"Comment\0\0" + LONG),
    "a long international text": chunk(b"iTXt", b"Comment\0\1\0\0\0" + LONG),
    "a long colour profile": chunk(b"iCCP", b"icc\0\0" + LONG),
    "a broken colour profile": chunk(b"iCCP", b"icc\0\0no profile"),
    "a colour profile packed otherwise": chunk(b"iCCP", b"icc\0\7" + LONG),
    "many texts": b"".join(chunk(b"zTXt", b"C%d\0\0" % i + zlib.compress(bytes(1 << 20))) for i in range(65)),
    "a check sum": chunk(b"tEXt", b"Comment\0hello")[:-1] + b"?",
    "short chunks": chunk(b"pHYs", b"a") + chunk(b"gAMA", b"") + chunk(b"cHRM", b"b"),
    "a long text and a turn": chunk(b"zTXt", b"Comment\0\0" + LONG) + chunk(b"eXIf", exif(SIDEWAYS)),
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("beside", BESIDE_PNG)
def test_what_lies_beside_the_pixels_costs_no_png(tmp_path, beside, place):
    data = saved("png")
    at = 33 if place == "before" else data.index(b"IEND") - 4
    expected = "top" if "turn" in beside else "left"
    assert shown(tmp_path, data[:at] + BESIDE_PNG[beside] + data[at:]) == expected


@pytest.mark.parametrize("cut", [b"", chunk(b"tEXt", b"Comment\0hello")[:9], chunk(b"IEND", b"") + b"and more"])
def test_an_end_that_is_cut_off_costs_no_png(tmp_path, cut):
    assert shown(tmp_path, saved("png")[:-12] + cut) == "left"


@pytest.mark.parametrize(
    "beside",
    [
        pytest.param(segment(0xE2, b"MPF\0 no index"), id="index of pictures"),
        pytest.param(segment(0xE2, b"MPF\0" + exif((0xB001, 4, 1, AFAR), (MAKER, 2, 100, AFAR))), id="broken index"),
        pytest.param(b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes([i, 60]) + bytes(60_000)) for i in range(40)),
                     id="long profile"),
        pytest.param(segment(0xED, b"Photoshop 3.0\x008BIM\xff\xff\xff\xff\xff"), id="an editor's"),
        pytest.param(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0 <<<"), id="broken XMP"),
        pytest.param(segment(0xFE, b"\xff" * 60_000), id="comment"),
    ],
)
def test_what_lies_beside_the_pixels_costs_no_jpeg(tmp_path, beside):
    data = saved("jpeg", quality=95)
    assert shown(tmp_path, data[:2] + beside + data[2:]) == "left"


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
def test_a_file_without_its_pixels_stays_an_error(tmp_path, kind):
    for end in (0, 1, 3, 9, 30, 60):
        (tmp_path / "a.any").write_bytes(saved(kind)[:end])
        with pytest.raises(Exception, match=r"(?i)known format|truncated|cannot load|support|data"):
            read_picture(tmp_path / "a.any", 4)


def test_bare_files_hold_nothing_beside_the_pixels():
    noisy = BESIDE_PNG["a check sum"] + chunk(b"tEXt", b"Comment\0secret")
    data = saved("png")
    bare = pixels_alone(data[:33] + noisy + data[33:])
    assert bare == data == pixels_alone(data + b"junk")
    data = saved("jpeg")
    fill = data[:2] + segment(0xFE, b"secret") + b"\xff" + data[2:]  # and a byte that only fills
    assert pixels_alone(fill) == data
    assert pixels_alone(saved("gif")) is None and pixels_alone(b"II") is None and pixels_alone(b"\xff\xd8\xff") is None


@pytest.fixture
def small_limit(monkeypatch):
    """As if pictures of more than 64 x 64 pixels were too large, for Pillow and for us."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns from here, and raises from twice as many
    monkeypatch.setattr(decode, "LARGEST", 64 * 64)
    monkeypatch.setattr(decode, "LARGEST_SQUARE", 1000)


def test_a_picture_too_large_is_reduced_where_its_format_can_be(tmp_path, small_limit):
    large = left_white().resize((256, 128), Image.Resampling.NEAREST)
    for kind, settings in (("jpg", {"quality": 95}), ("jp2", {"num_resolutions": 6})):
        large.save(tmp_path / f"a.{kind}", **settings)
        picture = read_picture(tmp_path / f"a.{kind}", 4).astype(int)
        assert picture[:, :2].min() > 180 and picture[:, 2:].max() < 70
    large.save(tmp_path / "few.jp2", num_resolutions=1)
    for name in ("a.png", "a.tif", "few.jp2"):
        if name != "few.jp2":
            large.save(tmp_path / name)
        with pytest.raises(ValueError, match="too large: 256 x 128 pixels, and 4,096 is the most"):
            read_picture(tmp_path / name, 4)
    large.save(tmp_path / "a.webp")
    either = "32768 pixels|too large: 256 x 128"  # Pillow's plugin looks for itself, but for that of old versions
    with pytest.raises((Image.DecompressionBombError, ValueError), match=either):
        read_picture(tmp_path / "a.webp", 4)
    with pytest.raises(ValueError, match="too large: 256 x 128"):
        read_picture(tmp_path / "a.jpg", 64)  # no fraction of it is small enough, and still large enough


def test_pillow_s_warning_of_large_pictures_costs_none(tmp_path, small_limit):
    left_white().resize((70, 58), Image.Resampling.NEAREST).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png", 2).astype(int)
    assert picture[:, 0].min() > 200 and picture[:, 1].max() < 60


def test_a_picture_of_200_megapixels_is_told_by_its_head(tmp_path):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 10_000, 8, RGB, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match="20000 x 10000 pixels, and 178,956,970 is the most"):
        read_picture(tmp_path / "a.png", 32)
