"""Pictures in memory: what is gathered, and what is said of those that could not be read."""

from types import SimpleNamespace

import numpy as np

from minild.data.pictures import SHOWN, gather, tell_skipped
from minild.data.shapes import Shapes


def test_gather_spreads_over_the_set():
    data = Shapes("test", length=13)
    pictures, captions = gather(data, 5)
    assert pictures.shape == (5, 32, 32, 3) and pictures.dtype == np.uint8
    rows = [0, 2, 5, 7, 10]
    assert all(np.array_equal(picture, data[i][0]) for picture, i in zip(pictures, rows))
    assert captions == [data.captions(i) for i in rows]
    for limit in (None, 13, 20):
        assert gather(data, limit)[1] == [data.captions(i) for i in range(13)]


def test_skipped_pictures_are_named_and_counted(capsys):
    tell_skipped(Shapes("test"))
    assert capsys.readouterr() == ("", "")

    class Folder(SimpleNamespace):
        def __len__(self):
            return 40

    told = ["captions come from the names of folders: 'cat' for cat/1.png", "2 passed over (hidden): .a, .b"]
    tell_skipped(Folder(notices=told, skipped=[], name="mine"))
    assert capsys.readouterr().err.splitlines() == [f"minild: {line}" for line in told]
    tell_skipped(Folder(skipped=[(f"{i}.png", "truncated") for i in range(SHOWN + 3)], name="mine"))
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == SHOWN + 1
    assert lines[0] == "minild: skipped 0.png: truncated"
    assert lines[-1] == f"minild: {SHOWN + 3} skipped, 40 kept, in mine"
