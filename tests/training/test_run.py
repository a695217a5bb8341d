"""Whole trainings of a tiny preset: the folder they write, what a resume goes on with, and mistakes refused at once."""

import contextlib
import dataclasses
import datetime
import itertools
import json
import shutil
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from minild import backend, checkpoints, cli, pretrained, training
from minild.data.pictures import gather, to_signed
from minild.data.shapes import Shapes
from minild.errors import UserError
from minild.pipelines import load
from minild.pipelines.folder import find_folder
from minild.pipelines.info import describe
from minild.training import budget, first_stage, replicas, run, stage
from minild.training.autoencoder import AutoencoderObjective
from minild.training.flat import flatten
from minild.training.latent_diffusion import Denoiser, DiffusionObjective
from minild.training.leads import fit_tokenizer
from minild.training.presets import PRESETS, StagePreset
from minild.training.state import STAGES, what_is_saved

PRESET = dataclasses.replace(
    PRESETS["shapes"],
    autoencoder=StagePreset(learning_rate=3e-3, batch_size=8),
    diffusion=StagePreset(learning_rate=1e-3, batch_size=8),
    channels=(8, 8, 16),
    latent_channels=4,
    unet_channels=(16, 16),
    text_width=32,
    text_layers=1,
    pictures=64,
)
STEPS = 12
OBJECTIVES = {"autoencoder": AutoencoderObjective, "diffusion": DiffusionObjective}
WEIGHTS = [
    "vae/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
]


@pytest.fixture(scope="module", autouse=True)
def small_sheets():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "SHEETS", 2)
        patch.setattr(run, "SAMPLES", 3)
        patch.setattr(run, "preset_for", lambda dataset: PRESET)
        yield


