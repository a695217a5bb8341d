"""The figures of an evaluation: by hand, by definition, and for pipelines that draw perfectly or at random."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_pipeline
from models.tiny import VQ
from PIL import Image

from minild import data, evaluation
from minild.data.emoji import Emoji
from minild.data.pictures import gather
from minild.data.shapes import Shapes
from minild.diffusion import FLOW_CLASS, FlowSchedule, NoiseSchedule
from minild.errors import UserError
from minild.evaluation import (
    codebook_use,
    codes,
    evaluate,
    features,
    format_report,
    frechet_distance,
    load_clip_for,
    load_perceptual,
    lpips,
    nearest,
    psnr,
    rebuild,
    ssim,
    wilson_interval,
)
from minild.evaluation.report import STEPS
from minild.models import VQModel
from minild.pipelines.planning import pictures_at_once


class FakePipeline:
    """Draws draw(caption); its autoencoder gives back what it got, plus `shift`."""

    kinds, schedule = ("text",), NoiseSchedule()

    def __init__(self, draw, shift=0.1, record=None):
        self.draw, self.guidance_scale = draw, (record or {}).get("guidance_scale", 7.5)
        self.vae = SimpleNamespace(
            mean_latent=lambda x: x / 2, decode=lambda z: 2 * z + shift, dtype=np.float32, device="cpu"
        )
        self.calls = []

    def text_to_image(self, prompts, **settings):
        self.calls.append((prompts, settings))
        return np.stack([self.draw(prompt) for prompt in prompts]).astype(np.float32) / 255


def test_psnr_by_hand():
    x = np.zeros((2, 3, 4, 3))
    y = x.copy()
    y[0] += 0.1  # mean squared error 0.01
    y[1, 0, 0, 0] = 0.6  # 0.36 over 36 numbers
    assert psnr(x, y) == pytest.approx([20, 20])
    assert psnr(x, x).tolist() == [np.inf, np.inf]
    black, grey = np.zeros((1, 3, 4, 3), np.uint8), np.full((1, 3, 4, 3), 51, np.uint8)
    assert psnr(black, grey) == pytest.approx([-20 * np.log10(0.2)])
    assert psnr(black, grey / 255) == psnr(black, grey)


def test_ssim_of_flat_pictures_compares_their_light():
    x, y = np.full((1, 11, 13, 3), 0.2), np.full((1, 11, 13, 3), 0.6)
    assert ssim(x, y) == pytest.approx([(2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)])
    assert ssim(x, x) == pytest.approx([1])


def test_ssim_is_its_definition(rng):
    """Window by window, with weighted means and covariances; of odd, unequal sides."""
    x = rng.random((2, 14, 12, 3))
    y = np.clip(x + 0.2 * rng.standard_normal(x.shape), 0, 1)
    i, j = np.indices((11, 11)) - 5
    weights = np.exp(-(i**2 + j**2) / (2 * 1.5**2))
    expected = np.zeros(2)
    for n, top, left, c in np.ndindex(2, 4, 2, 3):
        a, b = (z[n, top : top + 11, left : left + 11, c].ravel() for z in (x, y))
        mean_a, mean_b = np.average([a, b], axis=1, weights=weights.ravel())
        (aa, ab), (_, bb) = np.cov(a, b, aweights=weights.ravel(), ddof=0)
        light = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
        expected[n] += light * (2 * ab + 9e-4) / (aa + bb + 9e-4) / (4 * 2 * 3)
    assert ssim(x, y) == pytest.approx(expected, rel=1e-9)
    assert 0.2 < expected.min() < expected.max() < 0.95


def test_frechet_distance_of_normals_is_the_closed_form(rng):
    """Of independent features it is Σ (μ₁ - μ₂)² + (σ₁ - σ₂)²; and turning both sets together changes nothing."""
    whole = np.linalg.qr(rng.standard_normal((40, 4)))[0] * np.sqrt(40)
    centred = whole - whole.mean(axis=0)
    independent = centred @ np.linalg.inv(np.linalg.cholesky(np.cov(centred, rowvar=False, bias=True))).T
    first = independent * [1, 2, 0.5, 0] + [0, 1, 0, 2]  # the last feature is dead
    second = independent[::-1] * [3, 2, 0.1, 0] + [1, 1, 0, 5]
    expected = (1 + 9) + (4 + 0.16)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    assert frechet_distance(first @ turn, second @ turn) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6)


def test_the_perceptual_distance_sees_what_pixels_do_not():
    """A picture moved by a pixel is, pixel by pixel, farther off than a blurred one; to the eye it is nearer."""
    pictures = Emoji(size=64).pictures[100:400:20] / 255
    moved = np.roll(pictures, 1, axis=2)
    blurred = sum(np.roll(pictures, (i, j), (1, 2)) for i in range(-2, 3) for j in range(-2, 3)) / 25
    model = load_perceptual()
    assert psnr(moved, pictures).mean() < psnr(blurred, pictures).mean()
    assert lpips(moved, pictures, model).mean() < lpips(blurred, pictures, model).mean()
    assert (lpips(pictures, pictures, model) == 0).all()


def test_features_are_the_means_of_the_coarsest_maps(monkeypatch):
    pictures, model = Emoji(size=32).pictures[:5], load_perceptual()
    whole = features(pictures, model)
    expected = model.features((pictures / 127.5 - 1).astype("f"))[-1].mean(axis=(1, 2))
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(evaluation.pictures, "PIXELS", 2 * 32 * 32)
    np.testing.assert_allclose(features(pictures, model), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_wrong_pictures_are_named(measure):
    x = np.zeros((1, 12, 12, 3))
    with pytest.raises(ValueError, match=r"y: expected the shape of x.*\(1, 12, 11, 3\)"):
        measure(x, x[:, :, 1:])
    with pytest.raises(ValueError, match=r"x: expected shape \(N, H, W, C\), got \(12, 12, 3\)"):
        measure(x[0], x[0])
    with pytest.raises(ValueError, match=r"y: expected dtype uint8 or float, got int64"):
        measure(x, x.astype(np.int64))
    with pytest.raises(ValueError, match="at least 11"):
        ssim(x[:, 2:], x[:, 2:])


def test_rebuild_encodes_to_the_mean_in_batches(rng, monkeypatch):
    pictures = rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    pipeline = tiny_pipeline.make()
    posterior = pipeline.vae.encode(pictures.astype(np.float32) / 127.5 - 1)
    expected = pipeline.decode(posterior.mean * pipeline.vae.config["scaling_factor"])
    monkeypatch.setattr(evaluation.pictures, "PIXELS", 2 * 8 * 8)
    rebuilt = rebuild(pipeline.vae, pictures)
    assert rebuilt.dtype == np.float32 and rebuilt == pytest.approx(expected, abs=1e-5)
    assert 0 <= rebuilt.min() < rebuilt.max() <= 1


def test_an_autoencoder_of_no_numbers_is_told(rng):
    pictures = rng.integers(0, 256, (2, 8, 8, 3), np.uint8)
    with pytest.raises(UserError, match="the autoencoder gave values that are no numbers"):
        rebuild(FakePipeline(None, shift=np.nan).vae, pictures)


def test_nearest_is_by_mean_squared_error(rng, monkeypatch):
    pictures = rng.integers(0, 256, (9, 4, 3, 3), dtype=np.uint8)
    queries = rng.random((5, 4, 3, 3))
    errors = ((queries[:, None] - pictures / 255) ** 2).mean(axis=(2, 3, 4))
    assert np.array_equal(nearest(queries, pictures, 4), errors.argsort(axis=1)[:, :4])
    monkeypatch.setattr(evaluation.measures, "NUMBERS", 2 * 36)  # two pictures at once
    assert np.array_equal(nearest(queries, pictures, 20), errors.argsort(axis=1))


def test_emoji_drawn_as_they_are_are_all_found():
    emoji = Emoji(size=16)
    picture_of = dict(zip(emoji.names, emoji.pictures))
    pipeline = FakePipeline(picture_of.get, record={"guidance_scale": 3.0})
    figures = evaluate(pipeline, emoji, emoji, count=40, seed=5, progress=False)
    assert (figures["top1"], figures["top5"]) == (1, 1)
    assert (figures["rebuilt"], figures["drawn"], figures["candidates"]) == (40, 40, len(emoji))
    assert figures["chance"] == pytest.approx(1 / len(emoji))
    [(prompts, settings)] = pipeline.calls
    assert len(set(prompts)) == 40 and set(prompts) < set(emoji.names) and prompts != emoji.names[:40]
    expected = {"steps": STEPS, "guidance_scale": 3.0, "seed": 5, "sampler": "dpmpp-2m", "size": (16, 16)}
    assert settings == expected | {"progress": False}
    other = evaluate(pipeline, emoji, emoji, count=40, seed=6, guidance_scale=2, steps=9, progress=False)
    assert (other["seed"], other["guidance_scale"], other["steps"]) == (6, 2, 9)
    assert pipeline.calls[1][0] != prompts and pipeline.calls[1][1]["guidance_scale"] == 2


def test_emoji_drawn_for_other_names_are_not_found():
    emoji = Emoji(size=16)
    mixed = np.random.default_rng(0).permutation(len(emoji))
    pipeline = FakePipeline(dict(zip(emoji.names, emoji.pictures[mixed])).get)
    figures = evaluate(pipeline, emoji, emoji, count=200, progress=False)
    assert figures["top1"] < 0.02 and figures["top1"] <= figures["top5"] < 0.06
    assert figures["guidance_scale"] == 7.5


def test_the_nearest_five_are_looked_at():
    """Of ten pictures, each lighter than the last, one some steps on is drawn, and lighter by a trace than it is.

    Two steps on, the one asked for comes fifth, after one two steps beyond; three steps on, seventh, but for the last
    five, where there are fewer beyond.
    """
    row = FakeSet([np.full((12, 12, 3), 20 * i, np.uint8) for i in range(10)], [f"{i}" for i in range(10)])
    for steps, top5 in ((2, 1), (3, 0.5)):
        pipeline = FakePipeline(lambda caption, k=steps: np.full((12, 12, 3), 20 * min(int(caption) + k, 9) + 1))
        figures = evaluate(pipeline, row, row, progress=False)
        assert (figures["drawn"], figures["top1"], figures["top5"], figures["chance"]) == (10, 0.1, top5, 0.1)


class FakeSet:
    def __init__(self, pictures, names):
        self.items = list(zip(pictures, names))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]

    def captions(self, i):
        return (self.items[i][1],)


@pytest.fixture
def animals(tmp_path):
    """A folder's two splits: 30 cats, all different reds; 30 dogs, blues; one of each picture stored twice."""
    for i in range(30):
        for name, colour in (("cat", (100 + 5 * i, 0, 0)), ("dog", (0, 0, 100 + 5 * i))):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (12, 12), colour).save(tmp_path / name / f"{i}.png")
    for name in ("cat", "dog"):
        (tmp_path / name / "twice.png").write_bytes((tmp_path / name / "0.png").read_bytes())
    return [data.load(tmp_path, split, size=12) for split in ("train", "test")]


