"""A whole training whose first stage has a codebook: its folder, a resume, and what is refused."""

import dataclasses
import itertools
import json
import signal

import numpy as np
import pytest
from refusal import refused
from safetensors.numpy import load_file

from minild import checkpoints, cli, training
from minild.data.pictures import gather, to_signed
from minild.data.shapes import Shapes
from minild.errors import UserError
from minild.evaluation import rebuild
from minild.models import VQModel
from minild.pipelines import load
from minild.pipelines.info import describe
from minild.training import run, stage
from minild.training.codebook import VQObjective
from minild.training.presets import PRESETS, StagePreset

KL = dataclasses.replace(
    PRESETS["shapes"],
    autoencoder=StagePreset(learning_rate=3e-3, batch_size=8),
    diffusion=StagePreset(learning_rate=1e-3, batch_size=8),
    channels=(8, 8, 16),
    unet_channels=(16, 16),
    text_width=32,
    text_layers=1,
    pictures=64,
    codebook_size=40,
    code_width=3,
)
VQ = dataclasses.replace(KL, regularisation="vq")
STEPS = 12


@pytest.fixture(scope="module", autouse=True)
def small_sheets():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "SHEETS", 1)
        patch.setattr(run, "SAMPLES", 2)
        patch.setattr(run, "preset_for", lambda dataset: KL)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing interrupted."""
    output = tmp_path_factory.mktemp("whole") / "run"
    training.train("shapes", output, steps=STEPS, seed=4, preset=VQ)
    return output


def read(output, name):
    return json.loads((output / name).read_text())


def require_same_weights(output, expected):
    names = "vae/diffusion_pytorch_model", "unet/diffusion_pytorch_model"
    pairs = {name: [load_file(folder / f"{name}.safetensors") for folder in (output, expected)] for name in names}
    pairs["saved"] = [checkpoints.newest(folder).read_arrays() for folder in (output, expected)]
    for name, (ours, theirs) in pairs.items():
        assert ours.keys() == theirs.keys()
        for key, array in ours.items():
            assert np.array_equal(array, theirs[key]), (name, key)


def test_the_folder_holds_a_vqmodel_and_a_unet_for_its_codes_width(whole):
    assert read(whole, "model_index.json")["vae"] == ["diffusers", "VQModel"]
    config = read(whole, "vae/config.json")
    assert (config["num_vq_embeddings"], config["vq_embed_dim"], config["latent_channels"]) == (40, 3, 4)
    pipe = load(whole)
    assert isinstance(pipe.vae, VQModel) and pipe.unet.config["in_channels"] == pipe.unet.config["out_channels"] == 3
    assert pipe.text_to_image("a red circle", steps=2).shape == (1, 32, 32, 3)
    assert pipe.record["command"].endswith(f"--seed 4 --regularisation vq --output {whole}")
    told = "\n".join(describe(whole))
    assert "VQModel, " in told and "latents 8 x 8 x 3, f = 4, quantised to 40 codes" in told


def test_stage_two_sees_latents_of_unit_variance_before_the_quantiser(whole):
    pictures, _ = gather(Shapes(), 64)
    vae = load(whole).vae
    z = vae.encode(to_signed(pictures))
    assert z.std() * vae.config["scaling_factor"] == pytest.approx(1, rel=1e-3)
    codebook = vae.quantize.embedding.weight.data
    assert np.abs(z[..., None, :] - codebook).max(axis=-1).min() > 0  # none is a code
    np.testing.assert_array_equal(rebuild(vae, pictures[:2]), np.clip(vae.decode(z[:2]) / 2 + 0.5, 0, 1))


def test_the_metrics_tell_of_the_codes_in_stage_one_alone(whole):
    first, second = (json.loads(line) for line in (whole / "training" / "metrics.jsonl").read_text().splitlines())
    told = {"codebook_use", "perplexity", "codebook_collapsed", "quantizer"}
    assert first["stage"] == "autoencoder" and told <= first.keys() and not told & second.keys()
    assert 0 < first["codebook_use"] <= 1 <= first["perplexity"] <= 40 and first["codebook_collapsed"] == 0


@pytest.mark.parametrize("step", [1, 5, STEPS])
def test_an_interrupted_training_resumes_bit_for_bit(step, whole, tmp_path, monkeypatch):
    batch, calls = VQObjective.batch, itertools.count(1)

    def interrupted(*arguments):
        if next(calls) == step:
            signal.raise_signal(signal.SIGINT)
        return batch(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(VQObjective, "batch", interrupted)
        training.train("shapes", tmp_path, steps=STEPS, seed=4, preset=VQ)
    assert checkpoints.newest(tmp_path).state["taken"]["autoencoder"] == step
    training.train("shapes", tmp_path, resume=True)  # the data set's preset is kl
    require_same_weights(tmp_path, whole)


def test_codes_by_gradient_train_too(tmp_path, whole):
    training.train("shapes", tmp_path, steps=3, seed=4, preset=dataclasses.replace(VQ, codebook_moves=False))
    assert isinstance(load(tmp_path).vae, VQModel)
    saved = [checkpoints.newest(folder).read_arrays().keys() for folder in (tmp_path, whole)]
    assert saved[0] == saved[1]  # stage two's


def test_the_state_of_stage_one_holds_what_the_codes_are_moved_by(tmp_path, monkeypatch):
    monkeypatch.setattr(run.Run, "train_diffusion", lambda self: None)
    monkeypatch.setattr(run, "plot_losses", lambda *paths: None)
    for moves, more in ((True, {"tracker.counts", "tracker.sums"}), (False, set())):
        preset = dataclasses.replace(VQ, codebook_moves=moves)
        training.train("shapes", tmp_path / str(moves), steps=2, preset=preset)
        saved = tmp_path / str(moves) / "training" / "checkpoint-autoencoder-000002"
        state = load_file(saved / "state.safetensors")
        tracker = {name for name in state if name.startswith("tracker.")}
        assert tracker == {"tracker.shares", "tracker.idle", "tracker.steps"} | more


def test_the_command_takes_a_regularisation_and_resumes_with_its_own(tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["train", "shapes", "--output", str(out), "--steps", "2", "--regularisation", "vq"]) == 0
    assert isinstance(load(out).vae, VQModel) and capsys.readouterr().out == f"{out}\n"
    assert cli.main(["train", "shapes", "--output", str(out), "--steps", "3", "--resume"]) == 0
    assert load(out).record["stages"]["diffusion"]["steps"] == 3
    capsys.readouterr()

    def refusal(*arguments):
        return refused((cli.main(["train", *arguments]), *capsys.readouterr()))

    said = refusal("shapes", "--output", str(out), "--steps", "4", "--resume", "--regularisation", "kl")
    assert said == f"minild: {out} is a training with regularisation vq, not kl: leave --regularisation out\n"
    said = refusal("perceptual", "--output", str(tmp_path / "new"), "--steps", "1", "--regularisation", "vq")
    assert "--regularisation is not for perceptual" in said
    with pytest.raises(UserError, match="unknown regularisation 'l2': use one of kl, vq"):
        training.train("shapes", tmp_path / "new", steps=1, regularisation="l2")
    assert not (tmp_path / "new").exists()


def test_a_training_from_before_there_was_a_choice_resumes_with_kl(tmp_path):
    training.train("shapes", tmp_path, steps=2)
    saved = checkpoints.newest(tmp_path)
    assert saved.state.pop("choices")["regularisation"] == "kl"
    checkpoints.write(tmp_path, saved.state, saved.read_arrays())
    training.train("shapes", tmp_path, steps=3, resume=True)
    assert "--regularisation" not in load(tmp_path).record["command"]
