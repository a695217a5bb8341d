"""The noise schedule: how much of z_0 is left in z_t, and which timesteps a sampler visits."""

import math

import numpy as np

from minild.errors import UserError


def linear_betas(start, end, steps):
    """β from start to end in equal steps (Ho et al. 2020, arXiv 2006.11239, section 4)."""
    return np.linspace(start, end, steps)


def scaled_linear_betas(start, end, steps):
    """√β in equal steps; the latent diffusion code calls this one "linear"."""
    return np.linspace(math.sqrt(start), math.sqrt(end), steps) ** 2


def cosine_betas(start, end, steps):
    """β such that ᾱ(t) ∝ cos²((t + 0.008) / 1.008 · π / 2), capped at 0.999; start and end are not used.

    (Nichol & Dhariwal 2021, arXiv 2102.09672, equation 17.)
    """
    edges = np.arange(steps + 1) / steps
    alpha_bar = np.cos((edges + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)


BETA_SCHEDULES = {"linear": linear_betas, "scaled_linear": scaled_linear_betas, "squaredcos_cap_v2": cosine_betas}


class NoiseSchedule:
    """q(z_t | z_0) = N(√ᾱ_t z_0, (1 - ᾱ_t) I), ᾱ_t = Π (1 - β_s), t = 0 .. T - 1.

    Built from the fields of a scheduler_config.json. `alphas_cumprod` is ᾱ, (T,) float64 on the host: the
    arithmetic of a step is done there on numbers, and only multiplied onto device arrays.
    """

    defaults = {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "set_alpha_to_one": False,
        "timestep_spacing": "leading",
        "prediction_type": "epsilon",
    }
    only = {
        "timestep_spacing": "leading",
        "prediction_type": "epsilon",
        "trained_betas": None,
        "rescale_betas_zero_snr": False,
        "thresholding": False,
    }

    def __init__(self, config=None):
        for field, value in (config or {}).items():
            if field in self.only and value != self.only[field]:
                raise UserError(f"scheduler: {field} = {value!r} is not supported, use {self.only[field]!r}")
        config = self.defaults | {k: v for k, v in (config or {}).items() if k in self.defaults}
        if config["beta_schedule"] not in BETA_SCHEDULES:
            known = ", ".join(BETA_SCHEDULES)
            raise UserError(f"scheduler: beta_schedule = {config['beta_schedule']!r} is not supported, use {known}")
        self.config = config
        self.train_steps = config["num_train_timesteps"]
        betas = BETA_SCHEDULES[config["beta_schedule"]](config["beta_start"], config["beta_end"], self.train_steps)
        self.betas = betas
        self.alphas_cumprod = np.cumprod(1 - betas)

    def timesteps(self, steps):
        """The `steps` timesteps that a sampler visits, largest first, T / steps apart ("leading" spacing)."""
        if not 1 <= steps <= self.train_steps:
            raise UserError(f"steps: expected 1 to {self.train_steps}, got {steps}")
        leading = np.arange(steps)[::-1] * (self.train_steps // steps)
        # With all T steps there is no room for an offset: T does not exist, and T - 1 must not come twice.
        return leading + min(self.config["steps_offset"], self.train_steps - 1 - leading[0])

    def alpha_bar(self, t):
        """ᾱ_t as a number; before the first timestep, 1 where set_alpha_to_one, else ᾱ_0."""
        if t < 0:
            return 1.0 if self.config["set_alpha_to_one"] else float(self.alphas_cumprod[0])
        return float(self.alphas_cumprod[t])

    def noise_levels(self, t):
        """(√ᾱ_t, √(1 - ᾱ_t)) for an array t (N,) of host integers: two (N, 1, 1, 1) float32 host arrays."""
        alpha_bar = self.alphas_cumprod[t].reshape(-1, 1, 1, 1)
        return np.sqrt(alpha_bar).astype(np.float32), np.sqrt(1 - alpha_bar).astype(np.float32)


def add_noise(z, noise, signal_level, noise_level):
    """z_t = √ᾱ_t z_0 + √(1 - ᾱ_t) ε (Ho et al. 2020, equation 4), with the levels of NoiseSchedule.noise_levels."""
    return signal_level * z + noise_level * noise


def predict_clean(z_t, epsilon, alpha_bar):
    """ẑ_0 = (z_t - √(1 - ᾱ_t) ε) / √ᾱ_t (Ho et al. 2020, equation 15)."""
    return (z_t - math.sqrt(1 - alpha_bar) * epsilon) / math.sqrt(alpha_bar)
