"""The emoji data set."""

import numpy as np
import pytest

from minild.data import emoji
from minild.data.emoji import Emoji
from minild.data.location import data_path
from minild.errors import UserError


def test_pictures_and_names():
    data = Emoji()
    assert len(data) > 1300 and len(set(data.names)) == len(data)
    assert len({picture.tobytes() for picture in data.pictures}) == len(data)
    i = data.names.index("red apple")
    picture, name = data[i]
    assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8 and name == "red apple"
    assert (data.group(i), data.subgroup(i)) == ("Food & Drink", "food-fruit")
    red, green, blue = picture[16, 16].astype(int)
    assert red > 150 > max(green, blue)


def test_a_margin_of_white():
    for side in (Emoji().pictures[:, 0], Emoji().pictures[:, -1], Emoji().pictures[:, :, 0]):
        assert side.min() == 255


def test_area_averaging():
    large, small = Emoji(size=64), Emoji("test", size=32)
    assert large.names == small.names
    block = large.pictures[:50].reshape(50, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(block - small.pictures[:50]).max() <= 0.5


@pytest.mark.parametrize("wrong", [{"split": "dev"}, {"size": 30}, {"size": 0}, {"size": 128}])
def test_wrong_arguments(wrong):
    with pytest.raises(UserError):
        Emoji(**wrong)


def test_sprites_on_white_are_the_pictures():
    data, cut = Emoji(size=64), emoji.sprites()
    assert list(cut) == data.names
    for i in range(0, len(data), 100):
        sprite = cut[data.names[i]]
        on_white = sprite[..., :3] + 1 - sprite[..., 3:]
        assert np.abs(255 * on_white - data.pictures[i]).max() < 3, data.names[i]
        assert sprite[0, 0, 3] == 0 and sprite[..., 3].max() > 0.9
    apple = cut["red apple"][32, 32]
    assert apple[3] == 1 and apple[0] > 0.6 > max(apple[1:3])


def test_missing_files_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(emoji, "data_path", tmp_path.joinpath)
    with pytest.raises(UserError, match=r"build\.py"):
        Emoji()
    (tmp_path / "emoji").mkdir()
    (tmp_path / "emoji" / "metadata.jsonl").write_text('{"text": "red apple"}\n')
    with pytest.raises(UserError, match="incomplete"):
        Emoji()


def test_licences_lie_beside_the_pictures():
    assert "SIL OPEN FONT LICENSE" in data_path("emoji", "OFL.txt").read_text(encoding="utf-8")
    assert "UNICODE, INC. LICENSE" in data_path("emoji", "UNICODE-LICENSE.txt").read_text(encoding="utf-8")
