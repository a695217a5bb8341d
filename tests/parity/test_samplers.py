"""Every sampler against the reference's scheduler, from the same latents and, where it draws, the same noise."""

import importlib
import json

import numpy as np
import pytest
import tiny_pipeline

from minild import pipelines
from minild.diffusion import DIFFUSION_SAMPLERS as SAMPLERS
from minild.diffusion import NoiseSchedule
from minild.pipelines.scheduler_config import REFERENCES, read_scheduler, sampler_schedule, write_scheduler
from minild.random import image_generators, standard_normal
from parity.reference import StableDiffusionPipeline, channels_first, channels_last, diffusers, torch

pytestmark = [  # the reference's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*algorithm_type:FutureWarning"),
]

STABLE_DIFFUSION = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
FIXED = {  # what a name says beyond its class
    "dpmpp-2m-karras": {"use_karras_sigmas": True},
    "dpmpp-2m-sde": {"algorithm_type": "sde-dpmsolver++"},
    "dpmpp-3m": {"solver_order": 3},
    "dpmpp-3m-sde": {"solver_order": 3, "algorithm_type": "sde-dpmsolver++"},
    "dpm-solver": {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    "dpm-solver-sde": {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"},
}
SHAPE = (2, 4, 6, 3)  # N, h, w, c
STEPS = 20
ZERO_SNR = [name for name, reference in REFERENCES.items() if "rescale_betas_zero_snr" in reference.fields]
KARRAS = [
    "lms", "euler", "heun", "dpm2", "dpm2-a", "dpmpp-2m-sde", "dpmpp-3m", "dpm-solver", "dpm-singlestep", "deis",
    "unipc",
]
NO_SAMPLE = ("pndm", "euler-a", "dpm2", "dpm2-a")  # of prediction_type, in the reference


def reference_class(name):
    if name == "lms":
        pytest.importorskip("scipy")
    return getattr(diffusers, REFERENCES[name].kind)


def reference_of(config, name, tmp_path, **fields):
    """The reference's scheduler of our sampler's name, in a pipeline folder with this scheduler_config.json."""
    reference = reference_class(name)
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config))
    own = getattr(diffusers, config["_class_name"]).from_pretrained(tmp_path)
    return reference.from_config(own.config, **FIXED.get(name, {}), **fields)


def our_model(x, t):
    """Not linear, and of every neighbour: no step's error cancels."""
    return np.sin(1.5 * x + np.roll(x, 1, 2) + t / 300) * 0.5 + 0.4 * x


def their_model(x, t):
    return torch.sin(1.5 * x + torch.roll(x, 1, 3) + t / 300) * 0.5 + 0.4 * x


def draw_as_ours(scheduler, generators, shape, monkeypatch):
    """The reference's scheduler takes its noise from our generators, one a picture of this shape (h, w, c)."""

    def randn_tensor(_, generator=None, device=None, dtype=None, layout=None):
        return channels_first(standard_normal(generators, shape)).to(dtype)

    module = importlib.import_module(type(scheduler).__module__)
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", randn_tensor)