def test_any_picture_of_the_caption_counts(animals):
    train, test = animals
    colours = {"cat": (163, 0, 0), "dog": (0, 0, 141)}
    pipeline = FakePipeline(lambda caption: np.full((12, 12, 3), colours[caption]))
    figures = evaluate(pipeline, train, test, progress=False)
    assert (figures["drawn"], figures["rebuilt"], figures["candidates"]) == (len(train), len(test), 60)
    assert (figures["top1"], figures["top5"], figures["chance"]) == (1, 1, 0.5)
    pipeline.draw = lambda caption: np.full((12, 12, 3), colours["cat"])
    assert evaluate(pipeline, train, test, progress=False)["top5"] == pytest.approx(0.5, abs=0.1)


def test_reconstruction_figures(animals):
    train, test = animals
    pipeline = FakePipeline(lambda caption: test[0][0], shift=0.1)
    figures = evaluate(pipeline, train, test, count=3, progress=False)
    pictures = gather(test, 3)[0]
    shifted = np.clip(pictures / 255 + 0.05, 0, 1)  # 0.1 of [-1, 1] is 0.05 of [0, 1]
    assert figures["psnr"] == pytest.approx(psnr(shifted, pictures).mean(), abs=1e-3)
    assert figures["ssim"] == pytest.approx(ssim(shifted, pictures).mean(), abs=1e-4)
    assert 25 < figures["psnr"] < 27


