"""The command line: what it writes and prints, and one line with exit status 2 for every mistake of the user."""

import importlib
import json
import os
import subprocess
import sys
import types

import narrow_sd1
import numpy as np
import pytest
import tiny_pipeline
from PIL import Image
from safetensors.numpy import load_file, save_file

from minild import cli
from minild.pipelines import info, load

RED, GREEN = tiny_pipeline.CAPTIONS


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines") / "tiny"
    tiny_pipeline.make(record=tiny_pipeline.RECORD).save_pretrained(folder)
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, model):
    """run("txt2img", ...) in an empty folder -> (status, stdout, stderr); "MODEL" stands for the tiny pipeline."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        status = cli.main([str(model) if a == "MODEL" else str(a) for a in arguments])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def draw(run):
    return lambda *arguments: run("txt2img", *arguments, "--model", "MODEL", "--steps", 2)


def refused(outcome):
    """The one line of a refusal."""
    status, out, err = outcome
    assert status == 2
    assert out == ""
    assert err.startswith("minild: ") and err.count("\n") == 1 and err.endswith("\n")
    return err


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_txt2img_writes_a_png_named_after_the_prompt(draw, tmp_path, model):
    assert draw(RED) == (0, "a-red-circle-above-a-blue-square-on-a-wh.png\n", "")
    [file] = tmp_path.iterdir()
    expected = load(model).text_to_image(RED, steps=2)[0]
    assert abs(pixels(file) / 255 - expected).max() <= 0.5 / 255 + 1e-6  # rounded, not cut
    with Image.open(file) as image:
        assert image.text == {
            "Software": "minild",
            "prompt": RED,
            "seed": "0",
            "negative_prompt": "",
            "model": str(model),
            "steps": "2",
            "guidance": "7.5",
            "sampler": "ddim",
            "dtype": "float32",
        }


def test_a_seed_gives_one_file_byte_for_byte(draw, tmp_path):
    for name in ("first.png", "again.png"):
        draw(RED, "--output", name, "--seed", 7, "--sampler", "ddpm")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "again.png").read_bytes()


def test_several_pictures_are_numbered_and_each_is_its_seed_alone(draw, tmp_path):
    status, out, _ = draw(RED, GREEN, "--count", 2, "--output", "s.png", "--seed", 3)
    assert (status, out) == (0, "s-0.png\ns-1.png\ns-2.png\ns-3.png\n")
    for i, prompt in enumerate([RED, RED, GREEN, GREEN]):
        draw(prompt, "--output", "alone.png", "--seed", 3 + i)
        assert (tmp_path / "alone.png").read_bytes() == (tmp_path / f"s-{i}.png").read_bytes()


def test_numbers_are_padded_so_that_names_sort(draw):
    _, out, _ = draw("x", *["a"] * 10, "--steps", 1)
    assert out.split() == [f"x-{i:02}.png" for i in range(11)]


def test_npy_holds_all_pictures_exactly(draw, tmp_path, model):
    assert draw(RED, GREEN, "--output", "p.npy")[:2] == (0, "p.npy\n")
    pictures = np.load(tmp_path / "p.npy")
    assert pictures.dtype == np.float32
    np.testing.assert_array_equal(pictures, load(model).text_to_image([RED, GREEN], steps=2))


def test_options_reach_the_pipeline(draw, tmp_path, model, rng):
    noise = rng.standard_normal((2, 6, 4, 2)).astype(np.float32)
    np.save(tmp_path / "noise.npy", noise)
    draw(RED, "--latents", "noise.npy", "--guidance", 2, "--negative-prompt", GREEN, "--output", "p.npy")
    expected = load(model).text_to_image(RED, GREEN, steps=2, guidance_scale=2, latents=noise)
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), expected)
    draw(RED, "--latents", "noise.npy", "--output", "p.png")
    with Image.open(tmp_path / "p-1.png") as image:
        assert image.size == (8, 12)
        assert image.text["latents"] == "noise.npy"
    draw(RED, "--size", "12x16", "--output", "wide.png")
    assert pixels(tmp_path / "wide.png").shape == (12, 16, 3)
    draw(RED, "--dtype", "float16", "--output", "half.npy")
    assert np.load(tmp_path / "half.npy").dtype == np.float32


def test_clip_skip_rescale_and_a_seed_for_each_picture(draw, tmp_path, model):
    options = ["--clip-skip", 1, "--guidance-rescale", 0.7, "--seed", "7,12,3"]
    assert draw(RED, GREEN, RED, *options, "--output", "p.npy")[0] == 0
    expected = load(model).text_to_image([RED, GREEN, RED], steps=2, seed=[7, 12, 3], clip_skip=1, guidance_rescale=0.7)
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), expected)
    assert draw(RED, "--count", 3, *options, "--output", "P.PNG")[1] == "P-0.PNG\nP-1.PNG\nP-2.PNG\n"
    for i, seed in enumerate(("7", "12", "3")):
        with Image.open(tmp_path / f"P-{i}.PNG") as image:
            text = image.text
        assert (text["seed"], text["clip_skip"], text["guidance_rescale"]) == (seed, "1", "0.7")
    assert np.array_equal(pixels(tmp_path / "P-2.PNG"), np.rint(expected[2] * 255))
    assert "2 seeds for 1 picture" in refused(draw(RED, "--seed", "1,2"))
    assert "2 seeds for 3 pictures" in refused(draw(RED, "--count", 3, "--seed", "1,2"))


def test_a_prompt_in_any_script_names_the_file_and_is_kept(draw, tmp_path):
    assert draw("赤い 丸!")[1] == "赤い-丸.png\n"
    with Image.open(tmp_path / "赤い-丸.png") as image:
        assert image.text["prompt"] == "赤い 丸!"
    assert draw("?!")[1] == "picture.png\n"


def test_a_prompt_too_long_is_drawn_and_told(draw, tmp_path):
    status, out, err = draw(RED + " and zzz", RED + " and zzz", "--output", "p.png")
    assert (status, out) == (0, "p-0.png\np-1.png\n")
    assert err == "minild: a prompt is longer than the 14 tokens that fit: left out are 2 words, 'd zzz'\n"
    _, _, err = draw(RED + " and" + " red" * 300, "--output", "p.png")
    assert err.endswith("left out are 301 words, 'd red red red red' ...\n")
    assert len(draw(RED + " and " + "z" * 9000, "--output", "p.png")[2]) < 200


def damaged(model, folder, damage):
    """A copy of the tiny pipeline, damaged."""
    import shutil

    shutil.copytree(model, folder)
    damage(folder)
    return folder


def _no_unet(folder):
    (folder / "unet").rename(folder / "elsewhere")


def _unknown_field(folder):
    path = folder / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": 3}))


def _truncated(folder):
    path = folder / "text_encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def _missing_weight(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state["conv_out.bias"]
    save_file(state, path)


def _misshapen_weight(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(path) | {"conv_out.bias": np.zeros(7, np.float32)}, path)


@pytest.mark.parametrize(
    "damage, message",
    [
        (_no_unet, "has no folder unet"),
        (_unknown_field, "unknown field 'colour'"),
        (_truncated, "is not a whole safetensors file"),
        (_missing_weight, "missing conv_out.bias"),
        (_misshapen_weight, "conv_out.bias has shape (7,), expected (2,)"),
    ],
)
def test_a_broken_model_is_refused_and_nothing_is_written(run, model, tmp_path, damage, message):
    folder = damaged(model, tmp_path / "broken", damage)
    before = sorted(tmp_path.iterdir())
    assert message in refused(run("txt2img", RED, "--model", folder, "--output", "p.png"))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--model", "nowhere"], "nowhere is no pipeline"),
        (["--steps", "0"], "--steps: expected a whole number from 1, got '0'"),
        (["--steps", "1001"], "steps: expected 1 to 1000, got 1001"),
        (["--steps", "many"], "--steps: expected a whole number from 1, got 'many'"),
        (["--count", "0"], "--count: expected a whole number from 1, got '0'"),
        (["--seed", "-1"], "--seed: expected a whole number from 0, got '-1'"),
        (["--seed", "1,"], "--seed: expected a whole number from 0, got ''"),
        (["--clip-skip", "-1"], "--clip-skip: expected a whole number from 0, got '-1'"),
        (["--clip-skip", "2"], "clip skip must be from 0 to 1"),
        (["--guidance-rescale", "1.5"], "guidance rescale must be from 0 to 1, got 1.5"),
        (["--guidance-rescale", "nan"], "guidance rescale must be from 0 to 1, got nan"),
        (["--guidance", "inf"], "guidance must be a finite number"),
        (["--guidance", "strong"], "--guidance: invalid float value: 'strong'"),
        (["--sampler", "magic"], "unknown sampler 'magic': use one of ddpm, ddim"),
        (["--size", "10"], "size 10 x 10 is not divisible by 4"),
        (["--size", "0"], "--size: expected a size such as 64"),
        (["--size", "8x8x8"], "--size: expected a size such as 64"),
        (["--size", "4096"], "--size: expected a size such as 64 or 48x64 (height x width, up to 2048)"),
        (["--size", "99999999999"], "--size: expected a size such as 64"),
        (["--dtype", "int8"], "dtype: expected one of"),
        (["--device", "tpu"], "unknown device 'tpu': use cpu or cuda"),
        (["--model", ""], "--model: expected a name, got an empty text"),
        (["--output", ""], "--output: expected a name, got an empty text"),
        (["--output", "p.jpg"], "output p.jpg: expected a name that ends in .png or .npy"),
        (["--output", "nowhere/p.png"], "cannot write nowhere/p.png: No such file or directory"),
        (["--latents", "nowhere.npy"], "cannot read nowhere.npy: No such file or directory"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
        (["--negative-prompt", "\udcff"], "not valid text"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(run, tmp_path, arguments, message):
    arguments = arguments if "--model" in arguments else [*arguments, "--model", "MODEL"]
    assert message in refused(run("txt2img", RED, *arguments))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("prompts", [[""], [" \t"], [RED, ""]])
def test_an_empty_prompt_is_refused(draw, tmp_path, prompts):
    assert "a prompt is empty" in refused(draw(*prompts))
    assert not list(tmp_path.iterdir())


def _text(path):
    path.write_text("not numbers")


def _cut(path):
    np.save(path, np.zeros((1, 4, 4, 2)))
    path.write_bytes(path.read_bytes()[:150])


@pytest.mark.parametrize(
    "make, message",
    [
        (_text, "bad.npy is no .npy file of numbers"),
        (lambda path: path.write_bytes(b""), "bad.npy is no .npy file of numbers"),
        (_cut, "bad.npy is no .npy file of numbers"),
        (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "bad.npy is no .npy file of numbers"),
        (lambda path: path.mkdir(), "cannot read bad.npy: Is a directory"),
        (lambda path: np.save(path, np.zeros((4, 4, 2))), "expected latents of shape (N, h, w, c), got (4, 4, 2)"),
        (lambda path: np.save(path, np.zeros((0, 4, 4, 2))), "got (0, 4, 4, 2)"),
        (lambda path: np.save(path, np.zeros((1, 4, 4, 3))), "expected shape (N, h, w, 2)"),
        (lambda path: np.save(path, np.zeros((1, 4, 5, 2))), "multiples of 2"),
        (lambda path: np.save(path, np.full((1, 4, 4, 2), np.inf)), "not finite"),
        (lambda path: np.save(path, np.full((1, 4, 4, 2), "x")), "real numbers"),
    ],
)
def test_bad_latents_are_refused(draw, tmp_path, make, message):
    make(tmp_path / "bad.npy")
    assert message in refused(draw(RED, "--latents", "bad.npy", "--output", "p.png"))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npy"]


def test_prompts_and_latents_that_do_not_go_together(draw, tmp_path):
    np.save(tmp_path / "three.npy", np.zeros((3, 4, 4, 2)))
    assert "2 prompts do not go with 3 latents" in refused(draw(RED, GREEN, "--latents", "three.npy"))


def test_an_output_that_cannot_be_written_is_refused_before_the_work(draw, tmp_path, monkeypatch):
    def no_work(*arguments, **settings):
        raise AssertionError("it began")

    monkeypatch.setattr("minild.pipelines.load", no_work)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "p-1.png").mkdir()
    assert "cannot write file/p.png: Not a directory" in refused(draw(RED, "--output", "file/p.png"))
    assert "cannot write folder.png: it is a folder" in refused(draw(RED, "--output", "folder.png"))
    assert "cannot write p-1.png: it is a folder" in refused(draw(RED, GREEN, "--output", "p.png"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png", "p-1.png"]


def test_a_write_that_fails_leaves_the_old_file_whole(draw, tmp_path, monkeypatch):
    (tmp_path / "p.png").write_bytes(b"old")

    def full(self, file, *arguments, **settings):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    assert "cannot write p.png: No space left on device" in refused(draw(RED, "--output", "p.png"))
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]
    assert (tmp_path / "p.png").read_bytes() == b"old"


def test_a_gpu_that_is_not_there(draw, tmp_path, monkeypatch):
    from minild import backend

    monkeypatch.setattr(backend, "_devices", {"cpu": backend._devices["cpu"]})
    monkeypatch.setitem(sys.modules, "cupy", None)  # as where CuPy is not installed
    assert "--device cuda" in refused(draw(RED, "--device", "cuda"))
    assert not list(tmp_path.iterdir())


def test_numbers_too_large_are_one_line_too(draw, tmp_path, monkeypatch):
    """In the threads that draw, NumPy would warn of them, and pytest turn that into a fault."""
    monkeypatch.setattr("minild.pipelines.Pipeline.decode", lambda self, z: np.full((1, 8, 8, 3), 1e38, "f") * z.size)
    said = refused(draw(RED, GREEN))
    assert "no numbers in float32: try less guidance, latents of unit variance, or other weights" in said
    assert not list(tmp_path.iterdir())


def test_interrupted_and_out_of_memory(draw, monkeypatch):
    def interrupt(*arguments, **settings):
        raise KeyboardInterrupt

    def exhaust(*arguments, **settings):
        raise MemoryError("8 TiB")

    monkeypatch.setattr("minild.pipelines.Pipeline.text_to_image", interrupt)
    assert draw(RED) == (130, "", "")
    monkeypatch.setattr("minild.pipelines.Pipeline.text_to_image", exhaust)
    assert "not enough memory (8 TiB)" in refused(draw(RED))


def test_info(run, model):
    status, out, err = run("info", "MODEL")
    assert (status, err) == (0, "")
    assert out.startswith(f"folder        {model}\n")
    assert "trained on    shapes at 8 x 8 pixels\n" in out
    assert "nowhere is no pipeline" in refused(run("info", "nowhere"))


def test_info_of_a_single_file(run, tmp_path, monkeypatch):
    pipe = narrow_sd1.make()
    narrow_sd1.write(pipe, tmp_path / "sd1.safetensors", "float16")
    monkeypatch.setattr(info, "CONFIGS", {part: getattr(pipe, part).config for part in info.CONFIGS})
    status, out, err = run("info", "sd1.safetensors")
    assert (status, err) == (0, "") and out.startswith("file          sd1.safetensors\n")
    for part in ("vae", "text_encoder", "unet"):
        model = getattr(pipe, part)
        assert f"{part:<14}{type(model).__name__}, {model.parameter_count():,} parameters, float16, " in out
    assert "pictures      64 x 64 pixels; latents 8 x 8 x 4, f = 8\n" in out
    assert "14 to a prompt\n" in out
    (tmp_path / "tokenizer").rename(tmp_path / "elsewhere")
    assert "sd1.safetensors needs a tokenizer" in refused(run("info", "sd1.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "sd1.safetensors").read_bytes()[:999])
    assert "cut.safetensors is not a whole safetensors file" in refused(run("info", "cut.safetensors"))


@pytest.fixture
def module(monkeypatch):
    """module("minild.name", function=...): a stand-in that records the calls of its functions."""

    def stand_in(name, **functions):
        calls = []

        def recording(function):
            def call(*arguments, **settings):
                calls.append((arguments, settings))
                return function(*arguments, **settings)

            return call

        module = types.ModuleType(name)
        for key, function in functions.items():
            setattr(module, key, recording(function))
        monkeypatch.setitem(sys.modules, name, module)
        package, _, attribute = name.rpartition(".")
        monkeypatch.setattr(sys.modules[package], attribute, module, raising=False)
        return calls

    return stand_in


def test_train_hands_its_options_on(run, module, tmp_path):
    from pathlib import Path

    calls = module("minild.training", train=lambda *arguments, **settings: None)
    assert run("train", "shapes", "--output", "out", "--minutes", 1.5, "--seed", 4, "--resume") == (0, "out\n", "")
    settings = {"minutes": 1.5, "steps": None, "seed": 4, "device": "cpu", "resume": True, "size": 32}
    assert calls == [(("shapes", Path("out")), settings)]
    run("train", "emoji", "--output", "out", "--steps", 9, "--size", 64)
    assert calls[1][1] == {"minutes": None, "steps": 9, "seed": 0, "device": "cpu", "resume": False, "size": 64}
    assert "not allowed with argument" in refused(run("train", "emoji", "--output", "o", "--steps", 9, "--minutes", 1))
    assert "--output" in refused(run("train", "emoji"))
    assert "--minutes must be more than 0" in refused(run("train", "emoji", "--output", "o", "--minutes", 0))
    assert "--minutes: expected a number from 0" in refused(run("train", "emoji", "--output", "o", "--minutes", "nan"))
    assert len(calls) == 2


def test_evaluate_measures_on_the_dataset_of_the_record(run, module, model, tmp_path):
    importlib.import_module("minild.data.pictures")  # before its package has a stand-in
    figures = {"PSNR": 23.5, "accuracy": 0.75}
    evaluations = module(
        "minild.evaluation", evaluate=lambda *a, **k: figures, format_report=lambda f: f"report of {f['PSNR']}"
    )
    loads = module("minild.data", load=lambda name, split, size: (name, split, size))
    assert run("evaluate", "MODEL", "--count", 5, "--seed", 2, "--json", "f.json") == (0, "report of 23.5\n", "")
    assert [call[1] for call in loads] == [{"split": "train", "size": 8}, {"split": "test", "size": 8}]
    (pipeline, train, test, *chosen), settings = evaluations[0]
    assert pipeline.record == tiny_pipeline.RECORD
    assert (train, test) == (("shapes", "train", 8), ("shapes", "test", 8))
    assert chosen == [5, 2, 50, None] and settings == {"progress": True}
    assert json.loads((tmp_path / "f.json").read_text()) == figures
    run("evaluate", "MODEL", "--dataset", "emoji", "--steps", 20, "--guidance", 2.5)
    assert evaluations[2][0][1] == ("emoji", "train", 8) and evaluations[2][0][3:] == (None, 0, 20, 2.5)
    assert "cannot write no/f.json" in refused(run("evaluate", "MODEL", "--json", "no/f.json"))
    tiny_pipeline.make().save_pretrained(tmp_path / "untold")
    assert "does not say what it was trained on" in refused(run("evaluate", "untold"))


def test_what_the_system_refuses_is_one_line(run, model, tmp_path):
    long_name = "a" * 300 + ".png"
    assert "too long" in refused(run("txt2img", RED, "--model", model, "--steps", 1, "--output", long_name))
    assert "are too many" in refused(run("txt2img", RED, "--model", model, "--count", 10**11))
    (tmp_path / "header.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{((((((((((((((\n")
    said = refused(run("txt2img", RED, "--model", model, "--latents", tmp_path / "header.npy"))
    assert "header.npy is no .npy file of numbers" in said


def test_help_and_mistakes_in_the_command_itself(run, capsys):
    for command in ([], ["txt2img"], ["train"], ["evaluate"], ["info"]):
        with pytest.raises(SystemExit) as caught:
            cli.main([*command, "--help"])
        assert caught.value.code == 0
        assert capsys.readouterr().out.startswith("usage: minild")
    assert "required: command" in refused(run())
    assert "invalid choice: 'paint'" in refused(run("paint"))
    assert "required: PROMPT" in refused(run("txt2img"))


def test_help_imports_no_array_module():
    program = "import sys, minild.cli; minild.cli._parser(); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.fixture
def shell(tmp_path):
    """shell(command) -> (status, stdout, stderr) of bash, in which $MINILD is the command."""

    def call(command):
        environment = {**os.environ, "MINILD": f"{sys.executable} -m minild"}
        environment.pop("PYTHONUNBUFFERED", None)
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.mark.skipif(os.name != "posix", reason="of pipes and devices")
def test_a_stdout_that_takes_nothing(shell, model):
    for arguments in ("--help", f"info {model}"):
        # the reader has gone before the writer begins
        assert shell(f"{{ sleep 0.2; $MINILD {arguments}; echo $? >&2; }} | true") == (0, "", "141\n")
    if os.path.exists("/dev/full"):
        for arguments in ("--help", f"info {model}"):
            said = refused(shell(f"$MINILD {arguments} >/dev/full"))
            assert said == "minild: cannot write to stdout: No space left on device\n"
    said = refused(shell(f"PYTHONIOENCODING=latin-1 $MINILD txt2img 赤い --model {model} --steps 1"))
    assert said == "minild: done, but stdout, in latin-1, has no '\\u8d64\\u3044': set PYTHONIOENCODING=utf-8\n"


def test_python_m_minild_is_the_command(model, tmp_path):
    command = [sys.executable, "-m", "minild", "txt2img", RED, "--model", str(model), "--steps", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("minild: argument --steps: ") and done.stderr.count("\n") == 1
