"""Every deterministic sampler against the reference's: sums of its own scheduler tests, and lists of timesteps.

The model of those tests is x · t / (t + 1), the start arange(768) / 768, the schedule linear betas, ten steps. Where
a sum of its tests is in the thousandths, or its loop forgets the unscaled x, the sum here is of the same scheduler in
the loop that its pipelines run (diffusers 0.42.1).
"""

import math

import numpy as np
import pytest

from minild.diffusion import DIFFUSION_SAMPLERS as SAMPLERS
from minild.diffusion import NoiseSchedule
from minild.diffusion.dpm_singlestep import singlestep_orders
from minild.diffusion.dpm_solver import multistep_orders
from minild.diffusion.sigmas import sigma_steps, solver_steps, training_sigmas
from minild.errors import UserError

LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "steps_offset": 0}
LINSPACE = {"timestep_spacing": "linspace"}
LONG = {**LINSPACE, "num_train_timesteps": 1100}
TO_ONE = {"set_alpha_to_one": True}
V = {"prediction_type": "v_prediction"}
SIGMA_MIN = {**LINSPACE, "final_sigmas_type": "sigma_min"}
PRK = {"skip_prk_steps": False}

SUMS = [
    # the reference's own tests
    ("ddim", TO_ONE, {}, 172.0067),
    ("ddim", TO_ONE | V, {}, 52.5302),
    ("ddim-inverse", TO_ONE, {}, 671.6816),
    ("pndm", {}, PRK, 198.1318),
    ("pndm", V, PRK, 67.3986),
    ("pndm", TO_ONE | {"beta_start": 0.01}, PRK, 230.0399),
    ("pndm", {"beta_start": 0.01}, PRK, 186.9482),
    ("dpmpp-2m", SIGMA_MIN, {"lower_order_final": False}, 768 * 0.3301),
    ("dpmpp-2m", SIGMA_MIN | V, {"lower_order_final": False}, 768 * 0.2251),
    ("unipc", SIGMA_MIN, {}, 768 * 0.2464),
    ("unipc", SIGMA_MIN | V, {}, 768 * 0.1014),
    # its schedulers in its pipelines' loop
    ("euler", LONG, {}, 168.0516),
    ("euler", LONG | {"use_karras_sigmas": True}, {}, 156.6845),
    ("euler", LONG | V, {}, 46.9141),
    ("heun", LONG, {}, 244.6025),
    ("lms", LONG, {}, 191.1941),
    ("lms", LONG | {"use_karras_sigmas": True}, {}, 172.0860),
    ("dpmpp-2m", LINSPACE, {}, 185.0114),
    ("dpmpp-2m-karras", LINSPACE, {}, 226.1858),
    ("unipc", LINSPACE, {}, 186.7620),
    ("unipc", LINSPACE, {"solver_order": 3}, 187.5004),
    ("dpm2", LONG, {}, 218.2555),
    ("dpm2", LONG | V, {}, 107.8789),
    ("dpm2", LONG | {"use_karras_sigmas": True}, {}, 223.2702),
    ("deis", LINSPACE, {}, 183.6766),
    ("deis", LINSPACE | V, {}, 69.9438),
    ("deis", LINSPACE, {"solver_order": 3}, 185.5794),
    ("deis", LINSPACE | {"use_karras_sigmas": True}, {"solver_order": 1}, 160.3086),
    ("dpmpp-2m", LINSPACE, {"solver_order": 1}, 169.9294),
    ("dpmpp-2m", LINSPACE, {"solver_type": "heun"}, 186.7469),
    ("dpmpp-3m", LINSPACE, {}, 187.5937),
    ("dpmpp-3m", SIGMA_MIN, {"euler_at_final": True, "lower_order_final": False}, 190.6293),
    ("dpm-solver", LINSPACE, {}, 184.9213),
    ("dpm-solver", LINSPACE, {"solver_order": 3}, 186.0469),
    ("dpm-solver", LINSPACE, {"solver_type": "heun", "lower_order_final": False}, 203.6040),
    ("dpm-singlestep", {}, {}, 174.9405),
    ("dpm-singlestep", SIGMA_MIN, {"lower_order_final": True}, 177.3440),
    ("dpm-singlestep", SIGMA_MIN, {"solver_order": 3}, 189.0942),
    ("dpm-singlestep", {}, {"solver_order": 3, "solver_type": "heun"}, 187.8248),
    ("dpm-singlestep", SIGMA_MIN, {"algorithm_type": "dpmsolver"}, 290.9802),
]