def train(output, dataset="shapes", steps=STEPS, **settings):
    training.train(dataset, output, steps=steps, seed=4, **settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing interrupted."""
    output = tmp_path_factory.mktemp("whole") / "new" / "run"
    train(output)
    return output


def read(output, name):
    return json.loads((output / name).read_text())


def tree(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def state_of(output):
    return checkpoints.newest(output).state


def arrays_of(output):
    return checkpoints.newest(output).read_arrays()


def require_same_weights(output, expected):
    pairs = {name: (load_file(output / name), load_file(expected / name)) for name in WEIGHTS}
    for name, (ours, theirs) in (pairs | {"saved": (arrays_of(output), arrays_of(expected))}).items():
        assert ours.keys() == theirs.keys()
        for key, array in ours.items():
            assert np.array_equal(array, theirs[key]), (name, key)
    for name in ("vae/config.json", "unet/config.json", "text_encoder/config.json", "tokenizer/vocab.json"):
        assert read(output, name) == read(expected, name)


def require_averaged(output):
    """The pipeline in the folder has the moving averages for weights."""
    pipeline, state = load(output), arrays_of(output)
    weights = flatten(Denoiser(pipeline.unet, pipeline.text_encoder), "data").array
    assert np.array_equal(weights, state["ema.average"])
    return state


def interrupt():
    signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def interrupt_at(name, step):
    """Ctrl-C comes within that step of that stage, and comes out of it."""
    batch, calls = OBJECTIVES[name].batch, itertools.count(1)

    def interrupted(*arguments):
        if next(calls) == step:
            interrupt()
        return batch(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OBJECTIVES[name], "batch", interrupted)
        yield


def test_a_training_writes_a_pipeline_that_opens_and_draws(whole):
    pipeline = load(whole)
    pictures = pipeline.text_to_image("a red circle above a blue square on a white background", steps=2)
    assert pictures.shape == (1, 32, 32, 3) and pictures.std() > 0
    assert pipeline.unet.config["block_out_channels"] == [16, 16]
    assert pipeline.schedule.train_steps == 1000
    ids = pipeline.tokenizer.encode(["a red circle above a blue square on a white background"])[0]
    assert np.sum(ids != pipeline.tokenizer.eos_token_id) == 12  # each word of the captions became one token
    state = require_averaged(whole)
    assert not np.array_equal(state["ema.average"], state["weights"])


def test_any_multiple_of_f_can_be_trained_on(tmp_path):
    """f = 8, and four levels of a U-Net that have 5 x 5, 3 x 3, 2 x 2 positions and one."""
    for name, colour in (("red", "red"), ("blue", "blue")):
        (tmp_path / "mine" / name).mkdir(parents=True)
        Image.new("RGB", (40, 50), colour).save(tmp_path / "mine" / name / "0.png")
    deep = dataclasses.replace(
        PRESET, channels=(8, 8, 8, 16), unet_channels=(16,) * 4, attends=(True, True, True, False)
    )
    train(tmp_path / "out", tmp_path / "mine", steps=2, size=40, preset=deep)
    pipeline = load(tmp_path / "out")
    assert pipeline.default_size == (40, 40) and pipeline.unet.config["sample_size"] == 5
    assert pipeline.text_to_image("red", steps=2).shape == (1, 40, 40, 3)
    assert pipeline.text_to_image("red", steps=2, size=(72, 8)).shape == (1, 72, 8, 3)
    with pytest.raises(UserError, match="size 36 is not divisible by 8: use a multiple of 8 pixels"):
        train(tmp_path / "other", tmp_path / "mine", steps=2, size=36, preset=deep)


def test_the_record_tells_how_it_was_trained(whole):
    record = read(whole, "minild.json")
    seconds = [record["stages"][name].pop("seconds") for name in OBJECTIVES]
    assert all(0 < s < 60 for s in seconds)
    assert abs(datetime.date.fromisoformat(record.pop("date")) - datetime.date.today()).days <= 1
    assert record == {
        "dataset": "shapes",
        "size": 32,
        "seed": 4,
        "command": f"minild train shapes --steps 12 --size 32 --seed 4 --output {whole}",
        "guidance_scale": PRESET.guidance_scale,
        "posterior": "mode",
        "pictures": 64,
        "stages": {"autoencoder": {"steps": 12}, "diffusion": {"steps": 12}},
    }


def test_latents_have_unit_variance(whole):
    pictures, _ = gather(Shapes(), 64)
    vae = load(whole).vae
    posterior = vae.encode(to_signed(pictures))
    assert posterior.mean.std() * vae.config["scaling_factor"] == pytest.approx(1, rel=1e-4)  # the preset's mode
    assert posterior.logvar.mean() < -3  # it began narrow


def test_beside_the_pipeline_lie_state_metrics_sheets_and_plot(whole):
    folder = whole / "training"
    sheets = [f"{name}-{step:06d}.png" for name in OBJECTIVES for step in (6, 12)]
    saves = "checkpoint-diffusion-000000", "checkpoint-diffusion-000012"
    assert {path.name for path in folder.iterdir()} == {*saves, "lock", "metrics.jsonl", "loss.png", *sheets}
    for name in saves:
        assert {path.name for path in (folder / name).iterdir()} == {"state.json", "state.safetensors"}
    state = state_of(whole)
    assert state["stage"] == "diffusion" and state["taken"] == {"autoencoder": 12, "diffusion": 12}
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in metrics] == [("autoencoder", 10), ("diffusion", 10)]
    assert 0.1 < metrics[0]["loss"] < 5 and 0.5 < metrics[1]["loss"] < 2
    for sheet in sheets:
        with Image.open(folder / sheet) as image:
            assert np.asarray(image).std() > 10
    with Image.open(folder / "autoencoder-000006.png") as image:
        tile = np.asarray(image)[4:100, 4:100].reshape(32, 3, 32, 3, 3)[:, 1, :, 1]
    assert np.array_equal(tile, Shapes("test")[0][0])  # the sheets show pictures that are not trained on


@pytest.mark.parametrize("name, step", [("autoencoder", 5), ("autoencoder", 12), ("diffusion", 1), ("diffusion", 7)])
def test_an_interrupted_training_resumes_bit_for_bit(name, step, whole, tmp_path):
    with interrupt_at(name, step), pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    state = state_of(tmp_path)
    assert state["stage"] == name and state["taken"][name] == step
    assert (tmp_path / "model_index.json").exists() == (name == "diffusion")
    if name == "diffusion":
        require_averaged(tmp_path)
        assert read(tmp_path, "minild.json")["stages"]["diffusion"]["steps"] == step
    train(tmp_path, steps=None, resume=True)
    require_same_weights(tmp_path, whole)
    assert state_of(tmp_path)["generator"] == state_of(whole)["generator"]
    assert not list(tmp_path.rglob("*.partial"))


def test_an_interrupt_while_a_sheet_is_drawn_loses_nothing(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(first_stage, "draw_sheet", lambda *arguments, **settings: interrupt())
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert state_of(tmp_path)["taken"]["autoencoder"] == 6
    train(tmp_path, resume=True)
    require_same_weights(tmp_path, whole)


def test_a_completed_training_resumes_to_itself_or_further(whole, tmp_path):
    train(tmp_path)
    train(tmp_path, steps=None, resume=True)
    require_same_weights(tmp_path, whole)
    train(tmp_path, steps=14, resume=True)
    record = read(tmp_path, "minild.json")
    assert [record["stages"][name]["steps"] for name in OBJECTIVES] == [12, 14]
    assert "--steps 14" in record["command"]
    vae, unet = WEIGHTS[:2]
    assert (tmp_path / vae).read_bytes() == (whole / vae).read_bytes()
    ours, theirs = load_file(tmp_path / unet), load_file(whole / unet)
    assert any(not np.array_equal(ours[key], theirs[key]) for key in ours)


def test_minutes_are_shared_between_the_stages(tmp_path, monkeypatch):
    """By a clock that ticks a second at each look."""
    ticks = itertools.count()
    for module in (budget, run):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    training.train("shapes", tmp_path, minutes=1.5, preset=dataclasses.replace(PRESET, autoencoder_share=0.4))
    record = read(tmp_path, "minild.json")
    first, second = (record["stages"][name]["seconds"] for name in OBJECTIVES)
    assert 36 <= first < 45  # the step that crosses the line is finished, and the sheet drawn
    assert 90 <= first + second < 100
    assert record["command"] == f"minild train shapes --minutes 1.5 --size 32 --seed 0 --output {tmp_path}"


def test_a_preset_counts_steps_and_minutes_shorten_them(tmp_path, monkeypatch, capsys):
    ticks = itertools.count()
    for module in (budget, run):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 10))
    stages = {name: dataclasses.replace(getattr(PRESET, name), steps=24) for name in OBJECTIVES}
    preset = dataclasses.replace(PRESET, **stages, autoencoder_share=0.5)
    for folder, given in (("own", {}), ("long", {"minutes": 900.0})):
        training.train("shapes", tmp_path / folder, preset=preset, **given)
        record = read(tmp_path / folder, "minild.json")
        assert [record["stages"][name]["steps"] for name in OBJECTIVES] == [24, 24]
        assert ("--minutes 900" in record["command"]) == bool(given) and "--steps" not in record["command"]
        assert capsys.readouterr().err.count("on this machine") == 1
    training.train("shapes", tmp_path / "short", 0.2, preset=preset)
    taken = [read(tmp_path / "short", "minild.json")["stages"][name]["steps"] for name in OBJECTIVES]
    assert all(1 <= steps < 24 for steps in taken)


def test_a_preset_without_steps_needs_an_end(tmp_path):
    with pytest.raises(UserError, match="the preset does not say how many steps to take: give minutes or steps"):
        training.train("shapes", tmp_path / "new", preset=PRESET)
    assert not (tmp_path / "new").exists()


def test_a_training_on_a_device_is_the_hosts(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(run.Run, "_draw_samples", lambda self, path: None)  # slow on the double
    monkeypatch.setattr(replicas, "core_count", lambda: 1)  # threads of BLAS, which hinder the rest of a busy machine
    train(tmp_path, device="double")
    ours, theirs = (
        [json.loads(line) for line in (folder / "training" / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path, whole)
    )
    for a, b in zip(ours, theirs, strict=True):
        for name in ("loss", "gradient_norm"):
            assert a[name] == pytest.approx(b[name], rel=1e-3)
    assert read(tmp_path, "vae/config.json")["scaling_factor"] == pytest.approx(
        read(whole, "vae/config.json")["scaling_factor"], rel=1e-3
    )


def test_the_context_is_as_long_as_the_captions_need():
    short = fit_tokenizer(["a cat", "a dog and a cat"])
    assert short.max_length == 8 and short.dropped("a dog and a cat") == ""
    assert fit_tokenizer(["a dog and a cat in a box"]).max_length == 16
    assert fit_tokenizer(["word " * 200]).max_length == 77


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """command("shapes", ...) -> (status, stdout, stderr) of `minild train`, in the empty folder tmp_path / "here"."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*arguments):
        status = cli.main(["train", *map(str, arguments)])
        return status, *capsys.readouterr()

    return call


def test_the_command_trains_on_a_folder_stops_and_resumes(command, tmp_path):
    folder = tmp_path / "mine"
    for name, colour in (("a_red-tile", "red"), ("a_blue-tile", "blue")):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (40, 50), colour).save(folder / name / "0.png")
    (folder / "prompts.csv").touch()
    with interrupt_at("diffusion", 1):
        status, out, err = command(folder, "--output", "out", "--steps", 2, "--seed", 7)
    assert (status, out) == (130, "")
    saved = "saved in out are the steps 2 of autoencoder and 1 of diffusion: add --resume to go on"
    assert err.splitlines()[-1] == f"minild: stopped; {saved}"
    examples = "'a blue tile' for a_blue-tile/0.png, 'a red tile' for a_red-tile/0.png"
    assert err.splitlines()[0] == f"minild: captions come from the names of folders: {examples}"
    assert err.splitlines()[1].startswith("minild: 1 passed over (captions are read from metadata.csv,")
    status, out, _ = command(folder, "--output", "out", "--resume")
    assert (status, out) == (0, "out\n")
    record = load("out").record
    assert record["dataset"] == str(folder) and record["seed"] == 7 and record["pictures"] == 2
    assert record["command"] == f"minild train {folder} --steps 2 --size 32 --seed 7 --output out"