@pytest.mark.parametrize("size", [32, 64])
def test_shapes_are_judged(size):
    train, test = Shapes("train", size), Shapes("test", size)
    picture_of = {test.caption(i): test[i][0] for i in range(12)}
    pipeline = FakePipeline(picture_of.get)
    figures = evaluate(pipeline, train, test, count=12, seed=3, progress=False)
    assert [figures[name] for name in ("background", "shapes", "colours", "relation", "all", "withheld")] == [1] * 6
    [(prompts, settings)] = pipeline.calls
    assert prompts == [test.caption(i) for i in range(12)]
    assert settings["seed"] == 3 and settings["size"] == (size, size)
    assert figures["outline"] > 0.98 and figures["ssim_fit"] > 0.99
    assert not {"outline", "ssim_fit"} & figures["intervals"].keys()
    for line in ("outline IoU with the best-fitting shapes", "SSIM to the best-fitting true drawing"):
        assert f"{line}  " in format_report(figures)


def test_spoilt_shapes_are_told():
    """Rounded by a blur, they fall short of the shapes they should be, and of the true drawings nearest to them."""
    test = Shapes("test")
    blurred = {test.caption(i): _blurred(test[i][0]) for i in range(12)}
    figures = evaluate(FakePipeline(blurred.get), Shapes("train"), test, count=12, progress=False)
    assert figures["all"] < 0.5 < 0.8 < min(figures["colours"], figures["relation"])
    assert figures["outline"] < 0.93 and 0.5 < figures["ssim_fit"] < 0.95


