"""Thousands of combinations of sampler, schedule and options: the reference's numbers, or a refusal in words.

A combination is a scheduler_config.json of some class, a sampler that takes it over, and a number of steps. They are
drawn with a seed; the model is a formula and the latents are four numbers, so that the schedulers are all there is.
"""

import warnings
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pytest

from minild.diffusion import DIFFUSION_SAMPLERS as SAMPLERS
from minild.diffusion import NoiseSchedule
from minild.errors import UserError
from minild.pipelines.scheduler_config import REFERENCES, sampler_schedule
from minild.random import image_generators
from parity.reference import diffusers, torch
from parity.test_samplers import our_model, reference_class, their_samples

COMBINATIONS = 5200
ENOUGH = 3500  # of them whose numbers are compared
OPTIONS = {
    "num_train_timesteps": [50, 100, 999, 1000],
    "beta_schedule": ["linear", "scaled_linear", "squaredcos_cap_v2"],
    "beta_start": [0.0001, 0.00085, 0.002],
    "beta_end": [0.012, 0.02, 0.05],
    "timestep_spacing": ["leading", "trailing", "linspace"],
    "prediction_type": ["epsilon", "v_prediction", "sample"],
    "rescale_betas_zero_snr": [False, False, True],
    "use_karras_sigmas": [False, True],
    "final_sigmas_type": ["zero", "sigma_min"],
    "steps_offset": [0, 1],
    "clip_sample": [False, True],
    "set_alpha_to_one": [False, True],
    "skip_prk_steps": [False, True],
    "algorithm_type": ["dpmsolver++", "dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver"],
    "solver_order": [1, 2, 3],
    "solver_type": ["midpoint", "heun", "logrho", "bh1", "bh2"],
    "lower_order_final": [False, True],
    "euler_at_final": [False, True],
    "predict_x0": [False, True, True],
    "disable_corrector": [[], [0], [1, 2]],
    "original_inference_steps": [25, 50],
    "timestep_scaling": [1.0, 10.0],
}
STEPS = [1, 2, 3, 4, 5, 7, 10, 12, 16, 20]
SHAPE = (1, 2, 2, 1)
ROUNDING = 3e-7  # of float32 in a step, a few of them
COARSE = {"KDPM2AncestralDiscreteScheduler"}  # σ_down of levels in the thousands as a difference of float32 squares
FOREIGN = {"SASolverScheduler", "TCDScheduler"}
KINDS = sorted({REFERENCES[name].kind for name in SAMPLERS} | FOREIGN)


def named(reference, config):
    """The fields that the name of a sampler says, where the config goes against it."""
    known = reference.fields | config
    return {field: values[0] for field, values in reference.fixed.items() if known[field] not in values}


class Combination(NamedTuple):
    name: str
    config: dict
    steps: int

    @property
    def kind(self):
        return REFERENCES[self.name].kind

    def get(self, field):
        """What the sampler makes of the field."""
        reference = REFERENCES[self.name]
        known = reference.fields | self.config
        return (known | named(reference, known))[field] if field in reference.fields else None


class Drawn(NamedTuple):
    sample: Any
    timesteps: list
    schedule: Any


class FolderRefused(Exception):
    """The reference cannot open a folder with this scheduler, whatever is to draw with it."""


def combination(name, rng):
    """Mostly of the sampler's own class, with most of the fields that it knows and few of others."""
    own = REFERENCES[name]
    config = {"_class_name": own.kind if rng.random() < 0.7 else str(rng.choice(KINDS))}
    for field, values in OPTIONS.items():
        if rng.random() < (0.75 if field in own.fields else 0.1):
            config[field] = values[rng.integers(len(values))]
    return Combination(name, config, int(rng.choice(STEPS)))


def in_a_pipeline(scheduler):
    """With the two fields that the reference's pipelines set, whatever a file says."""
    wanted = {"steps_offset": 1, "clip_sample": False}
    scheduler.register_to_config(**{field: wanted[field] for field in wanted.keys() & scheduler.config.keys()})
    return scheduler


def cuts_off(scheduler):
    """Whether it cuts fractional timesteps off, instead of rounding them."""
    config = scheduler.config
    cosine = config.beta_schedule == "squaredcos_cap_v2"
    return type(scheduler).__name__ == "DPMSolverMultistepScheduler" and cosine and config.use_karras_sigmas


