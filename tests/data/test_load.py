"""minild.data.load: a data set by its name, or a folder."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from minild import data
from minild.data.emoji import Emoji
from minild.data.folder import ImageFolder
from minild.data.shapes import Shapes
from minild.errors import UserError


@pytest.mark.parametrize(("name", "kind"), [("shapes", Shapes), ("emoji", Emoji)])
def test_the_library_s_own_sets(name, kind):
    loaded, direct = data.load(name, "test", size=32), kind("test", 32)
    assert type(loaded) is kind and loaded.name == name and loaded.split == "test"
    assert loaded[5][1] == direct[5][1] and np.array_equal(loaded[5][0], direct[5][0])
    assert data.load(name, size=64)[0][0].shape == (64, 64, 3)


def test_a_set_s_own_size():
    sides = {name: data.load(name)[0][0].shape[0] for name in ("shapes", "emoji", "scenes")}
    assert sides == {"shapes": 32, "emoji": 32, "scenes": 64}


def test_a_folder(tmp_path):
    (tmp_path / "blue_bird").mkdir()
    Image.new("RGB", (20, 20), (0, 0, 255)).save(tmp_path / "blue_bird" / "1.png")
    for given in (tmp_path, str(tmp_path)):
        loaded = data.load(given, size=16)
        assert isinstance(loaded, ImageFolder) and loaded.name == str(tmp_path) and loaded.captions(0) == ("blue bird",)
        assert loaded[0][0].shape == (16, 16, 3)


def test_a_name_goes_before_a_folder_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emoji").mkdir()
    assert isinstance(data.load("emoji"), Emoji)


@pytest.mark.parametrize("name", ["emojis", "no/such/folder", "", "file.txt"])
def test_anything_else_is_told_what_there_is(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").touch()
    with pytest.raises(UserError, match=r"no data set .*use shapes, emoji, scenes or a folder"):
        data.load(name)


def test_importing_the_library_reads_no_data_set():
    script = "import sys, minild.data; print(*[m for m in sys.modules if m.startswith(('minild', 'PIL', 'numpy'))])"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) == {"minild", "minild.data", "minild.errors", "minild.shown"}