def start():
    return (np.arange(768) / 768).reshape(3, 8, 8, 4).transpose(3, 1, 2, 0).astype("f")


def dummy_model(x, t):
    return x * (t / (t + 1))


@pytest.mark.parametrize(("sampler", "config", "settings", "expected"), SUMS)
def test_the_references_sum(sampler, config, settings, expected):
    schedule = NoiseSchedule(LINEAR | config)
    *_, z = SAMPLERS[sampler](dummy_model, start(), schedule, 10, **settings)
    assert z.dtype == np.float32  # t is a plain number, which does not promote
    # The reference's ᾱ has float32's rounding, and its own tests allow 0.01; two give means, to four places.
    assert np.abs(z).sum() == pytest.approx(expected, abs=768 * 5e-5 if sampler in ("dpmpp-2m", "unipc") else 1e-2)


@pytest.mark.parametrize(("config", "expected"), [({}, 10.0807), ({"use_karras_sigmas": True}, 124.5230)])
def test_the_sum_of_the_references_euler_test(config, expected):
    """Its loop goes on from the scaled x / √(σ² + 1) instead of x. The ε that makes our step do so, too, is asked."""
    schedule = NoiseSchedule(LINEAR | LONG | config)
    timesteps, sigmas = sigma_steps(schedule, 10)

    def predict(z, t):
        i = timesteps.index(t)
        return dummy_model(z, t) + z * ((1 - math.hypot(sigmas[i], 1)) / (sigmas[i + 1] - sigmas[i]))

    *_, x = SAMPLERS["euler"](predict, start().astype(float), schedule, 10)
    assert np.abs(x).sum() == pytest.approx(expected, abs=1e-2)


def visited(sampler, steps, config=(), **settings):
    """The timesteps that the model is called with, and the number of latents that came."""
    timesteps = []

    def predict(x, t):
        timesteps.append(t)
        return 0.1 * x

    latents = np.ones((1, 2, 2, 1), "f")
    generators = [np.random.default_rng(0)]
    count = len(list(SAMPLERS[sampler](predict, latents, NoiseSchedule(dict(config)), steps, generators, **settings)))
    return timesteps, count


def test_plms_calls_the_model_once_more_than_it_steps():
    timesteps, count = visited("pndm", 50)
    assert timesteps == [981, 961, 961, *range(941, 0, -20)]
    assert (len(timesteps), count) == (51, 50)


def test_runge_kutta_calls_the_model_four_times_in_each_of_three_steps():
    timesteps, count = visited("pndm", 10, skip_prk_steps=False)
    first = [901, 851, 851, 801, 801, 751, 751, 701, 701, 651, 651, 601]
    assert timesteps == [*first, 601, 501, 401, 301, 201, 101, 1] and count == 10


