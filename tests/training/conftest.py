"""What a fine-tuning is given: a tiny pipeline, and a few pictures."""

import pytest
import tiny_pipeline
from PIL import Image

from minild.training import tuning


@pytest.fixture
def no_sheets(monkeypatch):
    """A fine-tuning draws none of its sample sheets, which take longer than its few steps."""
    monkeypatch.setattr(tuning, "draw_sheet", lambda *arguments: None)


@pytest.fixture
def model(tmp_path):
    """The folder of a tiny pipeline."""
    tiny_pipeline.make().save_pretrained(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.fixture
def bare(tmp_path):
    """A folder of three pictures without captions."""
    (tmp_path / "set").mkdir()
    for i in range(3):
        Image.new("RGB", (9, 8), (200, 40 * i, 30)).save(tmp_path / "set" / f"{i}.png")
    return tmp_path / "set"
