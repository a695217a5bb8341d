"""The arguments that tasks are tried on: shapes that hide no transposition, drawn anew for every grading.

Each function takes a numpy Generator and a dtype and returns a list of {argument: value}.
"""

import numpy as np

from minild.course.task import returning
from minild.diffusion.schedule import NoiseSchedule
from minild.gradcheck import GradientError
from minild.models.autoencoder_kl import DiagonalGaussian, reparameterize
from minild.nn.attention import Attention, FeedForward
from minild.nn.module import Module, Parameter
from minild.ops.activation import silu, silu_backward, softmax, softmax_backward
from minild.ops.attention import attention
from minild.ops.conv import conv2d
from minild.ops.embedding import token_embedding
from minild.ops.linear import linear, linear_backward
from minild.ops.loss import gaussian_kl
from minild.ops.norm import group_norm


def normal(rng, dtype, *shape):
    return rng.standard_normal(shape).astype(dtype)


def with_gradient(rng, dtype, results):
    """(y, cache) of an op each -> {dy, cache} each: what its backward takes, dy normal."""
    return [{"dy": normal(rng, dtype, *np.shape(y)), "cache": cache} for y, cache in results]


def feature_map(rng, dtype):
    return [{"x": normal(rng, dtype, 2, 3, 5, 4)}]


def timesteps(rng, dtype):
    def t():
        return rng.uniform(1, 999, 3).astype(dtype)

    return [
        {"t": t(), "dim": 6},
        {"t": t(), "dim": 7, "flip_sin_to_cos": False},
        {"t": t(), "dim": 8, "freq_shift": 1, "max_period": 500},
    ]


def token_gradient(rng, dtype):
    ids = rng.integers(0, 5, (2, 6))
    ids[1, :3] = ids[0, 0]  # a token that comes several times
    return with_gradient(rng, dtype, [token_embedding(ids, normal(rng, dtype, 7, 3))])


def noise_of_images(rng, dtype):
    seeds = rng.integers(0, 1 << 31, 3)
    return [{"generators": [np.random.default_rng(s) for s in seeds], "shape": (2, 3, 4), "dtype": dtype.name}]


def linear_gradient(rng, dtype):
    x, weight, bias = normal(rng, dtype, 2, 3, 4), normal(rng, dtype, 4, 5), normal(rng, dtype, 5)
    return with_gradient(rng, dtype, [linear(x, weight, bias), linear(x, weight)])


def silu_gradient(rng, dtype):
    return with_gradient(rng, dtype, [silu(3 * normal(rng, dtype, 4, 7))])


def randomised(rng, dtype, module):
    """The module with normal parameters."""
    for parameter in module.parameters():
        parameter.data = normal(rng, dtype, *parameter.data.shape)
    return module


def module_gradient(rng, dtype, module, *inputs):
    module = randomised(rng, dtype, module)
    y, cache = module.forward(*inputs)
    return {"self": module, "dy": normal(rng, dtype, *y.shape), "cache": cache}


def feed_forward_gradient(rng, dtype):
    return [module_gradient(rng, dtype, FeedForward(3), normal(rng, dtype, 2, 5, 3))]


def attention_layer_gradient(rng, dtype):
    x, context = normal(rng, dtype, 2, 5, 6), normal(rng, dtype, 2, 3, 4)
    return [
        module_gradient(rng, dtype, Attention(6, 2), x),
        module_gradient(rng, dtype, Attention(6, 3, 4), x, context),
    ]


def backwards_to_check(rng, dtype):
    """Right and wrong backwards, in random order, for a gradient checker: {"trials": {what it is: ...}}."""
    x = {"x": normal(rng, dtype, 3, 4)}
    affine = {"x": normal(rng, dtype, 3, 4), "weight": normal(rng, dtype, 4, 2), "bias": normal(rng, dtype, 2)}
    where = int(rng.integers(12))

    def one_element_off(dy, cache):
        dx = silu_backward(dy, cache)
        dx.reshape(-1)[where] += 1e-3
        return dx

    def changes_dy(dy, cache):
        dx = silu_backward(dy, cache)
        dy *= 2
        return dx

    def without_bias(dy, cache):
        return *linear_backward(dy, cache)[:2], np.zeros(2)

    trials = {
        "a right linear layer": (linear, linear_backward, affine),
        "a right SiLU": (silu, silu_backward, x),
        "a right softmax": (softmax, softmax_backward, x),
        "a flipped sign": (silu, lambda dy, cache: -silu_backward(dy, cache), x),
        "twice the gradient": (silu, lambda dy, cache: 2 * silu_backward(dy, cache), x),
        "zeros for a softmax": (softmax, lambda dy, cache: np.zeros_like(dy), x),
        "a missing term": (softmax, lambda dy, cache: cache.y * dy, x),
        "zeros for a bias": (linear, without_bias, affine),
        "one element off": (silu, one_element_off, x),
        "not a number": (silu, lambda dy, cache: silu_backward(dy, cache) * np.nan, x),
        "a backward that changes dy": (silu, changes_dy, x),
    }
    names = list(trials)
    return [{"trials": {names[i]: trials[names[i]] for i in rng.permutation(len(names))}}]


