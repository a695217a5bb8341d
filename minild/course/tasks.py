"""The table of exercises. A new one, for a chapter that is here or for a later one, is an entry of TASKS."""

import numpy as np

from minild.course import faults, inputs
from minild.course.task import Task, gradients, method_gradients, op, steps, value
from minild.diffusion.guidance import guided
from minild.diffusion.schedule import add_noise
from minild.ops.activation import silu
from minild.ops.attention import attention
from minild.ops.conv import conv2d, conv2d_backward, im2col
from minild.ops.embedding import timestep_embedding
from minild.ops.loss import gaussian_kl_backward, mse
from minild.ops.norm import group_norm

CHAPTERS = {
    1: "arrays on two devices",
    2: "backward by hand",
    3: "convolution",
    4: "attention",
    5: "the autoencoder",
    6: "latent diffusion",
}
SILU = ("minild.ops.activation:silu", "minild.ops.activation:silu_backward")
SOFTMAX = ("minild.ops.activation:softmax", "minild.ops.activation:softmax_backward")
LINEAR = ("minild.ops.linear:linear", "minild.ops.linear:linear_backward")
BOTH = ("cpu", "second")
TWO_DEVICES = "Arrays may be of another device: call the functions of minild.backend.get_array_module(x), never np's."
APART = "The three tasks of this function are marked apart: return None for a gradient that you have not got to."

