"""Pictures, arrays, and folders of pictures."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from minild.cli.pictures import read_image, read_map
from minild.cli.txt2img import _read_latents
from minild.data import decode
from minild.data.folder import ImageFolder
from minild.playground.asked import _opaque

from ..mutate import TEXTS, any_text, changed_bytes, json_bytes
from ..reader import Link, Pipe, Reader

LARGEST = 2_000_000  # pixels: the bound is lower here than the library's, for each of them takes its time
FORMATS = (
    ("png", "RGB"), ("png", "RGBA"), ("png", "P"), ("png", "1"), ("png", "I;16"), ("png", "LA"), ("jpeg", "RGB"),
    ("jpeg", "L"), ("jpeg", "CMYK"), ("gif", "P"), ("webp", "RGB"), ("webp", "RGBA"), ("tiff", "RGB"), ("tiff", "CMYK"),
    ("bmp", "RGB"), ("ppm", "RGB"), ("ico", "RGBA"), ("icns", "RGBA"), ("tga", "RGB"), ("pcx", "RGB"), ("sgi", "RGB"),
    ("qoi", "RGB"), ("jpeg2000", "RGB"), ("avif", "RGB"), ("dds", "RGB"), ("mpo", "RGB"), ("msp", "1"),
    ("xbm", "1"), ("dib", "RGB"), ("blp", "P"),
)  # fmt: skip
EPS = (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print\n%%EOF\n",)
XPM = (b'/* XPM */\nstatic char *a[] = {\n"2 2 2 1",\n"a c #ff0000",\n"b c #00ff00",\n"ab",\n"ba"};\n',)
FITS = (b"SIMPLE  =                    T".ljust(80) + b"BITPIX  =                    8".ljust(80)
        + b"NAXIS   =                    2".ljust(80) + b"NAXIS1  =                    2".ljust(80)
        + b"NAXIS2  =                    2".ljust(80) + b"END".ljust(80)).ljust(2880) + bytes(4)  # fmt: skip


def seeds():
    """Small valid pictures of every format that Pillow writes, with EXIF and texts where they have a place."""
    exif, found = Image.Exif(), []
    exif[0x0112], exif[0x010E] = 6, "a text"
    base = Image.fromarray(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3))
    for kind, mode in FORMATS:
        image = base.convert("L").convert("I;16") if mode == "I;16" else base.convert(mode)
        for settings in ({}, {"exif": exif}):
            file = io.BytesIO()
            try:
                image.resize((32, 32)).save(file, kind, **settings)
            except (KeyError, OSError, ValueError):  # Pillow was built without it
                continue
            found.append(file.getvalue())
            if kind not in ("png", "jpeg", "webp", "tiff", "avif"):
                break
    file = io.BytesIO()
    base.save(file, "gif", save_all=True, append_images=[base.rotate(90), base.rotate(180)])
    return [*found, file.getvalue(), *EPS, *XPM, FITS]


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(rng):
    """A PNG of right checksums, and of any size, depth, and chunks."""
    width, height = (rng.choice((1, 2, 9, 300, 3000, 65535, 2**31 - 1, 0)) for _ in range(2))
    depth, colours = rng.choice((1, 2, 4, 8, 16, 3)), rng.choice((0, 2, 3, 4, 6, 5))
    head = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, rng.choice((0, 1)))
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head)]
    beside = (
        chunk(b"tRNS", rng.randbytes(rng.choice((1, 2, 6, 300)))),
        chunk(b"PLTE", rng.randbytes(rng.choice((3, 768, 7)))),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(rng.choice((10, 10**6, 10**7))))), chunk(b"pHYs", b"ab"),
        chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**6))), chunk(b"eXIf", rng.randbytes(40)),
        chunk(b"acTL", struct.pack(">II", rng.choice((0, 1, 2**31)), 0)), chunk(b"fcTL", rng.randbytes(26)),
        chunk(b"gAMA", b""), chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(10**5))),
    )  # fmt: skip
    parts += [rng.choice(beside) for _ in range(rng.randrange(4))]
    size = min(10**6, width * height * 8)
    parts.append(chunk(b"IDAT", zlib.compress(bytes(rng.choice((size, size // 2, 10))), 1)))
    parts += [rng.choice(beside) for _ in range(rng.randrange(2))]
    return b"".join([*parts, chunk(b"IEND", b"")])


class Picture(Reader):
    name, memory = "picture", 160  # of at most LARGEST pixels in RGBA, some copies, and Pillow's 64 MB of texts

    def files(self, folder):
        decode.LARGEST = decode.LARGEST_SLOW = LARGEST
        Image.MAX_IMAGE_PIXELS = LARGEST // 2  # for the plugins that look for themselves
        Image.init()
        self.seeds = seeds()
        (folder / "a.png").write_bytes(self.seeds[0])

    def make(self, rng):
        what = rng.random()
        if what < 0.002:
            return {"a.png": rng.choice((Pipe(), Link("/dev/zero"), Link("../secret.png"), Link("a.png")))}
        if what < 0.15:
            return {"a.png": png(rng)}
        return {"a.png": changed_bytes(rng, rng.choice(self.seeds), self.seeds)}

    def read(self, folder):
        read_image(folder / "a.png", (16, 16))


class Map(Reader):
    """A semantic map, and a layer of a mask: pictures whose values count."""

    name, memory, last = "map", 160, "npy"

    def files(self, folder):
        Picture.files(self, folder)
        self.npy = [_npy(np.arange(20).reshape(4, 5)), _npy(np.zeros((2, 4, 4, 3), np.float32))]
        (folder / "a.npy").write_bytes(self.npy[0])

    def make(self, rng):
        self.last = "npy" if rng.random() < 0.3 else "png"
        if self.last == "npy":
            return {"a.npy": hostile_npy(rng, self.npy)}
        data = png(rng) if rng.random() < 0.3 else changed_bytes(rng, rng.choice(self.seeds), self.seeds)
        return {"a.png": data}

    def read(self, folder):
        if self.last == "npy":
            return read_map(folder / "a.npy")
        try:
            read_map(folder / "a.png")
        finally:
            _opaque(folder / "a.png")


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def hostile_npy(rng, files):
    """The bytes of a .npy with a header of another shape, order or dtype; or changed anywhere."""
    if rng.random() < 0.4:
        return changed_bytes(rng, rng.choice(files), files)
    dtype = rng.choice(("<f4", "<i8", "|O", "<U9", "<M8[ns]", "[('a', '<f4')]", "<f8", "|V8", "<c16", "x", ">f4"))
    shape = tuple(rng.choice((0, 1, 2, 3, 4, 2**31, 2**62, -1, 10**12)) for _ in range(rng.choice((0, 1, 2, 4, 70))))
    order = rng.choice((True, False, None))
    descr = dtype if dtype.startswith("[") else repr(dtype)
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    header = rng.choice((header, header * 2, "(" * 5000, header + "\n" * 20_000, "__import__('os').system('true')"))
    length = struct.pack("<H", len(header) % 65536)
    return b"\x93NUMPY\x01\x00" + length + header.encode() + bytes(rng.choice((0, 48, 999)))


class Array(Reader):
    """Latents in a .npy."""

    name, memory = "latents", 64

    def files(self, folder):
        zipped = io.BytesIO()
        np.savez_compressed(zipped, a=np.zeros((2, 4, 4, 3), np.float32))
        self.npy = [_npy(np.zeros((2, 4, 4, 3), np.float32)), _npy(np.arange(5)), zipped.getvalue(),
                    b"\x80\x04cos\nsystem\n(S'true'\ntR."]  # fmt: skip
        (folder / "a.npy").write_bytes(self.npy[0])

    def make(self, rng):
        if rng.random() < 0.002:
            return {"a.npy": rng.choice((Pipe(), Link("/dev/zero")))}
        return {"a.npy": hostile_npy(rng, self.npy)}

    def read(self, folder):
        _read_latents(folder / "a.npy")


class Folder(Reader):
    """A whole folder of pictures: names, links, metadata."""

    name, memory, fresh, slow = "folder", 128, True, True

    def files(self, folder):
        self.picture = getattr(self, "picture", None) or seeds()[0]
        (folder / "a.png").write_bytes(self.picture)

    def make(self, rng):
        names = ["a.png", "b.PNG", "train/a.png", "test/b.png", "cat/c.png", "a_dog/x.jpg", "__x/a.png", ".h/a.png",
                 "x/x/x/a.png", "/".join("d" * 60) + "/a.png", "val 1/a.png"]  # fmt: skip
        files = {}
        for _ in range(rng.choice((1, 2, 4, 8))):
            name = rng.choice(names) if rng.random() < 0.7 else _name(rng) + rng.choice(("", ".png", "/a.png"))
            files[name] = self.picture if rng.random() < 0.8 else changed_bytes(rng, self.picture)
            if rng.random() < 0.1:
                files[name] = rng.choice((Pipe(), Link("/dev/zero"), Link(".."), Link("."), Link("a.png"), Link("x")))
        if rng.random() < 0.02:
            files = {f"{a}/{b}": Link(f"../{b}") for a in "abcdefgh" for b in "abcdefgh"}
        if rng.random() < 0.5:
            listed = [*files, "no.png", rng.choice(TEXTS)]
            rows = [{"file_name": rng.choice(listed), "text": any_text(rng)} for _ in "ab"]
            files["metadata.jsonl"] = b"\n".join(json_bytes(rng, row) for row in rows)
        return {name: data for name, data in files.items() if _can_be(name, files)}

    def read(self, folder):
        dataset = ImageFolder(folder, rng_split(folder), 8)
        assert dataset.pictures.shape[1:] == (8, 8, 3) and dataset.skipped is not None


def rng_split(folder):
    return "test" if (folder / "test").exists() else "train"


def _name(rng):
    text = rng.choice((rng.choice(TEXTS), any_text(rng))).replace("/", "").replace("\0", "").strip(".")
    return text.encode("utf-8", "ignore")[:60].decode("utf-8", "ignore") or "x"


def _can_be(name, files):
    """Whether no other name of the files is a folder in this one's place."""
    parents = name.split("/")
    return not any("/".join(parents[:i]) in files for i in range(1, len(parents)))