@returning("Return the largest relative error, a float, where the backward is right.")
def verdicts(function, arguments):
    """What a gradient checker says of each trial: whether it raises GradientError."""

    def raises(op, op_backward, inputs):
        def forward(*arrays, **named):
            return op(*arrays, **named)

        def backward(dy, cache):  # the right ones and the wrong ones by one name
            return op_backward(dy, cache)

        try:
            copies = {name: x.copy() for name, x in inputs.items()}
            largest = function(op=forward, op_backward=backward, inputs=copies)
        except GradientError:
            return True
        return not (isinstance(largest, (float, np.floating)) and 0 <= largest <= 1e-6)

    return {f"complains of {what}": np.array(raises(*trial)) for what, trial in arguments["trials"].items()}


def patches(rng, dtype):
    return [
        {"padded": normal(rng, dtype, 2, 5, 6, 3), "kernel": (3, 2), "stride": 1},
        {"padded": normal(rng, dtype, 2, 5, 8, 3), "kernel": (3, 3), "stride": 2},
    ]


def convolutions(rng, dtype):
    def arguments(kernel, bias, **settings):
        settings |= {"x": normal(rng, dtype, 2, 5, 7, 3), "weight": normal(rng, dtype, *kernel, 3, 4)}
        return settings | {"bias": normal(rng, dtype, 4) if bias else None}

    return [
        arguments((3, 3), True, stride=1, padding=1),
        arguments((3, 2), True, stride=1, padding=0),
        arguments((3, 3), False, stride=2, padding=((0, 1), (0, 2))),
    ]


def convolution_gradient(rng, dtype):
    return with_gradient(rng, dtype, [conv2d(**arguments) for arguments in convolutions(rng, dtype)])


def softmax_gradient(rng, dtype):
    return with_gradient(rng, dtype, [softmax(normal(rng, dtype, 2, 4, 5))])


def tokens_of_heads(rng, dtype):
    return [{"x": normal(rng, dtype, 2, 5, 12), "heads": 3}]


def scores(rng, dtype):
    return [{"scores": normal(rng, dtype, 2, 5, 5)}, {"scores": normal(rng, dtype, 6, 6)}]


def attentions(rng, dtype):
    x, query, context = normal(rng, dtype, 2, 5, 6), normal(rng, dtype, 2, 4, 6), normal(rng, dtype, 2, 3, 6)
    return [
        {"q": query, "k": context, "v": normal(rng, dtype, 2, 3, 6), "heads": 3},
        {"q": x, "k": 2 * x, "v": x + 1, "heads": 2},
        {"q": x, "k": normal(rng, dtype, 2, 5, 6), "v": normal(rng, dtype, 2, 5, 6), "heads": 2, "causal": True},
    ]


def attention_gradient(rng, dtype):
    return with_gradient(rng, dtype, [attention(**arguments) for arguments in attentions(rng, dtype)])


def normalisations(rng, dtype):
    def arguments(*shape, **settings):
        C = shape[-1]
        settings |= {"x": 2 * normal(rng, dtype, *shape) + 1, "gamma": normal(rng, dtype, C)}
        return settings | {"beta": normal(rng, dtype, C)}

    return [arguments(2, 3, 5, 6, groups=3, eps=1e-5), arguments(3, 4, 8, groups=2, eps=0.1)]


def normalisation_gradient(rng, dtype):
    return with_gradient(rng, dtype, [group_norm(**arguments) for arguments in normalisations(rng, dtype)])


