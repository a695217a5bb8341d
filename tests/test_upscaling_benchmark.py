"""tests.benchmarks.upscaling: what is compared, and how near it is."""

import json

import numpy as np
import pytest
import tiny_pipeline
from benchmarks.upscaling import bicubic, enlarged, main, measured

from minild.errors import UserError
from minild.evaluation.perceptual import load_perceptual
from minild.pipelines.conditions import reduced


def smooth(count, side):
    """Pictures of soft gradients, (N, side, side, 3) uint8."""
    along = np.linspace(0, 255, side)
    pictures = np.stack([np.add.outer(along, share * along) / (1 + share) for share in np.linspace(0, 1, count)])
    return pictures[..., None].repeat(3, axis=-1).astype(np.uint8)


def test_bicubic_follows_a_gradient_and_ends_there():
    pictures = smooth(2, 32)
    large = bicubic(reduced(pictures, 4), 4)
    assert large.shape == (2, 32, 32, 3) and abs(large - pictures / 255)[:, 4:-4, 4:-4].max() < 0.02
    edges = np.zeros((1, 4, 4, 3))
    edges[:, :, 2:] = 1
    assert bicubic(edges, 4).min() == 0 and bicubic(edges, 4).max() == 1  # where it overshoots


def test_ways_and_figures():
    pictures = smooth(2, 16)
    small, settings = reduced(pictures, 2), {"steps": 2, "progress": False}
    ways = enlarged(tiny_pipeline.make_upscaler(words=False), small, pictures, [0, 9], **settings)
    assert list(ways) == ["bicubic", "autoencoder", "minild, noise level 0", "minild, noise level 9"]
    assert all(drawn.shape == (2, 16, 16, 3) for drawn in ways.values())
    none = enlarged(tiny_pipeline.make_upscaler(words=False, labels=None), small, pictures, [0, 9], **settings)
    assert list(none) == ["bicubic", "autoencoder", "minild"]
    noisy = np.clip(pictures / 255 + np.random.default_rng(0).normal(0, 0.1, pictures.shape), 0, 1)
    figures = measured({"bicubic": ways["bicubic"], "noise": noisy}, pictures, load_perceptual())
    assert figures["bicubic"]["psnr"] > figures["noise"]["psnr"] > 15
    assert 0 < figures["bicubic"]["lpips"] < figures["noise"]["lpips"]


def test_all_of_it(tmp_path, capsys):
    pipe = tiny_pipeline.make_upscaler(words=False)
    pipe.record |= {"dataset": "shapes", "size": 32}
    pipe.save_pretrained(tmp_path / "model")
    asked = ["--model", str(tmp_path / "model"), "--count", "2", "--steps", "1", "--levels", "0"]
    main([*asked, "--output", str(tmp_path / "up")])
    assert "| minild, noise level 0 |" in capsys.readouterr().out
    figures = json.loads((tmp_path / "up.json").read_text())
    assert figures["bicubic"]["psnr"] > 15 and (tmp_path / "up.png").is_file()
    for arguments, words in ((["--levels", "low"], "levels: expected"), (["--model", "shapes"], "not for this model")):
        with pytest.raises(UserError, match=words):
            main([*asked, *arguments])
