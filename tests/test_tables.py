"""The tables in miniature: what is done is not done again, and what is published says how it was made."""

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.tables import __main__ as tables
from benchmarks.tables import autoencoders, cells, measures, pixels, plots
from PIL import Image

from minild import data
from minild.data.pictures import gather
from minild.models import AutoencoderKL


def test_a_cell_is_computed_once_and_kept_whole(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return {"psnr": 20.5}

    with pytest.raises(KeyboardInterrupt):
        cells.Cells(tmp_path).get("kl-f8", compute)
    assert not list(tmp_path.iterdir())
    first = cells.Cells(tmp_path).get("kl-f8", compute)
    again = cells.Cells(tmp_path).get("kl-f8", compute)
    assert len(calls) == 2 and first == again and first["psnr"] == 20.5 and first["seconds_in_all"] >= 0


def test_what_is_published(tmp_path):
    rows = [{"f": 2, "psnr": 30.123}, {"f": 8, "psnr": 22.0}]
    text = cells.publish(tmp_path / "new", "autoencoders", "the command", {"f": "{f}", "PSNR": "{psnr:.1f}"}, rows)
    assert [line.replace(" ", "") for line in text.splitlines()][2:] == ["|2|30.1|", "|8|22.0|"]
    page = (tmp_path / "new" / "autoencoders.md").read_text(encoding="utf-8")
    assert page.startswith(text) and "`the command`" in page
    assert json.loads((tmp_path / "new" / "autoencoders.json").read_text(encoding="utf-8"))["rows"] == rows


@pytest.fixture(scope="module")
def judge():
    from minild.evaluation import load_perceptual

    judge = measures.Judge.__new__(measures.Judge)
    judge.model, judge._known = load_perceptual(), {}
    return judge


def test_the_judge_finds_pictures_like_themselves_and_unlike_noise(judge):
    pictures, _ = gather(data.load("shapes", "test"), 24)
    noise = np.random.default_rng(0).random(pictures.shape)
    assert judge.frechet(pictures / 255, pictures) == pytest.approx(0, abs=1e-3)
    assert judge.frechet(noise, pictures) > 1
    assert judge.features(pictures) is judge.features(pictures)


def test_presets_of_the_tables_are_what_they_say():
    for f in autoencoders.CHANNELS:
        chosen = autoencoders.preset(f, perceptual_weight=0.5)
        vae = AutoencoderKL.from_config(chosen.autoencoder_config(chosen.size), 0)
        assert vae.downsampling == f and chosen.perceptual_weight == 0.5
        assert set(pixels.WIDTHS) == {1, *autoencoders.CHANNELS}


def test_the_readme_says_what_was_measured_of_pixels_and_latents():
    root = Path(__file__).parents[1]
    rows = json.loads((root / "tests/benchmarks/tables/results/pixels.json").read_text())["rows"]
    readme = (root / "README.md").read_text(encoding="utf-8")
    for row in rows:
        name = "1, pixels" if row["f"] == 1 else row["f"]
        trained, drawn = (row[f"{what}_images_per_second"] for what in ("trained", "drawn"))
        assert f"| {name} | {trained:.1f} | {drawn:.2f} | {row['frechet']:,.0f} |\n" in readme
    pixels, _, four, eight = rows
    for name, words in (("trained", "trains {:.1f} times as fast"), ("drawn", "draws {:.1f} times as fast")):
        assert words.format(four[f"{name}_images_per_second"] / pixels[f"{name}_images_per_second"]) in readme
    assert f"takes {pixels['steps']} steps of 64 pictures, and f = 8 takes {eight['steps']}:" in readme


def test_pixels_and_latents_go_the_same_way(monkeypatch):
    monkeypatch.setattr(pixels, "WIDTHS", {1: (8, 16), 4: (8, 16)})
    monkeypatch.setattr(pixels, "STEPS", 2)
    pictures, captions = gather(data.load("shapes"), 8)
    names = [several[0] for several in captions]
    config = autoencoders.preset(4).autoencoder_config(32) | {"block_out_channels": [8, 8, 8], "norm_num_groups": 4}
    for f, vae in ((1, None), (4, AutoencoderKL.from_config(config, 0))):
        diffusion = pixels.Diffusion(f, vae, pictures, names)
        assert diffusion.objective.means.std() == pytest.approx(1, rel=1e-3)
        drawn = diffusion.draw(names[:2])
        assert drawn.shape == (2, 32, 32, 3) and 0 <= drawn.min() < drawn.max() <= 1
        assert not np.array_equal(drawn[0], drawn[1])


def test_plots_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    curve = [{"seconds": 30.0, "frechet": 100.0}, {"seconds": 60.0, "frechet": 50.0}]
    plots.quality_over_time([{"f": 1, "curve": curve}, {"f": 4, "curve": curve}], tmp_path / "b.png")
    rows = [{"f": f, "regularisation": kind, "psnr": 30.0 - f} for f in (2, 4) for kind in ("KL", "VQ")]
    plots.rate_and_distortion(rows, tmp_path / "a.png")
    plots.lines([{"a": 1, "b": 2}, {"a": 2, "b": 3}], tmp_path / "c.png", "title", ("a", "x"), ("b", "y"))
    for name in "abc":
        with Image.open(tmp_path / f"{name}.png") as image:
            assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 10


@pytest.mark.parametrize("wrong", [["samplers", "--minutes", "0"], ["samplers", "--count", "1"]])
def test_wrong_numbers_are_told(wrong, capsys):
    assert tables.main(wrong) == 2
    assert "--minutes is more than 0" in capsys.readouterr().err
