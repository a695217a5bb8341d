"""A picture file without what lies beside its pixels: only its orientation is kept.

Text, colour profiles, previews and camera data come in every state of disrepair, and Pillow reads some of them before
the first pixel. These formats keep them in parts of their own, which can be left out.
"""

import struct
import zlib

ORIENTATION = 0x0112
# The tags of a TIFF file that say where its pixels are and what they mean (TIFF 6.0; 317 is the LZW predictor, 347 and
# 512 to 521 are JPEG's tables).
PIXEL_TAGS = {
    254, 256, 257, 258, 259, 262, 266, 273, ORIENTATION, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325,
    332, 338, 339, 347, *range(512, 522), 529, 530, 531, 532,
}  # fmt: skip
PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
EXIF, START_OF_SCAN = b"Exif\0\0", 0xDA


def pixels_alone(data):
    """The bytes of a PNG, JPEG, TIFF or AVIF file -> those of the same picture, turned as before, and no more.

    None for every other file, and for one whose parts cannot be told apart.
    """
    if data[4:12] == b"ftypavif":
        return data.replace(b"Exif", b"skip", 1)  # in its table of contents; how the picture is turned stands elsewhere
    strip = {b"\x89P": _png, b"\xff\xd8": _jpeg, b"II": _tiff, b"MM": _tiff}.get(data[:2])
    try:
        return strip and strip(data)
    except (struct.error, IndexError):
        return None


def orientation_alone(exif):
    """An EXIF block, which is laid out as a TIFF file -> the block with no other tag; empty where that cannot be."""
    try:
        return EXIF + (_tiff(exif.removeprefix(EXIF), {ORIENTATION}) or b"")
    except struct.error:
        return b""


def _png(data):
    kept, at = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunk = data[at : at + length + 12]  # with its length, its kind and its check sum
        if kind == b"eXIf":
            body = kind + orientation_alone(chunk[8:-4]).removeprefix(EXIF)
            kept.insert(2, struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)))
        elif kind in PNG_CHUNKS:
            kept.append(chunk)
        if kind == b"IEND":
            break
        at += len(chunk)
    return b"".join(kept)


def _jpeg(data):
    kept, at = [data[:2]], 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a byte that fills
            at += 1
            continue
        if marker == START_OF_SCAN:
            return b"".join([*kept, data[at:]])
        (length,) = struct.unpack_from(">H", data, at + 2)
        segment = data[at : at + length + 2]
        if marker == 0xE1 and segment[4:10] == EXIF:
            exif = orientation_alone(segment[4:])
            kept.append(b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif)
        elif marker not in {*range(0xE1, 0xEE), 0xEF, 0xFE}:  # an application's, but for JFIF's and Adobe's; a comment
            kept.append(segment)
        at += len(segment)
    return None


def _tiff(data, tags=PIXEL_TAGS):
    """A TIFF file with only these tags in its first directory, which stays where it is; no other directory follows."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or struct.unpack_from(order + "H", data, 2) != (42,):
        return None
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    entries = [data[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
    kept = []
    for entry in entries:
        tag = struct.unpack_from(order + "H", entry)[0] if len(entry) == 12 else None
        if tag == ORIENTATION:
            entry = entry[:4] + struct.pack(order + "I", 1) + entry[8:]  # it has one value
        if tag in tags:
            kept.append(entry)
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4)
    return data[:start] + directory + data[start + len(directory) :]
