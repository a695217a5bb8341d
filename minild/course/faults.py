"""Common faults that take more than a line, for hints that name them: each has the signature of what it gets wrong."""

import math

import numpy as np

from minild.gradcheck import GradientError
from minild.ops.attention import attention_backward, merge_heads, split_heads
from minild.ops.norm import by_group, group_norm_backward
from minild.random import standard_normal


def one_generator(generators, shape, dtype="float32"):
    return generators[0].standard_normal((len(generators), *shape), dtype=np.float32).astype(dtype)


def draws_in_float64(generators, shape, dtype="float32"):
    return np.stack([g.standard_normal(shape) for g in generators]).astype(dtype)


def interleaved(embedding):
    """Timestep embedding with sines and cosines in turns."""

    def variant(t, dim, *args, **kwargs):
        y, cache = embedding(t, dim, *args, **kwargs)
        half = dim // 2
        turns = np.stack([y[:, :half], y[:, half : 2 * half]], axis=2).reshape(len(t), -1)
        return np.concatenate([turns, y[:, 2 * half :]], axis=1), cache

    return variant


def counts_once(dy, cache):
    dweight = np.zeros((cache.vocabulary, dy.shape[-1]), dy.dtype)
    dweight[cache.ids] += dy
    return dweight


def upstream_of_ones(op, op_backward, inputs, step=1e-5, tolerance=1e-6):
    """A gradient checker whose dy is all ones."""
    inputs = {name: x.astype(np.float64) for name, x in inputs.items()}
    y, cache = op(**inputs)
    gradients = op_backward(np.ones_like(y), cache)
    largest = 0.0
    for x, dx in zip(inputs.values(), gradients if isinstance(gradients, tuple) else (gradients,)):
        numeric = np.empty_like(x)
        for index in np.ndindex(x.shape):
            middle, sums = x[index], []
            for x[index] in (middle + step, middle - step):
                sums.append(op(**inputs)[0].sum())
            x[index] = middle
            numeric[index] = (sums[0] - sums[1]) / (2 * step)
        error = np.max(np.abs(dx - numeric)) / max(np.max(np.abs(dx)), np.max(np.abs(numeric)), 1e-4)
        if not error <= tolerance:
            raise GradientError("they differ")
        largest = max(largest, error)
    return largest


def scores_without(left_out):
    """attention_backward that passes the softmax by ("softmax"), or lacks its sum ("sum")."""

    def backward(dy, cache):
        q, k, v, weights, _ = cache
        dscores = split_heads(dy, q.shape[1]) @ v.swapaxes(-1, -2) / math.sqrt(q.shape[3])
        dscores = dscores if left_out == "softmax" else weights * dscores
        dv = attention_backward(dy, cache)[2]
        return merge_heads(dscores @ k), merge_heads(dscores.swapaxes(-1, -2) @ q), dv

    return backward


def scores_not_scaled(dy, cache):
    dq, dk, dv = attention_backward(dy, cache)
    root = math.sqrt(cache.q.shape[3])
    return dq * root, dk * root, dv


def attention_layer_without(left_out):
    """Attention.backward in which one of the three ways to the source leads nowhere: "self", "k" or "v"."""

    def backward(self, dy, cache):
        cache_q, cache_k, cache_v, cache_attention, cache_out, is_self = cache
        dq, dk, dv = cache_attention.backward(self.to_out[0].backward(dy, cache_out))
        ways = {"v": self.to_v.backward(dv, cache_v), "k": self.to_k.backward(dk, cache_k)}
        dsource = sum(way for name, way in ways.items() if name != left_out)
        dx = self.to_q.backward(dq, cache_q)
        if not is_self:
            return dx, dsource
        return (dx if left_out == "self" else dx + dsource), None

    return backward


def group_norm_without(left_out):
    """group_norm_backward without one of the terms of dx: "mean" or "variance"."""

    def backward(dy, cache):
        xhat, gamma, rstd, groups = cache
        dxhat, xhat = by_group(gamma * dy, groups), by_group(xhat, groups)
        terms = {
            "mean": dxhat.mean(axis=(1, 3), keepdims=True),
            "variance": xhat * (dxhat * xhat).mean(axis=(1, 3), keepdims=True),
        }
        dx = rstd * (dxhat - sum(term for name, term in terms.items() if name != left_out))
        return dx.reshape(dy.shape), *group_norm_backward(dy, cache)[1:]

    return backward


def softmax_over_rows(dy, cache):
    return cache.y * (dy - (cache.y * dy).sum(axis=-2, keepdims=True))


def ddim_with(flaw):
    """ddim with a flaw: "same level", "no eta" or "epsilon whole"."""

    def sampler(predict, latents, schedule, steps, generators=None, eta=0.0):
        for t in schedule.timesteps(steps).tolist():
            now, previous = schedule.alpha_bar(t), schedule.alpha_bar(t - schedule.train_steps // steps)
            clean, epsilon = schedule.predictions(predict(latents, t), latents, now)
            sigma = eta * math.sqrt((1 - previous) / (1 - now) * max(0.0, 1 - now / previous))
            sigma = 0.0 if flaw == "no eta" else sigma
            previous = now if flaw == "same level" else previous
            taken = 0.0 if flaw == "epsilon whole" else sigma**2
            latents = math.sqrt(previous) * clean + math.sqrt(max(0.0, 1 - previous - taken)) * epsilon
            if sigma > 0:
                latents += sigma * standard_normal(generators, latents.shape[1:], latents.dtype)
            yield latents

    return sampler


def ddpm_with(flaw):
    """ddpm with a flaw: "wide" (the variance of the forward step), "noisy end" or "mean of the clean"."""

    def sampler(predict, latents, schedule, steps, generators):
        timesteps = schedule.timesteps(steps).tolist()
        for t, before in zip(timesteps, [*timesteps[1:], None]):
            now = schedule.alpha_bar(t)
            previous = 1.0 if before is None else schedule.alpha_bar(before)
            alpha = now / previous
            clean, _ = schedule.predictions(predict(latents, t), latents, now)
            mean = math.sqrt(previous) * (1 - alpha) * clean + math.sqrt(alpha) * (1 - previous) * latents
            mean = math.sqrt(previous) * clean if flaw == "mean of the clean" else mean / (1 - now)
            narrow = (1 - previous) / (1 - now) * (1 - alpha)
            end = 1 - alpha if flaw == "noisy end" else 0.0
            variance = end if before is None else 1 - alpha if flaw == "wide" else narrow
            noise = standard_normal(generators, latents.shape[1:], latents.dtype) if variance > 0 else 0
            latents = mean + math.sqrt(variance) * noise
            yield latents

    return sampler