def _blurred(picture):
    return sum(np.roll(picture.astype(float), (i, j), (0, 1)) for i in range(-2, 3) for j in range(-2, 3)) / 25


def test_what_is_drawn_by_where_nothing_is_asked_for():
    """30 steps of dpmpp-2m; 50 of another sampler; of a flow, and of a learnt variance, what alone can draw them."""
    train = test = Shapes("test")

    def settings(schedule=None, **asked):
        pipeline = FakePipeline(lambda caption: test[0][0])
        pipeline.schedule = schedule or pipeline.schedule
        figures = evaluate(pipeline, train, test, count=1, progress=False, **asked)
        [(_, given)] = pipeline.calls
        assert all(figures[name] == given[name] for name in ("sampler", "steps", "seed", "guidance_scale"))
        return given["sampler"], given["steps"]

    assert settings() == ("dpmpp-2m", STEPS)
    assert settings(steps=7) == ("dpmpp-2m", 7)
    assert settings(sampler="ddim") == ("ddim", 50)
    assert settings(NoiseSchedule({"variance_type": "learned_range"})) == ("ddpm", 50)
    assert settings(FlowSchedule(given={"_class_name": FLOW_CLASS})) == ("flow-euler", 50)


def test_pictures_are_drawn_in_batches():
    test, most = Shapes("test"), []
    pipeline = FakePipeline(lambda caption: most.append(pictures_at_once("cpu", 8, 8)) or test[0][0])
    evaluate(pipeline, Shapes("train"), test, count=2, progress=False)
    assert most == [32, 32] and pictures_at_once("cpu", 8, 8) == 1


def test_every_share_has_its_interval_of_the_pictures_it_is_of(animals):
    """Of shapes all attributes, and the withheld of a quarter; of a folder's retrieval both; and JSON takes them."""
    train, test = Shapes("train"), Shapes("test")
    picture_of = {test.caption(i): test[i - 1 if i % 4 == 3 else i][0] for i in range(16)}
    figures = evaluate(FakePipeline(picture_of.get), train, test, count=16, progress=False)
    assert figures["intervals"]["all"] == [*wilson_interval(0.75, 16), 16]
    assert figures["intervals"]["withheld"] == [*wilson_interval(0, 4), 4]
    assert figures["intervals"].keys() == {"background", "shapes", "colours", "relation", "all", "withheld"}
    assert json.loads(json.dumps(figures)) == figures
    train, test = animals
    figures = evaluate(FakePipeline(lambda caption: train[0][0]), train, test, count=7, progress=False)
    assert {name: n for name, (_, _, n) in figures["intervals"].items()} == {"top1": 7, "top5": 7}


def test_a_set_brings_its_own_judge():
    """Which says of how many pictures its shares are; pictures twice the size it reads are averaged to it."""

    class Judge:
        SIZE = 4

        def report(self, pictures, captions, withheld):
            pictures = np.stack(list(pictures))
            assert pictures.shape == (3, 4, 4, 3) and pictures[1].max() == pytest.approx(0.5)
            assert (captions, withheld) == (["0", "1", "2"], [False, True, False])
            return {"shadow": 0.5, "all": 1.0, "withheld": 0.0}

        def counts(self, captions, withheld):
            return {"shadow": 2}

    class Judged(FakeSet):
        size, judge = 8, Judge()

        def caption(self, i):
            return self.captions(i)[0]

        def withheld(self, i):
            return i == 1

    chess = np.zeros((8, 8, 3), np.uint8)
    chess[::2] = 255
    data_set = Judged([chess] * 3, ["0", "1", "2"])
    figures = evaluate(FakePipeline(lambda caption: chess), data_set, data_set, progress=False)
    assert {name: n for name, (_, _, n) in figures["intervals"].items()} == {"shadow": 2, "all": 3, "withheld": 1}
    assert "shadow as asked for" in format_report(figures)


def test_drawn_pictures_are_compared_with_the_test_pictures(animals):
    train, test = animals
    real = iter([test[i][0] for i in range(len(test))] * 9)
    same = evaluate(FakePipeline(lambda caption: next(real)), train, test, count=len(test), progress=False)
    assert (same["precision"], same["recall"]) == (1, 1) and same["frechet_drawn"] == pytest.approx(0, abs=1e-6)
    green = np.full((12, 12, 3), (0, 255, 0), np.uint8)
    other = evaluate(FakePipeline(lambda caption: green), train, test, count=len(test), progress=False)
    assert (other["precision"], other["recall"]) == (0, 0) and other["frechet_drawn"] > 0.1
    few = evaluate(FakePipeline(lambda caption: green), train, test, count=3, progress=False)
    assert "precision" not in few and "frechet_drawn" in few