def in_float64(scheduler):
    """The reference's scheduler with its β as they are, in float32, but what follows from them in float64.

    Where schedules end in noise alone, its own rounding is what most of the numbers are made of. The timesteps are
    chosen as ever, but for one.
    """
    alphas_cumprod = torch.cumprod(1 - scheduler.betas.double(), 0)
    if scheduler.config.get("rescale_betas_zero_snr"):
        alphas_cumprod[-1] = scheduler.alphas_cumprod[-1]  # 0, or what it takes for 0
    set_timesteps = scheduler.set_timesteps

    def set_timesteps_and_double(steps):
        set_timesteps(steps)
        timesteps = scheduler.timesteps
        if cuts_off(scheduler):  # also where it is whole but for a logarithm's rounding: the level is that of T - 1
            timesteps[0] = scheduler.config.num_train_timesteps - 1
        scheduler.alphas_cumprod = alphas_cumprod
        for first in ("final_alpha_cumprod", "initial_alpha_cumprod"):
            if getattr(scheduler, first, 1) != 1:
                setattr(scheduler, first, alphas_cumprod[0])
        if hasattr(scheduler, "sigmas"):
            set_timesteps(steps)
            scheduler.sigmas = scheduler.sigmas.double()
        scheduler.timesteps = timesteps

    scheduler.set_timesteps = set_timesteps_and_double
    return scheduler


def theirs(case, latents, monkeypatch):
    """Drawn by the reference. Whatever it raises, it raises here."""
    try:
        own = in_a_pipeline(getattr(diffusers, case.config["_class_name"]).from_config(case.config))
    except (NotImplementedError, ValueError) as error:
        raise FolderRefused(error) from None
    said = named(REFERENCES[case.name], own.config)
    scheduler = in_float64(in_a_pipeline(reference_class(case.name).from_config(own.config, **said)))
    sample, timesteps = their_samples(scheduler, latents, image_generators(1, len(latents)), case.steps, monkeypatch)
    if not np.isfinite(sample).all():
        raise FloatingPointError("the sample is not finite")
    return Drawn(sample, timesteps, scheduler)


def ours(case, latents, betas=None, mix=None):
    """Drawn by us, with the reference's β where they are given: ours differ from them by the rounding of float32."""
    schedule, settings = sampler_schedule(case.config, case.name)
    if betas is not None:
        np.testing.assert_allclose(signal_left(schedule.betas), signal_left(betas), rtol=0, atol=1e-5)
        config = case.config | {"trained_betas": betas.tolist(), "rescale_betas_zero_snr": False}
        schedule, settings = sampler_schedule(config, case.name)
    if mix and case.name != "ddim-inverse":
        settings |= {"mix": mix}
    timesteps = []

    def predict(x, t):
        timesteps.append(t)
        return our_model(x, t)

    generators = image_generators(1, len(latents))
    *_, sample = SAMPLERS[case.name](predict, latents, schedule, case.steps, generators, **settings)
    return Drawn(sample, timesteps, schedule)


def signal_left(betas):
    """√ᾱ."""
    return np.sqrt(np.cumprod(1 - betas))


def rounded(rng):
    """x -> x as float32 may have rounded it."""
    return lambda x: x + (ROUNDING * np.abs(x).max() * rng.standard_normal(x.shape)).astype(x.dtype)


def growth_of_rounding(case, latents, betas, expected, monkeypatch):
    """How far the sample goes if every prediction and every step is rounded a little more."""
    noisy, predictions = rounded(np.random.default_rng(2)), NoiseSchedule.predictions
    with monkeypatch.context() as patch:
        patch.setattr(NoiseSchedule, "predictions", lambda *arguments: [*map(noisy, predictions(*arguments))])
        return np.abs(ours(case, latents, betas, lambda z, _: noisy(z)).sample - expected).max()


