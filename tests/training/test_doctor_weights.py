"""What the weights in a folder say: of tiny trainings that were made to fail, each in its way, and of a good one."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from minild import checkpoints, training
from minild.data.location import data_path
from minild.durable import MOVING
from minild.errors import UserError
from minild.training import doctor, run, stage
from minild.training.doctor import examine
from minild.training.doctor_finding import WELL
from minild.training.doctor_record import read_training
from minild.training.doctor_weights import LOUD, look_at
from minild.training.presets import PRESETS, StagePreset

SIZE = 16
PRESET = dataclasses.replace(
    PRESETS["emoji"],
    autoencoder=StagePreset(learning_rate=5e-3, batch_size=4),
    diffusion=StagePreset(learning_rate=5e-3, batch_size=8),
    channels=(8, 16),
    latent_channels=2,
    unet_channels=(16, 16),
    text_width=16,
    text_layers=1,
    size=SIZE,
)
RED, BLUE = (200, 40, 30), (30, 60, 200)


def draw_set(folder, caption):
    """Sixteen pictures, red and blue in turns, with a little noise; caption(i) -> that of picture i."""
    rng, lines = np.random.default_rng(0), []
    folder.mkdir()
    for i in range(16):
        picture = np.array((RED, BLUE)[i % 2]) + rng.normal(0, 6, (SIZE, SIZE, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{i:02}.png")
        lines.append(json.dumps({"file_name": f"{i:02}.png", "text": caption(i)}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def quick():
    """Sheets are few, and a training of so few steps is held to what it should show of captions, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "SHEETS", 1)
        patch.setattr(run, "SAMPLES", 2)
        patch.setattr(doctor, "LISTENS_BY", 50)
        yield


@pytest.fixture(scope="module")
def right(tmp_path_factory, quick):
    """A training whose captions say what is on the pictures."""
    folder = tmp_path_factory.mktemp("right")
    pictures = draw_set(folder / "pictures", lambda i: ("red", "blue")[i % 2])
    training.train(str(pictures), folder / "run", steps=120, preset=PRESET)
    return folder / "run"


def train_on(folder, right, caption, steps, **changes):
    """Stage two alone, on the autoencoder of `right`."""
    pictures, preset = draw_set(folder / "pictures", caption), dataclasses.replace(PRESET, **changes)
    training.train(str(pictures), folder / "run", steps=steps, preset=preset, first_stage=str(right))
    return folder / "run"


def found(folder):
    return {finding.name: finding for finding in examine(folder)}


def edited(right, folder, name, **changes):
    """A copy of the training `right`, a JSON file of which has other values."""
    shutil.copytree(right, folder)
    values = json.loads((folder / name).read_text()) | changes
    (folder / name).write_text(json.dumps(values))
    return folder