def test_the_clip_that_comes_with_minild_scores_shapes():
    """Pictures of their captions score as the test pictures do, those of other captions far less."""
    train, test = Shapes("train"), Shapes("test")
    right, wrong = ({test.caption(i): test[(i + by) % 12][0] for i in range(12)} for by in (0, 1))
    figures = evaluate(FakePipeline(right.get), train, test, count=12, progress=False)
    assert figures["clip_score"] == pytest.approx(figures["clip_score_real"], abs=5)
    assert 85 < figures["clip_score_real"] <= 100
    assert evaluate(FakePipeline(wrong.get), train, test, count=12, progress=False)["clip_score"] < 60
    assert load_clip_for("shapes", 64) is None and load_clip_for("emoji", 32) is None
    assert load_clip_for("shapes", 32).record["dataset"] == "shapes"


def test_a_codebook_is_looked_at(animals, monkeypatch):
    train, test = animals
    pipeline = FakePipeline(lambda caption: test[0][0])
    pipeline.vae = vae = VQModel.from_config(VQ)
    monkeypatch.setattr(evaluation.report, "rebuild", lambda vae, pictures, progress: pictures / np.float32(510))
    figures = evaluate(pipeline, train, test, count=4, progress=False)
    share, perplexity = codebook_use(codes(vae, gather(test, 4)[0]), 12)
    assert (figures["codes"], figures["perplexity"]) == (share, perplexity)
    assert 1 / 12 <= share <= 1 <= perplexity <= 12 * share + 1e-9


def test_shapes_drawn_wrong_are_noticed():
    """Withheld pairs are drawn as the scene before them; all else is right: three quarters, and none withheld."""
    train, test = Shapes("train"), Shapes("test")
    picture_of = {test.caption(i): test[i - 1 if i % 4 == 3 else i][0] for i in range(16)}
    figures = evaluate(FakePipeline(picture_of.get), train, test, count=16, progress=False)
    assert (figures["all"], figures["withheld"]) == (0.75, 0)
    assert figures["background"] >= 0.75


def test_a_real_pipeline_of_small_pictures(tmp_path):
    """8 x 8 pixels are too few for SSIM, which is left out; the rest is measured, and can be written as JSON."""
    for name in ("a red circle", "a green star"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), name.split()[1]).save(tmp_path / name / "1.png")
    folder = data.load(tmp_path, size=8)
    figures = evaluate(tiny_pipeline.make(), folder, folder, count=2, steps=2, progress=False)
    assert "top5" not in figures and figures["candidates"] == 2  # of which any five are all
    assert "ssim" not in figures and np.isfinite(figures["psnr"]) and figures["drawn"] == 2
    assert not figures.keys() & {"frechet_drawn", "precision", "clip_score"}
    assert json.loads(json.dumps(figures)) == figures


def test_the_report_is_aligned_and_has_units():
    figures = {"rebuilt": 1377, "psnr": 27.346, "ssim": 0.9213, "guidance_scale": 4.0, "top1": 0.8133, "chance": 7e-4}
    lines = format_report(figures).splitlines()
    values = ["1,377", "27.35 dB", "0.921", "4", "81.33%", "0.07%"]  # chance as its neighbours
    assert [line.rsplit("  ", 1)[1] for line in lines] == values
    assert len({len(line) - len(value) for line, value in zip(lines, values)}) == 1
    assert lines[1].startswith("PSNR  ")


def test_shares_are_followed_by_their_intervals():
    figures = {"drawn": 300, "all": 0.75, "withheld": 1.0}
    figures["intervals"] = {"all": [0.698, 0.796, 300], "withheld": [0.951, 1.0, 75]}
    lines = format_report(figures).splitlines()
    assert lines[0].endswith("300") and len(lines) == 3
    assert lines[1].endswith("75.0%   69.8% to 79.6% (95 %)")
    assert lines[2].endswith("100.0%  95.1% to 100.0% (95 %)")


def test_progress_stays_off_stdout(capsys, animals):
    train, test = animals
    pipeline = FakePipeline(lambda caption: test[0][0])
    evaluate(pipeline, train, test, count=2)
    assert pipeline.calls[0][1]["progress"] is True
    assert capsys.readouterr().out == ""
