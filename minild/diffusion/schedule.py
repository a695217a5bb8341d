"""The noise schedule: how much of z_0 is left in z_t, what a model says of it, and which timesteps to visit."""

import math
from numbers import Integral

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


def rescale_zero_terminal_snr(betas):
    """β such that √ᾱ_T is 0 and √ᾱ_1 as before, the √ᾱ between moved and stretched (arXiv 2305.08891, algorithm 1)."""
    root = np.sqrt(np.cumprod(1 - betas))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alpha_bar = root**2
    return 1 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]])


def leading_timesteps(steps, train_steps, offset):
    """T / steps apart, rounded down, counted from `offset`: the noisiest timesteps may stay unvisited."""
    leading = np.arange(steps)[::-1] * (train_steps // steps)
    # With all T steps there is no room for an offset: T does not exist, and T - 1 must not come twice.
    return leading + min(offset, train_steps - 1 - leading[0])


def trailing_timesteps(steps, train_steps, offset=None):
    """T / steps apart, counted back from T - 1.

    Counted as the reference counts, whose rounding errors decide where halves fall. For some numbers of steps they also
    put T itself just above 0 and so one timestep more, -1, behind the last: there is no such timestep.
    """
    return np.arange(train_steps, 0, -train_steps / steps)[:steps].round().astype(int) - 1


def linspace_timesteps(steps, train_steps, offset=None):
    """From T - 1 to 0, both visited."""
    return np.linspace(0, train_steps - 1, steps).round().astype(int)[::-1]


# Table 2 of arXiv 2305.08891; only "leading" knows an offset.
SPACINGS = {"leading": leading_timesteps, "trailing": trailing_timesteps, "linspace": linspace_timesteps}

MOST_TRAIN_STEPS = 1_000_000
ALL = "every sampler"  # that has no entry of its own
DPM = (
    "dpmpp-2m",
    "dpmpp-2m-karras",
    "dpmpp-2m-sde",
    "dpmpp-3m",
    "dpmpp-3m-sde",
    "dpm-solver",
    "dpm-solver-sde",
    "dpm-singlestep",
)

# The fields of a scheduler_config.json of which not every value is supported: {field: {sampler: values}}. Of a field
# that only some samplers have, the others take any value. A field that is not here says what it says to all of them, or
# changes nothing; a file's clip_sample is passed over, for the reference's pipelines set it to false, whatever an old
# file says.
SUPPORTED = {
    # what the schedule and most samplers do
    "beta_schedule": {ALL: tuple(BETA_SCHEDULES)},
    "timestep_spacing": {ALL: tuple(SPACINGS), "ddim-inverse": ("leading", "trailing")},
    "prediction_type": {
        ALL: ("epsilon", "v_prediction", "sample"),
        **dict.fromkeys(("dpm2", "dpm2-a"), ("epsilon", "v_prediction")),
    },
    "final_sigmas_type": {ALL: ("zero", "sigma_min")},
    # what some samplers do
    "algorithm_type": {"dpm-singlestep": ("dpmsolver++", "sde-dpmsolver++", "dpmsolver"), "deis": ("deis",)},
    "solver_order": dict.fromkeys((*DPM, "deis", "unipc"), (1, 2, 3)),
    "solver_type": {**dict.fromkeys(DPM, ("midpoint", "heun")), "deis": ("logrho",), "unipc": ("bh1", "bh2")},
    # what none does
    "thresholding": {ALL: (False, None)},
    # Only DDPM draws with it: the others pass it over, and drop the channels that tell a learnt one.
    "variance_type": {
        ALL: (
            None,
            "fixed_small",
            "fixed_small_log",
            "fixed_large",
            "fixed_large_log",
            "learned",
            "learned_range",
        )
    },
    "interpolation_type": {ALL: ("linear",)},
    "timestep_type": {ALL: ("discrete",)},
    "use_exponential_sigmas": {ALL: (False, None)},
    "use_beta_sigmas": {ALL: (False, None)},
    "use_lu_lambdas": {ALL: (False,)},
    "use_flow_sigmas": {ALL: (False,)},
    "use_dynamic_shifting": {ALL: (False,)},
    "sigma_min": {ALL: (None,)},
    "sigma_max": {ALL: (None,)},
    "solver_p": {ALL: (None,)},
    "shift_terminal": {ALL: (None,)},
    "lambda_min_clipped": {ALL: (-math.inf,)},
    "invert_sigmas": {ALL: (False,)},
    "use_karras_sigmas": {"flow-euler": (False, None)},
}


def require_supported(config, where, sampler=ALL):
    """UserError, which begins with `where`, if a field has a value that the sampler does not support."""
    for field, samplers in SUPPORTED.items():
        values = samplers.get(sampler, samplers.get(ALL))
        if field in config and values is not None and config[field] not in values:
            known = " or ".join(map(repr, values))
            raise UserError(f"{where}: {field} = {config[field]!r} is not supported, use {known}")


def require_train_steps(steps):
    """UserError unless num_train_timesteps is a whole number, 1 <= steps <= MOST_TRAIN_STEPS."""
    if type(steps) is not int or not 1 <= steps <= MOST_TRAIN_STEPS:
        raise UserError(f"scheduler: num_train_timesteps: expected 1 to {MOST_TRAIN_STEPS:,}, got {steps!r}")


def require_steps(steps, most):
    """UserError unless steps is a whole number, 1 <= steps <= most."""
    if not isinstance(steps, Integral) or not 1 <= steps <= most:
        raise UserError(f"steps: expected 1 to {most}, got {steps!r}")


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
    options = {
        "trained_betas": None,
        "rescale_betas_zero_snr": False,
        "use_karras_sigmas": False,
        "final_sigmas_type": "zero",
        "variance_type": None,
    }

    def __init__(self, config=None, given=None):
        """config: fields; those it lacks are `defaults` and `options`, other samplers' fields are passed over.

        given: the fields that the user's file states, where `config` is what one sampler has of them; another sampler
        takes them over, and its own defaults for the rest (see pipelines.scheduler_config). UserError for what is not
        SUPPORTED, except where a sampler was asked already.
        """
        config = config or {}
        if given is None:
            require_supported(config, "scheduler")
        self.given = {**self.defaults, **config} if given is None else given
        known = self.defaults | self.options
        self.config = known | {k: v for k, v in config.items() if k in known}
        self.train_steps = self.config["num_train_timesteps"]
        require_train_steps(self.train_steps)
        betas = self._betas()
        if not ((betas > 0) & (betas <= 1)).all():
            raise UserError(f"scheduler: betas lie above 0 and not above 1, got {betas.min():g} to {betas.max():g}")
        if self.config["rescale_betas_zero_snr"]:
            betas = rescale_zero_terminal_snr(betas)
        self.betas = betas
        self.alphas_cumprod = np.cumprod(1 - betas)

    def _betas(self):
        """β before a rescaling, (T,): `trained_betas` as given, or else by the formula of `beta_schedule`."""
        trained = self.config["trained_betas"]
        if trained is None:
            formula = BETA_SCHEDULES[self.config["beta_schedule"]]
            return formula(self.config["beta_start"], self.config["beta_end"], self.train_steps)
        betas = np.asarray(trained, np.float64)
        if betas.shape != (self.train_steps,):
            expected = f"num_train_timesteps = {self.train_steps} numbers"
            raise UserError(f"scheduler: trained_betas: expected {expected}, got an array of shape {betas.shape}")
        return betas

    def timesteps(self, steps):
        """The `steps` timesteps that a sampler visits, largest first, by the schedule's spacing."""
        self.require_steps(steps)
        spacing = SPACINGS[self.config["timestep_spacing"]]
        return spacing(steps, self.train_steps, self.config["steps_offset"])

    def require_steps(self, steps, most=None):
        """UserError unless 1 <= steps <= most (by default T)."""
        require_steps(steps, self.train_steps if most is None else most)

    def alpha_bar(self, t):
        """ᾱ_t as a number; before the first timestep, 1 where set_alpha_to_one, else ᾱ_0."""
        if t < 0:
            return 1.0 if self.config["set_alpha_to_one"] else float(self.alphas_cumprod[0])
        return float(self.alphas_cumprod[t])

    def predictions(self, output, z_t, alpha_bar):
        """What the model says of z_t, whatever it was trained to predict -> (ẑ_0, ε), both like z_t.

        "epsilon": ε itself. "sample": ẑ_0. "v_prediction": v = √ᾱ ε - √(1 - ᾱ) z_0 (Salimans & Ho 2022, arXiv
        2202.00512, appendix D), the only one that tells both where ᾱ is 0 or 1.
        """
        kind = self.config["prediction_type"]
        signal, noise = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        if kind == "v_prediction":
            return signal * z_t - noise * output, signal * output + noise * z_t
        if (signal if kind == "epsilon" else noise) == 0:
            raise UserError(f"prediction_type = {kind!r} tells nothing where ᾱ is {alpha_bar:g}: use 'v_prediction'")
        if kind == "sample":
            return output, (z_t - signal * output) / noise
        return predict_clean(z_t, output, alpha_bar), output

    def training_levels(self, u):
        """The timesteps ⌊T u⌋ of u (N,) in [0, 1) -> t (N,), √ᾱ_t and √(1 - ᾱ_t) as of noise_levels; all float32."""
        t = np.minimum((self.train_steps * u).astype(np.int64), self.train_steps - 1)
        return t.astype(np.float32), *self.noise_levels(t)

    def posterior(self, t):
        """What the loss of a learnt variance asks of q(z_prev | z_t, z_0) = N(μ̃, β̃), t - 1 before an array t (N,)
        (Ho et al. 2020, equations 6 and 7): four (N, 1, 1, 1) float32 host arrays.

        How much of an error of the model's output is one of its mean; log β̃, at t = 0 that of t = 1, as β̃ is 0 there;
        log β; and 1, or 0 at t = 0.
        """
        alpha_bar, beta = self.alphas_cumprod, self.betas
        before = np.concatenate([[1.0], alpha_bar[:-1]])
        variance = (1 - before) / (1 - alpha_bar) * beta
        of_clean = np.sqrt(before) * beta / (1 - alpha_bar)
        with np.errstate(divide="ignore"):  # of ε at zero terminal SNR, which `predictions` refuses
            of_output = {
                "epsilon": np.sqrt(1 / alpha_bar - 1),
                "v_prediction": np.sqrt(1 - alpha_bar),
                "sample": np.ones_like(alpha_bar),
            }[self.config["prediction_type"]]
        low = np.log(np.concatenate([variance[1:2], variance[1:]]))
        every = of_clean * of_output, low, np.log(beta), np.arange(len(beta)) > 0
        return [x[t].reshape(-1, 1, 1, 1).astype(np.float32) for x in every]

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