@pytest.mark.slow
def test_captions_that_say_what_is_shown_are_followed_and_others_are_not(right, tmp_path):
    assert "captions ignored" not in found(right)
    wrong = train_on(tmp_path, right, lambda i: ("red", "blue")[i // 2 % 2], 120)
    finding = found(wrong)["captions ignored"]
    assert "of the noise the U-Net's loss is 0." in finding.seen and "belong to their pictures" in finding.advice
    losses = [look_at(read_training(folder))[0].losses for folder in (right, wrong)]
    assert losses[0].others > 1.02 * losses[0].true and losses[1].others == pytest.approx(losses[1].true, rel=0.01)


def test_the_preset_that_was_given_is_known_and_has_no_curve(right):
    record = read_training(right)
    assert record.preset.diffusion == PRESET.diffusion and record.preset.unet_channels == (16, 16)
    assert "unet_channels is [16, 16]" in found(right)["no curve to compare with"].seen


@pytest.mark.slow
def test_captions_that_are_all_the_same_cannot_be_followed(right, tmp_path):
    same = train_on(tmp_path, right, lambda i: "a picture", 60)
    assert "are the same" in found(same)["captions ignored"].seen


def test_a_blurred_autoencoder_is_told_with_its_figures(right):
    finding = found(right)["autoencoder too blurred"]
    look, _ = look_at(read_training(right))
    assert 15 < look.psnr < 25 and f"at {look.psnr:.1f} dB, SSIM {look.ssim:.2f}" in finding.seen
    assert "one like it reached 33.1 dB in 9,162 steps" in finding.seen  # of the emoji: as many numbers a latent
    assert "which took 120" in finding.advice


@pytest.mark.slow
def test_the_scaling_factor_of_another_model_is_told(right, tmp_path):
    assert "latents badly scaled" not in found(right)
    foreign = edited(right, tmp_path / "run", "vae/config.json", scaling_factor=0.18215)
    finding = found(foreign)["latents badly scaled"]
    deviation = look_at(read_training(right))[0].deviation
    assert f"deviation is {deviation:.3g}, with the scaling_factor 0.182" in finding.seen
    assert f"set scaling_factor to {1 / deviation:.3g}" in finding.advice


@pytest.mark.slow
def test_a_moving_average_that_does_not_follow_is_told(right, tmp_path, monkeypatch):
    """As with a decay of 0.9999 that has no warm-up."""
    assert "moving average behind" not in found(right)

    def update(self):
        self.average += 1e-4 * (self.weights - self.average)

    monkeypatch.setattr(training.ExponentialMovingAverage, "update", update)
    late = train_on(tmp_path, right, lambda i: ("red", "blue")[i % 2], 60)
    finding = found(late)["moving average behind"]
    lag = look_at(read_training(late))[0].lag
    assert lag.average > 0.9 > 2 * lag.weights and f"the loss {lag.weights:.3g}" in finding.seen


@pytest.mark.slow
def test_pictures_that_are_known_by_heart_are_told(right, tmp_path):
    """Two pictures of noise, which have nothing in common with the others."""
    rng, lines = np.random.default_rng(0), []
    for split, count in (("train", 2), ("test", 8)):
        (tmp_path / "pictures" / split).mkdir(parents=True)
        for i in range(count):
            picture = np.kron(rng.integers(256, size=(4, 4, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))
            Image.fromarray(picture).save(tmp_path / "pictures" / split / f"{i}.png")
            lines.append(json.dumps({"file_name": f"{split}/{i}.png", "text": ("red", "blue")[i % 2]}))
    (tmp_path / "pictures" / "metadata.jsonl").write_text("\n".join(lines))
    training.train(str(tmp_path / "pictures"), tmp_path / "run", steps=150, preset=PRESET, first_stage=str(right))
    finding = found(tmp_path / "run")["pictures memorised"]
    look, _ = look_at(read_training(tmp_path / "run"))
    assert look.unseen > 1.5 * look.losses.mean and f"{look.unseen:.3g} on pictures of the test" in finding.seen
    assert look_at(read_training(right))[0].unseen is None  # its test is its training


def test_what_cannot_be_measured_is_told_and_the_rest_is(right, tmp_path):
    lost = shutil.copytree(right, tmp_path / "run")
    saved = checkpoints.newest(lost)
    checkpoints.write(lost, saved.state | {"dataset": str(tmp_path / "gone")}, saved.read_arrays())
    finding = found(lost)["not measured"]
    assert f"no data set '{tmp_path / 'gone'}'" in finding.seen and "autoencoder too blurred" not in found(lost)
    cut = shutil.copytree(right, tmp_path / "cut")
    weights = cut / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:999])
    assert "is not a whole safetensors file" in found(cut)["not measured"].seen


@pytest.fixture
def shipped(tmp_path):
    """The shapes' shipped pipeline, of whose training nothing else is left."""
    return shutil.copytree(data_path("pretrained", "shapes"), tmp_path / "shapes")


def test_the_shipped_shapes_are_well(shipped):
    before = {path: path.read_bytes() for path in shipped.rglob("*") if path.is_file()}
    [finding] = examine(shipped)
    assert finding.name == WELL and finding.advice == f'draw: minild txt2img "..." --model {shipped}'
    assert finding.seen.startswith("5,000 steps of stage two are done; the autoencoder rebuilds pictures at 38.")
    assert {path: path.read_bytes() for path in shipped.rglob("*") if path.is_file()} == before


def test_a_save_in_the_move_is_left_to_the_training(shipped):
    """As a kill leaves it: pipelines.load would mend it, which writes."""
    moving = shipped / MOVING / "scheduler"
    moving.mkdir(parents=True)
    shutil.copy(shipped / "scheduler" / "scheduler_config.json", moving)
    examine(shipped)
    assert (moving / "scheduler_config.json").is_file()


@pytest.mark.slow
def test_guidance_that_burns_the_colours_out_is_told(shipped):
    record = json.loads((shipped / "minild.json").read_text())
    (shipped / "minild.json").write_text(json.dumps(record | {"guidance_scale": 30.0}))
    [finding] = examine(shipped)
    assert finding.name == "guidance too strong" and "with guidance 30," in finding.seen
    drawn = look_at(read_training(shipped))[0].drawn
    assert drawn.guided > LOUD > 1.1 > drawn.unguided > 0.9
    assert finding.advice.startswith("draw with less: --guidance 10.7")


@pytest.mark.parametrize("changes", [{"stages": None}, {"size": "large"}, {"dataset": 3}])
def test_a_record_that_makes_no_sense_is_refused(shipped, changes):
    record = json.loads((shipped / "minild.json").read_text())
    (shipped / "minild.json").write_text(json.dumps(record | changes))
    with pytest.raises(UserError, match=r"minild\.json"):
        read_training(shipped)


def test_a_model_that_classes_lead_is_looked_at_too(right, tmp_path):
    led = train_on(tmp_path, right, lambda i: ("red", "blue")[i // 2 % 2], 60, condition="class")
    assert "with the true classes" in found(led)["classes ignored"].seen