@pytest.mark.parametrize("begun, words", [(False, "nothing was saved: give"), (True, "nothing was saved in out yet")])
def test_an_interrupt_before_anything_was_saved(command, monkeypatch, begun, words):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run.Run, "train_autoencoder" if begun else "__init__", stop)
        status, out, err = command("shapes", "--output", "out", "--steps", 2)
    assert (status, out) == (130, "") and f"minild: stopped; {words}" in err
    if begun:
        assert what_is_saved("out") in err
        assert command("shapes", "--output", "out", "--resume")[:2] == (0, "out\n")


def test_info_on_a_training_that_wrote_no_pipeline_yet(tmp_path):
    with interrupt_at("autoencoder", 5), pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    lines = describe(tmp_path)
    assert lines[0].startswith(f"folder        {tmp_path}, no pipeline yet")
    assert "trained on    shapes at 32 x 32 pixels" in lines
    assert any(line.startswith("stage         autoencoder: 5 steps in") for line in lines)
    assert lines[-1] == f"to go on      minild train shapes --output {tmp_path} --resume"
    with pytest.raises(UserError, match=rf"is a training without a pipeline yet: .*`minild info {tmp_path}` says how"):
        find_folder(tmp_path)


@pytest.mark.parametrize(
    "full, function, words",
    [
        (OSError(28, "No space left on device"), "write_json", "No space left on device"),
        (OSError("I/O error: File too large"), "write_weights", "I/O error: File too large"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_the_state_before(
    command, whole, tmp_path, monkeypatch, full, function, words
):
    with interrupt_at("autoencoder", 5):
        command("shapes", "--output", "out", "--steps", STEPS, "--seed", 4)
    before = tree(tmp_path / "here" / "out" / "training")

    def write(path, value):
        path.write_text("half")
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(pretrained, function, write)
        status, out, err = command("shapes", "--output", "out", "--resume")
    assert (status, out) == (2, "") and "Traceback" not in err
    saved = "saved in out are the steps 5 of autoencoder and 0 of diffusion: add --resume to go on"
    assert err.splitlines()[-1] == f"minild: cannot write to out: {words}; {saved}"
    after = tree(tmp_path / "here" / "out" / "training")
    saves = [{name: x for name, x in files.items() if "checkpoint" in name} for files in (before, after)]
    assert saves[0] == saves[1] and len(saves[0]) == 6  # of steps 0 and 5
    command("shapes", "--output", "out", "--resume")
    require_same_weights(tmp_path / "here" / "out", whole)


def mistakes(whole):
    """(arguments of `minild train`, a part of the line that refuses them), in a folder that has a file `file`."""
    new = ["--output", "out", "--steps", 1]
    return {
        "unknown data set": (["shape", *new], "no data set 'shape'"),
        "a file as data set": (["file", *new], "no data set 'file'"),
        "a file in the way": (["shapes", "--output", "file", "--steps", 1], "cannot write to file"),
        "below a file": (["shapes", "--output", "file/out", "--steps", 1], "cannot write to file/out"),
        "output used": (["shapes", "--output", whole, "--steps", 1], f"{whole} holds a training already: add --resume"),
        "nothing to resume": (["shapes", *new, "--resume"], "out holds no training to resume"),
        "resume below a file": (["shapes", "--output", "file/out", "--resume"], "holds no training to resume"),
        "resume another": (["emoji", "--output", whole, "--resume"], "is a training on shapes, not on emoji"),
        "resume in another size": (["shapes", "--output", whole, "--resume", "--size", 64], "size 32, not 64: leave"),
        "resume another seed": (["shapes", "--output", whole, "--resume", "--seed", 5], "seed 4, not 5: leave --seed"),
        "size": (["shapes", *new, "--size", 34], "size 34 is not divisible by 4: use a multiple of 4 pixels"),
        "no size": (["shapes", *new, "--size", 0], "expected a whole number from 1"),
        "unknown device": (["shapes", *new, "--device", "tpu"], "unknown device 'tpu'"),
    }


@pytest.mark.parametrize("mistake", mistakes("..."))
def test_a_mistake_is_one_line_and_writes_nothing(command, whole, tmp_path, mistake):
    arguments, words = mistakes(whole)[mistake]
    (tmp_path / "here" / "file").write_text("kept")
    before, before_whole = tree(tmp_path), tree(whole)
    require_refusal(command(*arguments), words)
    assert tree(tmp_path) == before and tree(whole) == before_whole


def require_refusal(outcome, words):
    status, out, err = outcome
    assert (status, out) == (2, "")
    assert err.startswith("minild: ") and err.count("\n") == 1 and words in err


def test_a_pipeline_that_minild_did_not_train_is_not_overwritten(command, tmp_path):
    (tmp_path / "here" / "model_index.json").write_text("{}")
    before = tree(tmp_path)
    require_refusal(command("shapes", "--output", ".", "--steps", 1), "holds a model already")
    require_refusal(command("shapes", "--output", ".", "--resume"), "holds no training to resume")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("cupy", [None, SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))])
def test_cuda_without_a_gpu_is_refused(command, tmp_path, monkeypatch, cupy):
    monkeypatch.delitem(backend._devices, "cuda", raising=False)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    words = "no CuPy" if cupy is None else "no GPU found"
    require_refusal(command("shapes", "--output", "out", "--steps", 1, "--device", "cuda"), words)
    assert not (tmp_path / "here" / "out").exists()


def save_other(out, whole, **fields):
    """What `whole` saved last, with other fields of its state, is all that `out` holds."""
    (out / "training").mkdir(parents=True)
    checkpoints.write(out, state_of(whole) | fields, arrays_of(whole))


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"size": "32"}, "state.json: 'size' cannot be '32': begin anew"),
        ({"seed": -1}, "state.json: 'seed' cannot be -1"),
        ({"steps": 1.5}, "state.json: 'steps' cannot be 1.5"),
        ({"choices": {"colour": "red"}}, "state.json: 'choices' cannot be {'colour': 'red'}"),
        ({"choices": {"objective": "eps"}}, "unknown objective 'eps'"),
        ({"taken": {"diffusion": 12}}, "state.json: 'taken' cannot be {'diffusion': 12}"),
        ({"elapsed": dict.fromkeys(STAGES)}, "state.json: 'elapsed' cannot be"),
        ({"generator": {"bit_generator": "PCG64"}}, "its random generator's state is broken"),
    ],
)
def test_a_state_that_makes_no_sense_is_refused(command, whole, tmp_path, fields, words):
    out = tmp_path / "here" / "out"
    save_other(out, whole, **fields)
    shutil.copytree(whole / "vae", out / "vae")
    require_refusal(command("shapes", "--output", "out", "--resume"), words)


def test_models_of_another_make_are_not_resumed(whole):
    """A release with another preset, or a folder with other captions since."""
    before = tree(whole)
    wider = dataclasses.replace(PRESET, unet_channels=(16, 24))
    with pytest.raises(UserError, match="cannot be resumed, begin anew"):
        train(whole, resume=True, preset=wider)
    assert tree(whole) == before
