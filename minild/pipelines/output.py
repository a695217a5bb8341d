"""Writing pictures: never half a file, and refused before the work rather than after it."""

import contextlib
import io
import os
import re
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from minild.errors import UserError

LONGEST_NAME = 40  # characters of a prompt that go into a file's name


def default_name(prompt):
    """A file name from a prompt: "A red circle!" -> "a-red-circle.png"."""
    words = re.sub(r"\W+", "-", prompt.lower())[:LONGEST_NAME].strip("-")
    return f"{words or 'picture'}.png"


def output_paths(output, count):
    """The files that `count` pictures go to: one .npy holds all; of .png, several get the endings -0, -1, ..."""
    output = Path(output)
    if output.suffix.lower() not in (".png", ".npy"):
        raise UserError(f"output {output}: expected a name that ends in .png or .npy")
    if output.suffix.lower() == ".npy" or count == 1:
        return [output]
    digits = len(str(count - 1))
    return [output.with_name(f"{output.stem}-{i:0{digits}}{output.suffix}") for i in range(count)]


def moving_or_strip(output):
    """The file of a moving picture, .gif, or of a strip, .png. UserError for another, or where it cannot be written."""
    output = Path(output)
    if output.suffix.lower() not in (".gif", ".png"):
        raise UserError(f"output {output}: expected a name that ends in .gif or .png")
    require_writable(output)
    return output


def require_writable(path):
    """UserError unless a file can be written at `path`; nothing is left behind."""
    if Path(path).is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    with _beside(path):
        pass


@contextlib.contextmanager
def _beside(path):
    """A binary file next to `path`, gone at the end unless it was moved. UserError where there can be none."""
    beside = Path(path).with_name(f".{Path(path).name}.partial")
    try:
        with open(beside, "wb") as file:
            yield file
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


@contextlib.contextmanager
def whole_file(path):
    """with whole_file(path) as file: what is written to it appears at `path` at the end, or not at all."""
    with _beside(path) as file:
        yield file
        file.close()
        os.replace(file.name, path)


def how_drawn(model, dtype, variant, steps, guidance, sampler, **more):
    """What a PNG says of how it was drawn, beside what is told of each picture; as the commands name the settings."""
    settings = {**more, "model": model or "emoji", "steps": steps, "guidance": guidance, "sampler": sampler}
    return settings | {"dtype": dtype} | ({"variant": variant} if variant else {})


def to_bytes(picture):
    """A picture in [0, 1] as uint8, rounded to the nearest."""
    return np.rint(picture * 255).astype(np.uint8)


def png_bytes(picture, text):
    """A picture (H, W, 3) in [0, 1] as the bytes of a PNG, with the dict `text` as its text chunks and no date."""
    chunks, file = PngImagePlugin.PngInfo(), io.BytesIO()
    for key, value in text.items():
        chunks.add_text(key, str(value))
    Image.fromarray(to_bytes(picture)).save(file, "png", pnginfo=chunks)
    return file.getvalue()


def write_png(path, picture, text):
    """Write a picture (H, W, 3) in [0, 1] as png_bytes makes it."""
    with whole_file(path) as file:
        file.write(png_bytes(picture, text))


def write_npy(path, pictures):
    """Write pictures (N, H, W, 3) in [0, 1] as float32."""
    with whole_file(path) as file:
        np.save(file, pictures.astype(np.float32, copy=False))


def write_gif(path, pictures, pause):
    """Write pictures (N, H, W, 3) in [0, 1] as a moving one that goes on for ever, each shown `pause` milliseconds."""
    first, *others = (Image.fromarray(to_bytes(picture)) for picture in pictures)
    with whole_file(path) as file:
        first.save(file, "gif", save_all=True, append_images=others, duration=pause, loop=0)
