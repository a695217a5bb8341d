"""minild train: what it hands on to minild.training."""

from pathlib import Path

from refusal import refused


def test_train_hands_its_options_on(run, module, tmp_path):
    calls = module("minild.training", train=lambda *arguments, **settings: None)
    assert run("train", "shapes", "--output", "out", "--minutes", 1.5, "--seed", 4, "--resume") == (0, "out\n", "")
    settings = {"minutes": 1.5, "steps": None, "seed": 4, "device": "cpu", "resume": True, "size": None}
    settings |= dict.fromkeys(("objective", "regularisation", "condition", "first_stage"))
    assert calls == [(("shapes", Path("out")), settings)]
    chosen = ("--objective", "flow", "--regularisation", "vq", "--condition", "class", "--first-stage", "emoji")
    run("train", "emoji", "--output", "out", "--steps", 9, "--size", 64, *chosen)
    expected = {"minutes": None, "steps": 9, "seed": 0, "device": "cpu", "resume": False, "size": 64}
    named = {"objective": "flow", "regularisation": "vq", "condition": "class", "first_stage": "emoji"}
    assert calls[1][1] == expected | named
    run("train", "emoji", "--output", "out", "--keep", 5)
    assert calls.pop()[1]["keep"] == 5
    assert "--keep: expected a whole number from 1" in refused(run("train", "emoji", "--output", "o", "--keep", 0))
    assert "--keep is not for clip" in refused(run("train", "clip", "--output", "o", "--keep", 2))
    assert "invalid choice: 'l2'" in refused(run("train", "emoji", "--output", "o", "--regularisation", "l2"))
    assert "not allowed with argument" in refused(run("train", "emoji", "--output", "o", "--steps", 9, "--minutes", 1))
    assert "--output" in refused(run("train", "emoji"))
    assert "--minutes must be more than 0" in refused(run("train", "emoji", "--output", "o", "--minutes", 0))
    assert "--minutes: expected a number from 0" in refused(run("train", "emoji", "--output", "o", "--minutes", "nan"))
    assert len(calls) == 2


def test_train_perceptual(run, module):
    calls = module("minild.training", train_perceptual=lambda *arguments, **settings: None)
    assert run("train", "perceptual", "--output", "out", "--steps", 9, "--seed", 4) == (0, "out\n", "")
    settings = {"minutes": None, "steps": 9, "seed": 4, "device": "cpu", "size": 64}
    assert calls == [((Path("out"),), settings)]
    assert "--resume is not for perceptual" in refused(run("train", "perceptual", "--output", "o", "--resume"))
    words = "--objective is not for perceptual"
    assert words in refused(run("train", "perceptual", "--output", "o", "--objective", "flow"))
    assert "is not for perceptual" in refused(run("train", "perceptual", "--output", "o", "--regularisation", "vq"))
    assert len(calls) == 1


def test_train_clip(run, module):
    calls = module("minild.training", train_clip=lambda *arguments, **settings: None)
    assert run("train", "clip", "--output", "out", "--minutes", 2, "--seed", 4) == (0, "out\n", "")
    settings = {"minutes": 2, "steps": None, "seed": 4, "device": "cpu", "size": 32}
    assert calls == [(("shapes", Path("out")), settings)]
    run("train", "clip", "--dataset", "emoji", "--output", "out", "--steps", 3, "--size", 64)
    assert calls[1][0] == ("emoji", Path("out")) and calls[1][1]["size"] == 64
    assert "--resume is not for clip" in refused(run("train", "clip", "--output", "o", "--resume"))
    line = refused(run("train", "emoji", "--dataset", "shapes", "--output", "o"))
    assert "--dataset is not for emoji, only for clip and classifier" in line
    assert len(calls) == 2


def test_train_classifier(run, module):
    calls = module("minild.training", train_classifier=lambda *arguments, **settings: None)
    assert run("train", "classifier", "--model", "shapes", "--output", "out", "--steps", 3) == (0, "out\n", "")
    settings = {"minutes": None, "steps": 3, "seed": 0, "device": "cpu", "dataset": None}
    assert calls == [(("shapes", Path("out")), settings)]
    assert "needs --model" in refused(run("train", "classifier", "--output", "o"))
    assert "--size is not for classifier" in refused(
        run("train", "classifier", "--model", "shapes", "--size", 64, "--output", "o")
    )
    assert "--model is not for emoji" in refused(run("train", "emoji", "--model", "shapes", "--output", "o"))
    assert len(calls) == 1


def test_train_lora(run, module):
    calls = module("minild.training", train_lora=lambda *arguments, **settings: None)
    needed = ("train", "lora", "--model", "shapes", "--data", "mine", "--output", "out.safetensors")
    assert run(*needed, "--steps", 3) == (0, "out.safetensors\n", "")
    settings = {"minutes": None, "steps": 3, "seed": 0, "device": "cpu", "recomputing": False, "text_encoder": False}
    assert calls == [(("shapes", "mine", Path("out.safetensors")), settings)]
    chosen = ("--rank", 8, "--alpha", 4, "--text-encoder", "--prompt", "a cat", "--recompute", "--size", 64)
    run(*needed, *chosen, "--batch-size", 2, "--learning-rate", 0.01)
    more = {"rank": 8, "alpha": 4.0, "text_encoder": True, "prompt": "a cat", "recomputing": True, "size": 64}
    assert calls[1][1] == settings | {"steps": None, "batch_size": 2, "learning_rate": 0.01} | more
    assert "a lora needs --model" in refused(run("train", "lora", "--data", "mine", "--output", "o.safetensors"))
    assert "a lora needs --data" in refused(run("train", "lora", "--model", "shapes", "--output", "o.safetensors"))
    assert "--token is not for lora, only for textual-inversion" in refused(run(*needed, "--token", "<a>"))
    assert "--text-encoder is not for emoji" in refused(run("train", "emoji", "--text-encoder", "--output", "o"))
    assert "--rank: expected a whole number from 1" in refused(run(*needed, "--rank", 0))
    assert len(calls) == 2


def test_train_textual_inversion(run, module):
    calls = module("minild.training", train_textual_inversion=lambda *arguments, **settings: None)
    needed = ("train", "textual-inversion", "--model", "shapes", "--data", "mine", "--output", "out.safetensors")
    assert run(*needed, "--token", "<cat>", "--initial", "a cat", "--vectors", 2) == (0, "out.safetensors\n", "")
    settings = {"minutes": None, "steps": None, "seed": 0, "device": "cpu", "recomputing": False}
    assert calls[0][1] == settings | {"token": "<cat>", "initial": "a cat", "vectors": 2}
    assert "a textual-inversion needs --token" in refused(run(*needed))
    assert "--rank is not for textual-inversion" in refused(run(*needed, "--token", "<cat>", "--rank", 2))
    assert len(calls) == 1
