"""Captioned image sets: shapes and scenes (drawn), emoji (real), a folder of yours."""

from pathlib import Path

from minild.errors import UserError


def load(name_or_folder, split="train", size=None, caption=None):
    """The data set "shapes", "emoji" or "scenes", or the pictures in a folder (minild.data.folder) -> a dataset d.

    len(d); d[i] -> ((size, size, 3) uint8 picture, caption); d.captions(i) -> all its true captions; d.name.
    split: "train" or "test". size: in pixels; None is the set's own, 64 for the scenes and 32 for all others. caption:
    that of the pictures for which a folder has none. The names go before folders called so. UserError for anything
    else.
    """
    name, how = str(name_or_folder), {"split": split} | ({} if size is None else {"size": size})
    if name == "shapes":
        from minild.data.shapes import Shapes

        return Shapes(**how)
    if name == "emoji":
        from minild.data.emoji import Emoji

        return Emoji(**how)
    if name == "scenes":
        from minild.data.scenes import Scenes

        return Scenes(**how)
    if name and Path(name).is_dir():
        from minild.data.folder import ImageFolder

        return ImageFolder(name, caption=caption, **how)
    raise UserError(f"no data set {name!r}: use shapes, emoji, scenes or a folder of captioned pictures")