TASKS = (
    Task(
        "1.1", "upsampling by broadcasting", "minild.ops.resample:upsample_nearest", 1, inputs.feature_map, op,
        note=TWO_DEVICES, devices=BOTH, faults={
            "the picture is repeated as a whole: repeat each pixel": lambda x: (np.tile(x, (1, 2, 2, 1)), None),
        },
    ),
    Task(
        "1.2", "the timestep's embedding", "minild.ops.embedding:timestep_embedding", 2, inputs.timesteps, op,
        note=TWO_DEVICES, devices=BOTH, faults={
            "sines and cosines come in turns: first come all of the one, then all of the other":
                faults.interleaved(timestep_embedding),
            "sine and cosine are exchanged": lambda t, dim, flip_sin_to_cos=True, *a, **k:
                timestep_embedding(t, dim, not flip_sin_to_cos, *a, **k),
        },
    ),
    Task(
        "1.3", "the gradient of a table", "minild.ops.embedding:token_embedding_backward", 2, inputs.token_gradient,
        gradients("dweight"), note=TWO_DEVICES, devices=BOTH, faults={
            "a token that comes several times is counted once: dweight[ids] += dy keeps only the last":
                faults.counts_once,
        },
    ),
    Task(
        "1.4", "noise that is a picture's own", "minild.random:standard_normal", 1, inputs.noise_of_images,
        value("noise"), faults={
            "all pictures are drawn from the first generator": faults.one_generator,
            "the numbers are drawn in float64: ask the generator for float32, then convert": faults.draws_in_float64,
        },
    ),
    Task(
        "2.1", "a linear layer, backwards", "minild.ops.linear:linear_backward", 2, inputs.linear_gradient,
        gradients("dx", "dweight", "dbias"), faults={
            "dbias is the mean over the rows, where it is their sum": lambda dy, cache: (
                dy @ cache.weight.T, np.einsum("nli,nlo->io", cache.x, dy), dy.mean(axis=(0, 1))),
        },
    ),
    Task(
        "2.2", "SiLU, backwards", "minild.ops.activation:silu_backward", 1, inputs.silu_gradient, gradients("dx"),
        faults={
            "only dy · σ(x): the term through the gate's own slope is missing":
                lambda dy, cache: dy / (1 + np.exp(-cache.x)),
            "only the term through the gate's slope: dy · σ(x) is missing": lambda dy, cache: dy * silu(cache.x)[0]
                * (1 - 1 / (1 + np.exp(-cache.x))),
        },
    ),
    Task(
        "2.3", "a chain of caches", "minild.nn.attention:FeedForward.backward", 2, inputs.feed_forward_gradient,
        method_gradients("dx"), name="feed_forward_backward",
        uses=("minild.nn.attention:GatedProjection", "minild.nn.layers:Linear", "minild.nn.layers:Stateless", *LINEAR,
              "minild.ops.activation:geglu_backward", "minild.ops.activation:geglu"),
    ),
    Task(
        "2.4", "a gradient checker", "minild.gradcheck:check", 4, inputs.backwards_to_check, inputs.verdicts,
        uses=(*LINEAR, *SILU, *SOFTMAX), faults={"dy is all ones: make it random": faults.upstream_of_ones},
    ),
    Task(
        "3.1", "im2col", "minild.ops.conv:im2col", 2, inputs.patches, value("columns"),
        faults={
            "the patches are turned by 180°": lambda padded, kernel, stride:
                im2col(padded, kernel, stride)[:, :, :, ::-1, ::-1],
        },
    ),
    Task(
        "3.2", "convolution", "minild.ops.conv:conv2d", 3, inputs.convolutions, op,
        uses=("minild.ops.conv:im2col",), faults={
            "the kernel is turned by 180°: it is a correlation that is asked for": lambda x, weight, *a, **k:
                conv2d(x, weight[::-1, ::-1], *a, **k),
            "the bias is left out": lambda x, weight, bias=None, **k: conv2d(x, weight, None, **k),
        },
    ),
    Task(
        "3.3", "convolution, backwards to the input", "minild.ops.conv:conv2d_backward", 3,
        inputs.convolution_gradient, gradients("dx", "dweight", "dbias"), graded=("dx",), note=APART,
        uses=("minild.ops.conv:im2col", "minild.ops.conv:col2im"), faults={
            "the kernel should be turned by 180°, for dy looks back at x": lambda dy, cache:
                conv2d_backward(dy, cache._replace(weight=cache.weight[::-1, ::-1])),
        },
    ),
    Task(
        "3.4", "convolution, backwards to the weights", "minild.ops.conv:conv2d_backward", 2,
        inputs.convolution_gradient, gradients("dx", "dweight", "dbias"), graded=("dweight",),
        uses=("minild.ops.conv:im2col", "minild.ops.conv:col2im"), faults={
            "the taps are turned by 180°: here nothing rotates": lambda dy, cache:
                (None, conv2d_backward(dy, cache)[1][::-1, ::-1], None),
        },
    ),
    Task(
        "3.5", "convolution, backwards to the bias", "minild.ops.conv:conv2d_backward", 1,
        inputs.convolution_gradient, gradients("dx", "dweight", "dbias"), graded=("dbias",),
        uses=("minild.ops.conv:im2col", "minild.ops.conv:col2im"), faults={
            "the sum runs over the pixels of the first picture only": lambda dy, cache:
                (None, None, dy[0].sum(axis=(0, 1))),
        },
    ),
    Task(
        "4.1", "softmax, backwards", "minild.ops.activation:softmax_backward", 2, inputs.softmax_gradient,
        gradients("dx"), faults={
            "y · dy: the term - y · Σ_j dy_j y_j is missing": lambda dy, cache: cache.y * dy,
            "the sum over j is taken over the wrong axis": faults.softmax_over_rows,
        },
    ),
    Task(
        "4.2", "heads", "minild.ops.attention:split_heads", 1, inputs.tokens_of_heads, value("y"), faults={
            "one reshape to (N, heads, L, d) mixes tokens with heads: split the width, then move its axis":
                lambda x, heads: x.reshape(len(x), heads, x.shape[1], -1),
            "the heads are taken in turns: they are slices of the width": lambda x, heads:
                x.reshape(*x.shape[:2], -1, heads).transpose(0, 3, 1, 2),
        },
    ),
    Task(
        "4.3", "the causal mask", "minild.ops.attention:causal_mask", 1, inputs.scores, value("mask"), faults={
            "the diagonal is masked, too: query i may see key i": lambda scores:
                np.triu(np.full(scores.shape[-2:], -np.inf, scores.dtype)),
            "what is masked is what came before: the past may be seen, the future not": lambda scores:
                np.tril(np.full(scores.shape[-2:], -np.inf, scores.dtype), -1),
        },
    ),
    Task(
        "4.4", "attention", "minild.ops.attention:attention", 3, inputs.attentions, op,
        uses=(*SOFTMAX, "minild.ops.attention:split_heads", "minild.ops.attention:merge_heads",
              "minild.ops.attention:causal_mask"), faults={
            "the scores are not divided by √d": lambda q, k, v, heads, **s:
                attention(q * (q.shape[2] // heads) ** 0.5, k, v, heads, **s),
            "the scores are divided by the root of the whole width: d is D / heads": lambda q, k, v, heads, **s:
                attention(q / heads**0.5, k, v, heads, **s),
            "causal makes no difference": lambda q, k, v, heads, causal=False: attention(q, k, v, heads),
            "there is one head only": lambda q, k, v, heads, **s: attention(q, k, v, 1, **s),
        },
    ),
    Task(
        "4.5", "attention, backwards", "minild.ops.attention:attention_backward", 4, inputs.attention_gradient,
        gradients("dq", "dk", "dv"),
        uses=(*SOFTMAX, "minild.ops.attention:split_heads", "minild.ops.attention:merge_heads"), faults={
            "dq and dk lack the division by √d": faults.scores_not_scaled,
            "dscores is dweights, not passed through the softmax's backward": faults.scores_without("softmax"),
            "the softmax's backward lacks its sum": faults.scores_without("sum"),
        },
    ),
    Task(
        "4.6", "a layer of attention, self or cross", "minild.nn.attention:Attention.backward", 3,
        inputs.attention_layer_gradient, method_gradients("dx", "dcontext"), name="attention_layer_backward",
        uses=("minild.nn.layers:Linear", "minild.ops.attention:attention_backward", *LINEAR), faults={
            "x is also the source of keys and values: their gradients belong to dx": faults.attention_layer_without(
                "self"),
            "the gradient that comes by way of the keys is missing": faults.attention_layer_without("k"),
            "the gradient that comes by way of the values is missing": faults.attention_layer_without("v"),
        },
    ),
    Task(
        "5.1", "group norm", "minild.ops.norm:group_norm", 2, inputs.normalisations, op, faults={
            "mean and variance are of each channel alone: they are the group's": lambda x, gamma, beta, groups, eps:
                group_norm(x, gamma, beta, x.shape[-1], eps),
            "mean and variance are of all channels: each group has its own": lambda x, gamma, beta, groups, eps:
                group_norm(x, gamma, beta, 1, eps),
            "eps is left out": lambda x, gamma, beta, groups, eps: group_norm(x, gamma, beta, groups, 0.0),
        },
    ),
    Task(
        "5.2", "group norm, backwards", "minild.ops.norm:group_norm_backward", 4, inputs.normalisation_gradient,
        gradients("dx", "dgamma", "dbeta"),
        uses=("minild.ops.norm:by_group",), faults={
            "the term through the mean is missing": faults.group_norm_without("mean"),
            "the term through the variance is missing": faults.group_norm_without("variance"),
        },
    ),
    Task(
        "5.3", "reparameterisation", "minild.models.autoencoder_kl:reparameterize", 1, inputs.posteriors, op, faults={
            "the deviation is exp(logvar / 2), not the variance exp(logvar)": lambda posterior, noise:
                (posterior.mean + np.exp(posterior.logvar) * noise, None),
        },
    ),
    Task(
        "5.4", "reparameterisation, backwards", "minild.models.autoencoder_kl:reparameterize_backward", 1,
        inputs.sample_gradient, gradients("dmean", "dlogvar"), faults={
            "dlogvar lacks the 1/2 of exp(logvar / 2)": lambda dz, cache: (dz, dz * cache.noise * cache.deviation),
            "dlogvar lacks the noise": lambda dz, cache: (dz, dz * cache.deviation / 2),
        },
    ),
    Task(
        "5.5", "the KL divergence", "minild.ops.loss:gaussian_kl", 2, inputs.moments, op, faults={
            "the 1 is not taken off": lambda mean, logvar: ((mean**2 + np.exp(logvar) - logvar).mean() / 2, None),
            "logvar is taken for the log of the deviation": lambda mean, logvar:
                ((mean**2 + np.exp(2 * logvar) - 1 - 2 * logvar).mean() / 2, None),
        },
    ),
    Task(
        "5.6", "the KL divergence, backwards", "minild.ops.loss:gaussian_kl_backward", 1, inputs.divergence_gradient,
        gradients("dmean", "dlogvar"), faults={
            "dlogvar lacks the -1": lambda dy, cache: (
                dy * cache.mean / cache.mean.size, dy * np.exp(cache.logvar) / (2 * cache.mean.size)),
            "the upstream gradient dy is left out": lambda dy, cache: gaussian_kl_backward(1.0, cache),
        },
    ),
    Task(
        "6.1", "the noise schedule", "minild.diffusion.schedule:scaled_linear_betas", 1, inputs.ends_of_betas,
        value("betas"), faults={
            "β goes in equal steps: it is √β that does": lambda start, end, steps: np.linspace(start, end, steps),
            "the last β is not `end`": lambda start, end, steps:
                np.linspace(start**0.5, end**0.5, steps, endpoint=False) ** 2,
        },
    ),
    Task(
        "6.2", "q(z_t | z_0)", "minild.diffusion.schedule:add_noise", 1, inputs.noisings, value("z_t"), faults={
            "signal and noise levels are exchanged": lambda z, noise, signal_level, noise_level:
                add_noise(z, noise, noise_level, signal_level),
            "the levels are roots already": lambda z, noise, signal_level, noise_level:
                add_noise(z, noise, signal_level**0.5, noise_level**0.5),
        },
    ),
    Task(
        "6.3", "the ε loss", "minild.diffusion.loss:epsilon_loss", 2, inputs.epsilon_losses, op,
        uses=("minild.diffusion.schedule:add_noise", "minild.ops.loss:mse"), faults={
            "the prediction is compared with z: it should tell the noise": lambda model, z, noise, t, levels, context:
                mse(model.forward(add_noise(z, noise, *levels), t, context)[0], z),
            "the model is shown z without noise": lambda model, z, noise, t, levels, context:
                mse(model.forward(z, t, context)[0], noise),
        },
    ),
    Task(
        "6.4", "DDIM", "minild.diffusion.ddim:ddim", 3, inputs.ddim_samplings, steps,
        uses=("minild.diffusion.schedule:NoiseSchedule",), faults={
            "the new latents are made with ᾱ_t: the step goes to ᾱ_prev": faults.ddim_with("same level"),
            "eta makes no difference": faults.ddim_with("no eta"),
            "ε keeps its whole share beside the fresh noise: σ² has to come off": faults.ddim_with("epsilon whole"),
        },
    ),
    Task(
        "6.5", "DDPM", "minild.diffusion.ddpm:ddpm", 3, inputs.ddpm_samplings, steps,
        uses=("minild.diffusion.schedule:NoiseSchedule",), faults={
            "the variance is that of the forward step, not of the posterior": faults.ddpm_with("wide"),
            "the last step adds noise": faults.ddpm_with("noisy end"),
            "the mean is that of ẑ_0 alone, without z_t's share": faults.ddpm_with("mean of the clean"),
        },
    ),
    Task(
        "6.6", "guidance", "minild.diffusion.guidance:guided", 2, inputs.guidances, inputs.guided_prediction,
        uses=("minild.diffusion.guidance:rescaled",), faults={
            "the scale is counted from the positive half: it starts from the negative one":
                lambda model, context, negative_context, guidance_scale, **k:
                guided(model, context, negative_context, guidance_scale + 1, **k),
            "the two halves are exchanged": lambda model, context, negative_context, *a, **k:
                guided(model, negative_context, context, *a, **k),
            "rescale makes no difference": lambda model, context, negative_context, guidance_scale, rescale=0.0:
                guided(model, context, negative_context, guidance_scale),
        },
    ),
)