def posteriors(rng, dtype):
    posterior = DiagonalGaussian(normal(rng, dtype, 2, 3, 5, 4), normal(rng, dtype, 2, 3, 5, 4))
    return [{"posterior": posterior, "noise": normal(rng, dtype, 2, 3, 5, 4)}]


def sample_gradient(rng, dtype):
    results = [reparameterize(**arguments) for arguments in posteriors(rng, dtype)]
    return [{"dz": arguments["dy"], "cache": arguments["cache"]} for arguments in with_gradient(rng, dtype, results)]


def moments(rng, dtype):
    return [{"mean": normal(rng, dtype, 2, 3, 5, 4), "logvar": normal(rng, dtype, 2, 3, 5, 4)}]


def divergence_gradient(rng, dtype):
    results = [gaussian_kl(**arguments) for arguments in moments(rng, dtype)]
    return [{"dy": float(rng.uniform(1, 3)), "cache": cache} for _, cache in results]


def ends_of_betas(rng, dtype):
    return [{"start": rng.uniform(1e-4, 1e-3), "end": rng.uniform(0.01, 0.02), "steps": int(rng.integers(90, 110))}]


def noisings(rng, dtype):
    z, noise = normal(rng, dtype, 3, 4, 5, 2), normal(rng, dtype, 3, 4, 5, 2)
    signal_level, noise_level = (x.astype(dtype) for x in NoiseSchedule().noise_levels(rng.integers(0, 1000, 3)))
    return [{"z": z, "noise": noise, "signal_level": signal_level, "noise_level": noise_level}]


class TinyModel(Module):
    """Some function of (x, t, context), in place of a U-Net."""

    def __init__(self):
        self.of_latents, self.of_context = Parameter((2,), 1.0), Parameter((3, 2), 1.0)

    def forward(self, x, t, context):
        from_context = context.mean(axis=1) @ self.of_context.value
        y = x * self.of_latents.value + np.sin(t + from_context.T).T[:, None, None, :]
        return y.astype(x.dtype), (x, t, context)


def epsilon_losses(rng, dtype):
    N = 3
    t = rng.integers(0, 1000, N)
    z, noise = normal(rng, dtype, N, 4, 5, 2), normal(rng, dtype, N, 4, 5, 2)
    arguments = {"model": randomised(rng, dtype, TinyModel()), "z": z, "noise": noise, "t": t}
    levels = tuple(x.astype(dtype) for x in NoiseSchedule().noise_levels(t))
    return [arguments | {"levels": levels, "context": normal(rng, dtype, N, 6, 3)}]


def samplings(rng, dtype, **settings):
    """A model that is a function of latents and t, noise, and a generator for each of two pictures."""
    a, b = rng.uniform(0.2, 0.8, 2)
    return {
        "predict": lambda latents, t: (a * latents + b * np.sin(latents + t)).astype(latents.dtype),
        "latents": normal(rng, dtype, 2, 3, 4, 2),
        "schedule": NoiseSchedule(settings.pop("config", None)),
        "generators": [np.random.default_rng(seed) for seed in rng.integers(0, 1 << 31, 2)],
        **settings,
    }


def ddim_samplings(rng, dtype):
    return [
        samplings(rng, dtype, steps=4),
        samplings(rng, dtype, steps=5, eta=0.7, config={"set_alpha_to_one": True}),
        samplings(rng, dtype, steps=3, config={"prediction_type": "v_prediction"}),
    ]


def ddpm_samplings(rng, dtype):
    return [samplings(rng, dtype, steps=4), samplings(rng, dtype, steps=3, config={"prediction_type": "v_prediction"})]


def guidances(rng, dtype):
    def arguments(**settings):
        context, negative = normal(rng, dtype, 3, 6, 3), normal(rng, dtype, 3, 6, 3)
        settings |= {"model": randomised(rng, dtype, TinyModel()), "context": context, "negative_context": negative}
        return settings | {"latents": normal(rng, dtype, 3, 4, 5, 2), "t": int(rng.integers(1000))}

    return [arguments(guidance_scale=7.5), arguments(guidance_scale=2.0, rescale=0.7), arguments(guidance_scale=1)]


@returning("Return a function predict(latents, t) -> ε, like the latents.")
def guided_prediction(function, arguments):
    """What the predict(latents, t) that the function returns says."""
    arguments = dict(arguments)
    latents, t = arguments.pop("latents"), arguments.pop("t")
    return {"epsilon": function(**arguments)(latents, t)}