@pytest.mark.parametrize("skip_prk_steps", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_pndm_in_few_steps(steps, skip_prk_steps):
    assert visited("pndm", steps, skip_prk_steps=skip_prk_steps)[1] == steps


def test_heun_calls_the_model_twice_in_all_steps_but_the_last():
    timesteps, count = visited("heun", 10)
    assert timesteps == [901, *np.repeat(range(801, 0, -100), 2)]
    assert (len(timesteps), count) == (19, 10)


def test_dpm2_calls_the_model_half_way_in_all_steps_but_the_last():
    """Half the way in log σ; with ancestral noise to σ_down = σ_next² / σ, which is as far as σ_next."""
    every = np.log(training_sigmas(NoiseSchedule()))
    for name, share in (("dpm2", 0.5), ("dpm2-a", 1)):
        timesteps, count = visited(name, 10)
        assert timesteps[::2] == list(range(901, 0, -100)) and (len(timesteps), count) == (19, 10)
        logs = np.interp(timesteps, np.arange(1000), every)
        np.testing.assert_allclose(logs[1::2], logs[:-1:2] + share * (logs[2::2] - logs[:-1:2]))


def test_of_karras_levels_dpm2_rounds_the_timesteps_but_not_those_between():
    timesteps, _ = visited("dpm2", 8, {"use_karras_sigmas": True})
    assert all(t == round(t) for t in timesteps[::2]) and all(t != round(t) for t in timesteps[1::2])


def test_one_step_of_deis_on_karras_levels_goes_nowhere():
    """There is one level, the highest, and the last is the level before it."""
    (z,) = SAMPLERS["deis"](dummy_model, start(), NoiseSchedule({"use_karras_sigmas": True}), 1)
    np.testing.assert_allclose(z, start(), rtol=1e-6)


def test_singlestep_spaces_linearly_whatever_the_schedule_says():
    for spacing in ("leading", "trailing", "linspace"):
        assert visited("dpm-singlestep", 4, {"timestep_spacing": spacing})[0] == [999, 749, 500, 250]


@pytest.mark.parametrize(
    ("steps", "order", "falls", "last", "expected"),
    [
        (5, 2, False, 0.0, [1, 2, 1, 2, 1]),
        (6, 2, False, 0.0, [1, 2, 1, 2, 1, 1]),
        (6, 2, False, 0.1, [1, 2, 1, 2, 1, 2]),
        (6, 2, True, 0.1, [1, 2, 1, 2, 1, 1]),
        (6, 3, True, 0.1, [1, 2, 3, 1, 2, 1]),
        (7, 3, True, 0.1, [1, 2, 3, 1, 2, 3, 1]),
        (8, 3, True, 0.1, [1, 2, 3, 1, 2, 3, 1, 2]),
        (8, 3, False, 0.0, [1, 2, 3, 1, 2, 3, 1, 1]),
    ],
)
def test_orders_of_singlestep(steps, order, falls, last, expected):
    assert singlestep_orders(steps, order, falls, [1.0, last]) == expected


def test_orders_of_multistep():
    assert multistep_orders(6, 3, True) == [1, 2, 3, 3, 2, 1]
    assert multistep_orders(6, 3, False) == [1, 2, 3, 3, 3, 3]
    assert multistep_orders(2, 3, True) == [1, 1]
    assert multistep_orders(15, 2, True) == [1, *[2] * 14]


def test_thirty_leading_steps_begin_at_958():
    for sampler in ("ddpm", "ddim", "euler", "euler-a", "lms"):
        timesteps, count = visited(sampler, 30)
        assert timesteps == list(range(958, 0, -33)) and count == 30


def test_linspace_keeps_fractions_for_eulers_kin_alone():
    assert visited("euler", 5, LINSPACE)[0] == [999, 749.25, 499.5, 249.75, 0]
    assert visited("dpmpp-2m", 4, LINSPACE)[0] == [999, 749, 500, 250]


def test_the_solvers_place_one_step_more_and_drop_it():
    assert visited("unipc", 9)[0] == list(range(901, 1, -100))
    assert visited("dpmpp-2m", 10, {"timestep_spacing": "trailing"})[0] == list(range(999, 0, -100))
    for sampler in ("dpmpp-2m", "dpmpp-2m-sde", "dpm-singlestep", "deis", "unipc"):
        with pytest.raises(UserError, match="steps: expected 1 to 999, got 1000"):
            visited(sampler, 1000)


def test_ddim_inverse_goes_up():
    assert visited("ddim-inverse", 50)[0] == list(range(1, 1000, 20))
    with pytest.raises(UserError, match="ddim-inverse: timestep_spacing = 'linspace' is not supported"):
        visited("ddim-inverse", 50, LINSPACE)


def test_lcm_visits_timesteps_of_its_distillation():
    assert visited("lcm", 4)[0] == [999, 759, 499, 259]
    assert visited("lcm", 50)[0] == list(range(999, 0, -20))
    assert visited("lcm", 2, original_inference_steps=10)[0] == [999, 499]
    with pytest.raises(UserError, match="steps: expected 1 to 50, got 51"):
        visited("lcm", 51)


def test_stable_diffusions_sigmas():
    linspace = NoiseSchedule(LINSPACE)
    _, sigmas = sigma_steps(linspace, 10)
    assert (sigmas[0], sigmas[-2], sigmas[-1]) == (
        pytest.approx(14.614647, rel=2e-5),
        pytest.approx(0.0291675, rel=2e-5),
        0,
    )
    _, sigmas = sigma_steps(NoiseSchedule({**SIGMA_MIN}), 10)
    assert sigmas[-1] == pytest.approx(0.0291675, rel=2e-5)


def test_karras_levels_are_equally_far_apart_in_their_seventh_root():
    for steps_of in (sigma_steps, solver_steps):
        timesteps, sigmas = steps_of(NoiseSchedule({"use_karras_sigmas": True, **LINSPACE}), 8)
        roots = np.array(sigmas[:-1]) ** (1 / 7)
        np.testing.assert_allclose(np.diff(roots), np.diff(roots).mean())
        assert sigmas[0] == pytest.approx(14.614647, rel=2e-5) and sigmas[7] == pytest.approx(0.0291675, rel=2e-5)
        assert (timesteps[0], timesteps[-1]) == (999, pytest.approx(0, abs=1e-9))
        assert all(t == round(t) for t in timesteps[:-1]) == (steps_of is solver_steps)