def judge(case, monkeypatch):
    """-> (what became of a combination, in a word; how far apart the two are, relative, where they are compared).

    AssertionError if the two disagree, or we crash.
    """
    latents = np.random.default_rng(5).standard_normal(SHAPE, np.float32)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reference, fault = theirs(case, latents, monkeypatch), None
    except Exception as error:  # whatever it is, there are no numbers
        reference, fault = None, error
    betas = None if fault else reference.schedule.betas.double().numpy()
    try:
        mine = ours(case, latents, betas)
    except UserError as error:
        if fault:
            return "both refuse", 0
        assert " is not supported, use " in str(error), f"refused without need: {error}"
        return "refused by name", 0
    if fault:
        assert why_only_we_draw(case, mine, fault), f"only the reference fails: {fault!r}"
        assert np.isfinite(mine.sample).all()
        return f"only we draw: {why_only_we_draw(case, mine, fault)}", 0
    if case.steps == 1 and case.get("use_karras_sigmas") and ends_at_its_last(case):
        return "the reference returns the noise", 0  # of one step, from the highest level to the same
    difference = np.abs(np.subtract(mine.timesteps, reference.timesteps)).max()
    if case.get("use_karras_sigmas") and difference == 1:
        return "a half is rounded the other way", 0
    coarse = case.kind in COARSE
    if coarse and case.get("beta_schedule") == "squaredcos_cap_v2":
        return "the reference's float32 does not tell", 0
    assert difference <= (5 if coarse else 0.05), f"timesteps {mine.timesteps}, expected {reference.timesteps}"
    scale = max(1, np.abs(reference.sample).max())
    error = np.abs(mine.sample - reference.sample).max() / scale
    growth = growth_of_rounding(case, latents, betas, mine.sample, monkeypatch) / scale
    told = f"off by {error:.2g} where rounding grows to {growth:.2g} of {scale:.3g}"
    assert error <= (2e-2 if coarse else 1e-4) + 10 * growth, told
    return "same" if growth < 1e-3 else "same, as far as float32 tells", error


def ends_at_its_last(case):
    """Whether the reference's last level is that of its last timestep, and not the schedule's lowest."""
    to_lowest = case.get("final_sigmas_type") == "sigma_min"
    return case.kind == "DEISMultistepScheduler" or (case.kind == "UniPCMultistepScheduler" and to_lowest)


def why_only_we_draw(case, mine, fault):
    """What keeps the reference from a picture that we draw; None if nothing that we know."""
    if isinstance(fault, FolderRefused):
        return "it cannot open the folder"
    if case.get("prediction_type") == "sample" and "prediction_type" in str(fault):
        return "it takes no ẑ_0 for this sampler"
    if case.name == "pndm" and case.steps < 4 and "broadcast" in str(fault):
        return "its Runge-Kutta needs 4 steps"
    if case.get("use_karras_sigmas") and mine.timesteps[0] in mine.timesteps[1:3]:  # half a step may lie between
        return "it loses count where the first two timesteps are one"
    higher = case.get("solver_order") == 3 or case.get("solver_type") == "heun"
    if case.get("final_sigmas_type") == "sigma_min" and higher:
        return "its last step has no length"
    if case.kind in COARSE and isinstance(fault, FloatingPointError):
        return "its float32 has less than nothing left between the noise and the level"
    if "not supported for `algorithm_type` deis" in str(fault):
        return "it does not take over what it writes for DEIS"
    return None


@pytest.fixture(scope="module")
def outcomes():
    """{sampler: (Counter of what became of its combinations, {that: the largest error}, disagreements in words)}."""
    threads, verbosity = torch.get_num_threads(), diffusers.logging.get_verbosity()
    torch.set_num_threads(1)
    diffusers.logging.set_verbosity_error()
    found = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in SAMPLERS:
            rng = np.random.default_rng(sum(map(ord, name)))
            counts, errors, disagreements = Counter(), {}, []
            for _ in range(COMBINATIONS // len(SAMPLERS) + 1):
                case = combination(name, rng)
                try:
                    word, error = judge(case, monkeypatch)
                    counts[word] += 1
                    errors[word] = max(error, errors.get(word, 0))
                except Exception as error:
                    disagreements.append(f"{case}: {type(error).__name__}: {error}")
            found[name] = counts, errors, disagreements
    torch.set_num_threads(threads)
    diffusers.logging.set_verbosity(verbosity)
    return found


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_numbers_or_a_refusal(name, outcomes):
    counts, _, disagreements = outcomes[name]
    assert not disagreements, f"{len(disagreements)} of {sum(counts.values())}:\n" + "\n".join(disagreements[:5])


def test_most_combinations_compare_numbers(outcomes):
    total = sum((counts for counts, _, _ in outcomes.values()), Counter())
    told = "\n".join(f"{count:5} {word}" for word, count in total.most_common())
    largest = max(errors["same"] for _, errors, _ in outcomes.values())
    print(f"\n{told}\nlargest error of the same {largest:.2g}")
    assert total["same"] + total["same, as far as float32 tells"] >= ENOUGH, told
    assert total["a half is rounded the other way"] < 12, told