def their_samples(scheduler, latents, generators, steps, monkeypatch):
    """As StableDiffusionPipeline does, all noise drawn as ours; -> (sample, the timesteps of the model)."""
    draw_as_ours(scheduler, generators, latents.shape[1:], monkeypatch)
    scheduler.set_timesteps(steps)
    x = channels_first(latents) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = their_model(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(output, t, x).prev_sample
    return channels_last(x), scheduler.timesteps.tolist()


def assert_same(config, name, tmp_path, monkeypatch, steps=STEPS, tolerance=1e-4):
    """Both samplers in the folder of `config`."""
    latents = np.random.default_rng(5).standard_normal(SHAPE, np.float32)
    scheduler = reference_of(config, name, tmp_path)
    expected, their_timesteps = their_samples(scheduler, latents, image_generators(1, 2), steps, monkeypatch)
    schedule, settings = sampler_schedule(read_scheduler(tmp_path)[0].given, name)
    timesteps = []

    def predict(x, t):
        timesteps.append(t)
        return our_model(x, t)

    *_, z = SAMPLERS[name](predict, latents, schedule, steps, image_generators(1, 2), **settings)
    np.testing.assert_allclose(timesteps, their_timesteps, rtol=1e-5, atol=1e-3)
    assert z.dtype == np.float32 and expected.std() > 0.1
    largest = np.abs(expected).max()
    # Backwards from noise taken for a picture, DDIM grows: relative there.
    scale = max(1, largest) if name == "ddim-inverse" else 1
    error = np.abs(z - expected).max()
    assert error <= tolerance * scale, f"off by {error:.3g} where values reach {largest:.3g}"


@pytest.mark.parametrize("name", SAMPLERS)
def test_in_stable_diffusions_folder(name, tmp_path, monkeypatch):
    assert_same(STABLE_DIFFUSION, name, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("spacing", "prediction"),
    [("leading", "v_prediction"), ("leading", "sample"), ("trailing", "epsilon"), ("linspace", "v_prediction")],
)
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_spacing_and_prediction(name, spacing, prediction, tmp_path, monkeypatch):
    if (name, spacing) == ("ddim-inverse", "linspace") or (name in NO_SAMPLE and prediction == "sample"):
        pytest.skip("the reference refuses it")
    fields = {"timestep_spacing": spacing, "prediction_type": prediction}
    assert_same(STABLE_DIFFUSION | fields, name, tmp_path, monkeypatch)


@pytest.mark.parametrize("steps", [7, 30])
@pytest.mark.parametrize("name", SAMPLERS)
def test_steps_that_do_not_divide_the_schedule(name, steps, tmp_path, monkeypatch):
    assert_same(STABLE_DIFFUSION, name, tmp_path, monkeypatch, steps)


@pytest.mark.parametrize("name", SAMPLERS)
def test_in_a_folder_of_minilds_own(name, tmp_path, monkeypatch):
    """DDIM's, with all fields stated; PNDM then begins with Runge and Kutta."""
    write_scheduler(tmp_path, NoiseSchedule(), "ddim")
    config = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert_same(config, name, tmp_path, monkeypatch)


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
@pytest.mark.parametrize("name", KARRAS)
def test_karras_levels(name, spacing, tmp_path, monkeypatch):
    fields = {"_class_name": "UniPCMultistepScheduler", "use_karras_sigmas": True, "timestep_spacing": spacing}
    assert_same(STABLE_DIFFUSION | fields, name, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", ["euler", "dpmpp-2m", "dpmpp-2m-karras", "dpmpp-2m-sde", "dpm-singlestep", "unipc"])
@pytest.mark.parametrize("steps", [10, 20])
def test_a_final_level_above_zero(name, steps, tmp_path, monkeypatch):
    fields = {"_class_name": "DPMSolverMultistepScheduler", "final_sigmas_type": "sigma_min"}
    assert_same(STABLE_DIFFUSION | fields, name, tmp_path, monkeypatch, steps)


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", ["dpm-solver", "dpm-singlestep", "deis", "unipc"])
def test_every_order(name, order, steps, tmp_path, monkeypatch):
    fields = {"_class_name": REFERENCES[name].kind, "solver_order": order}
    if name == "dpm-solver":
        fields |= FIXED[name]
    assert_same(STABLE_DIFFUSION | fields, name, tmp_path, monkeypatch, steps)


DPM = {"midpoint": {}, "heun": {"solver_type": "heun"}, "falls": {"lower_order_final": True}}
MULTISTEP, SINGLESTEP = (REFERENCES[name].kind for name in ("dpmpp-2m", "dpm-singlestep"))


@pytest.mark.parametrize("steps", [9, 20])
@pytest.mark.parametrize("options", DPM)
@pytest.mark.parametrize(
    ("kind", "order", "algorithm", "name"),
    [
        (MULTISTEP, 1, "dpmsolver++", "dpmpp-2m"),
        (MULTISTEP, 3, "dpmsolver++", "dpmpp-3m"),
        (MULTISTEP, 2, "sde-dpmsolver++", "dpmpp-2m-sde"),
        (MULTISTEP, 3, "sde-dpmsolver++", "dpmpp-3m-sde"),
        (MULTISTEP, 2, "dpmsolver", "dpm-solver"),
        (MULTISTEP, 1, "sde-dpmsolver", "dpm-solver-sde"),
        (SINGLESTEP, 2, "dpmsolver", "dpm-singlestep"),
        (SINGLESTEP, 2, "sde-dpmsolver++", "dpm-singlestep"),
    ],
)
def test_a_folder_of_every_dpm_solver(kind, order, algorithm, name, options, steps, tmp_path, monkeypatch):
    """It chooses the sampler, which draws as the reference does; and so does the folder that it writes."""
    fields = {"_class_name": kind, "solver_order": order, "algorithm_type": algorithm, "lower_order_final": False}
    fields |= DPM[options] | {"final_sigmas_type": "sigma_min"}
    assert_same(STABLE_DIFFUSION | fields, name, tmp_path, monkeypatch, steps, tolerance=5e-4)
    schedule, own = read_scheduler(tmp_path)
    assert own == name
    write_scheduler(tmp_path, schedule, own)
    config = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert_same(config, name, tmp_path, monkeypatch, steps, tolerance=5e-4)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("name", ZERO_SNR)
def test_zero_terminal_snr(name, spacing, tmp_path, monkeypatch):
    fields = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": spacing}
    config = STABLE_DIFFUSION | fields | {"_class_name": "DDIMScheduler"}
    assert_same(config, name, tmp_path, monkeypatch, tolerance=1e-3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_reference_reads_what_we_write(name, tmp_path, monkeypatch):
    """A folder saved with this sampler: the same class, and the same samples again."""
    (tmp_path / "scheduler_config.json").write_text(json.dumps(STABLE_DIFFUSION))
    schedule, _ = read_scheduler(tmp_path)
    write_scheduler(tmp_path, schedule, name)
    assert read_scheduler(tmp_path)[1] == name
    config = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert config["_class_name"] == REFERENCES[name].kind
    assert_same(config, name, tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pipeline with random weights and Stable Diffusion's scheduler."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_pipeline.make().save_pretrained(folder)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(STABLE_DIFFUSION))
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "PNDMScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_whole_pipeline_draws_the_references_picture(name, folder, rng, monkeypatch):
    prompts = ["a red circle", "a blue square above a star"]
    ours = pipelines.load(folder)
    assert ours.sampler == "pndm"
    f, c = ours.vae.downsampling, ours.vae.config["latent_channels"]
    latents = rng.standard_normal((2, 8, 12, c), np.float32)
    mine = ours.text_to_image(prompts, "grey", STEPS, 7.5, sampler=name, seed=3, latents=latents)
    theirs = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    theirs.scheduler = reference_class(name).from_config(theirs.scheduler.config, **FIXED.get(name, {}))
    draw_as_ours(theirs.scheduler, image_generators(3, 2), latents.shape[1:], monkeypatch)
    expected = theirs(
        prompts,
        negative_prompt=["grey"] * 2,
        num_inference_steps=STEPS,
        guidance_scale=7.5,
        latents=channels_first(latents),
        height=8 * f,
        width=12 * f,
        output_type="np",
    ).images
    assert mine.shape == expected.shape and expected.std() > 0.02
    # Noise taken for a picture, and guided, is carried off all scales; rounding grows with it.
    assert np.abs(mine - expected).max() <= (1e-3 if name == "ddim-inverse" else 1e-4)
