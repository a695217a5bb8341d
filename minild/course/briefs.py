"""What a stub says of its function: what goes in, what comes out, and what holds for both. Never how it is computed.

One entry a line: what begins with two blanks belongs to the line before.
tests/course/test_stubs.py takes every formula that it finds in these texts, and fails where one of them gives what an
exercise of the same chapter asks for.
"""

SAMPLER = """\
predict: a function; predict(latents, t) -> what the model says of the latents at timestep t, like latents.
latents: (N, h, w, c), noise of unit variance, at the largest timestep.
schedule: a NoiseSchedule. schedule.timesteps(steps) are the timesteps to visit, largest first; schedule.alpha_bar(t) is
  ᾱ_t, a number; schedule.predictions(output, z_t, alpha_bar) -> (ẑ_0, ε), both like z_t, whatever the model was
  trained to predict; schedule.train_steps is T."""

BRIEFS = {
    "upsample_nearest": """
Enlarge pictures: every pixel becomes a square of 2 x 2 equal pixels.

x: (N, H, W, C).
y: (N, 2H, 2W, C), of the same dtype.
""",
    "timestep_embedding": """
The embedding of timesteps: waves of falling frequency, read at t.

t: (N,), floating-point timesteps.
dim: the width of y. One half of it (rounded down) are cosines, one half sines; if dim is odd, the last column is 0.
flip_sin_to_cos: which half comes first: the cosines, or, where it is False, the sines.
freq_shift, max_period: what sets the frequencies. The first is always 1, and they fall by an equal factor; without a
  shift they would reach 1 / max_period one place behind the last. freq_shift=1 lets the last one reach it.
y: (N, dim), of the dtype of t.
""",
    "token_embedding_backward": """
The gradient of a table from which rows were looked up: y[n, l] was weight[ids[n, l]].

dy: (N, L, D), the gradient with respect to y.
cache: the forward's, a named tuple (ids, vocabulary). ids: (N, L), integers from 0 to V - 1, among which one and the
  same number may stand several times; vocabulary: V, the number of rows.
dweight: (V, D), of the dtype of dy. A row that was never looked up has a gradient of 0.
""",
    "standard_normal": """
Noise for a batch of pictures, each from its own generator.

generators: N of numpy.random.Generator.
shape: of one picture's noise, such as (h, w, c).
dtype: of the result.
noise: (N, *shape), normal numbers of mean 0 and variance 1. What a picture gets depends on its own generator alone: not
  on the others in the batch, and not on the dtype, for the numbers are drawn as float32.
""",
    "linear_backward": """
The gradients of a linear layer, y = x @ weight + bias.

dy: (..., Cout), the gradient with respect to y.
cache: the forward's, a named tuple (x, weight, has_bias). x: (..., Cin), with any number of axes before the last;
  weight: (Cin, Cout); has_bias: True or False.
dx is like x, dweight like weight, dbias (Cout,), or None where there was no bias.
""",
    "silu_backward": """
The gradient of SiLU, of every element by itself.

dy: any shape, the gradient with respect to y.
cache: the forward's, a named tuple (x,): cache.x is like dy.
dx: like x.
""",
    "feed_forward_backward": """
The backward of the layer above: a gated projection to four times the width, and a linear layer back.

self: the layer.
dy: (..., D), the gradient with respect to y.
cache: what the forward above returned beside y: the caches of its two layers.
dx: (..., D), the gradient with respect to x. The gradients of the parameters are not returned: every layer's own
  backward(dy, cache) adds them up by itself, and returns the gradient with respect to its input.
""",
    "check": """
A gradient checker: does op_backward give the gradients of op?

op: a function; op(**inputs) -> (y, cache).
op_backward: a function; op_backward(dy, cache) -> the gradients of the inputs, in the order of `inputs`, as a tuple; of
  a single input, the gradient itself.
inputs: {name: array}, float32 or float64. The check is made in float64, and leaves these arrays as they are.
The result is the largest relative error, a float: of each input the largest difference between op_backward's gradient
  and the numeric one, as a part of the largest value in either of the two.
Raise GradientError where that is more than 1e-6 or not a number, and where op_backward changes the dy that it is given.
""",
    "im2col": """
Unfold a picture: the patch under the kernel at every place where the kernel stands.

padded: (N, H, W, C), with its margins already around it.
kernel: (kH, kW), its height and width.
stride: how many pixels the kernel moves from one place to the next, down and to the right.
columns: (N, Ho, Wo, kH, kW, C) with Ho = (H - kH) // stride + 1, and Wo likewise. A patch keeps its rows and columns
  as they are in the picture.
""",
    "conv2d": """
The convolution of the chapter, as deep learning means it: no kernel is turned.

x: (N, H, W, Cin).
weight: (kH, kW, Cin, Cout).
bias: (Cout,) or None.
stride: how many pixels the kernel moves from one place to the next, down and to the right.
padding: rows and columns of zeros around x, one number for all four sides or ((top, bottom), (left, right)).
y: (N, Ho, Wo, Cout) with Ho = (H + top + bottom - kH) // stride + 1, and Wo likewise.
""",
    "conv2d_backward": """
The gradients of `conv2d`.

dy: (N, Ho, Wo, Cout), the gradient with respect to y.
cache: the forward's, a named tuple (x, weight, has_bias, stride, margins). x and weight as they were given, x without
  its margins; margins: ((top, bottom), (left, right)).
dx is like x, dweight like weight, dbias (Cout,), or None where there was no bias.
col2im(columns, padded_shape, stride) is the other way of im2col: it adds up the patches in their places.
""",
    "softmax_backward": """
The gradient of softmax, which was taken over the last axis.

dy: (..., L), the gradient with respect to y.
cache: the forward's, a named tuple (y,): cache.y (..., L) is what came out of softmax. Its rows are positive and have
  the sum 1.
dx: like dy.
""",
    "split_heads": """
Give each head its slice of the width.

x: (N, L, D).
heads: their number, which divides D.
y: (N, heads, L, D / heads). The first head gets the first D / heads numbers of each token, the second the next, and so
  on.
""",
    "causal_mask": """
What is added to scores so that no query sees a later key.

scores: (..., L, L), rows for queries and columns for keys. Its shape and its dtype count, not its values.
mask: (L, L), of the dtype of scores: 0 where query i may see key j, and -inf where not. Query i sees key i, and all
  keys before it.
""",
    "attention": """
Scaled dot-product attention with several heads.

q: (N, Lq, D).
k, v: (N, Lk, D). In self-attention all three come from the same tokens; in cross-attention k and v come
  from the context, and Lk may differ from Lq.
heads: their number, which divides D. Each works on its own slice of the width.
causal: whether a query sees only the keys up to its own place. Then Lq and Lk are equal.
y: (N, Lq, D).

softmax(x) -> (y, cache), over the last axis; split_heads and causal_mask are tasks 4.2 and 4.3; merge_heads goes back,
  (N, heads, L, d) -> (N, L, D).
""",
    "attention_backward": """
The gradients of `attention`.

dy: (N, Lq, D), the gradient with respect to y.
cache: the forward's, a named tuple (q, k, v, weights, softmax). q: (N, heads, Lq, d), k and v: (N, heads, Lk, d), all
  split into heads; weights: (N, heads, Lq, Lk), what softmax gave; softmax: its cache, for softmax_backward.
dq: (N, Lq, D).
dk, dv: (N, Lk, D).

split_heads(x, heads): (N, L, D) -> (N, heads, L, d); merge_heads(x) goes back. A mask needs nothing here: a masked
  place has the weight 0.
""",
    "attention_layer_backward": """
The backward of the layer above: three projections, attention, and a projection of its result.

self: the layer. Its layers to_q, to_k, to_v and to_out[0] each have a backward(dy, cache), which adds to the gradients
  of its own parameters, and returns the gradient with respect to its input.
dy: (N, Lq, D), the gradient with respect to y.
cache: what the forward above returned beside y. cache_attention.backward(dh) gives (dq, dk, dv).
dx: (N, Lq, D).
dcontext: (N, Lk, Dc), or None where there was no context.
""",
    "group_norm": """
Group norm: each group of channels of each picture is brought to mean 0 and variance 1, then scaled and shifted.

x: (N, ..., C), with any number of axes between.
gamma, beta: (C,), scale and shift of every channel.
groups: the number of groups, which divides C; channels that are side by side belong together.
eps: is added to the variance, so that nothing is divided by 0.
y: like x.
""",
    "group_norm_backward": """
The gradients of `group_norm`.

dy: like x, (N, ..., C), the gradient with respect to y.
cache: the forward's, a named tuple (xhat, gamma, rstd, groups). xhat: like x, the normalised values, before gamma and
  beta; gamma: (C,); rstd: (N, 1, groups, 1), one over the standard deviation of each group, eps included.
dx: like x.
dgamma, dbeta: (C,).

by_group(x, groups): (N, ..., C) -> (N, P, groups, C / groups) with P pixels. In that shape axes 1 and 3 are a group,
  and rstd fits.
""",
    "reparameterize": """
A sample of the posterior, as a function of noise that is given: the reparameterisation trick.

posterior: a named tuple (mean, logvar), each (N, h, w, c). logvar is the natural logarithm of the variance.
noise: like mean, drawn from a normal distribution of mean 0 and variance 1.
y: z, like mean, a sample of the normal distribution with this mean and this variance.
""",
    "reparameterize_backward": """
The gradients of `reparameterize`.

dz: the gradient with respect to z.
cache: the forward's, a named tuple (deviation, noise), both like dz. deviation: the posterior's standard deviation.
dmean, dlogvar: like dz. logvar is the natural logarithm of the variance.
""",
    "gaussian_kl": """
How far the posterior is from the standard normal distribution: the Kullback-Leibler divergence, in nats.

mean, logvar: (N, h, w, c), of the posterior. logvar is the natural logarithm of the variance.
y: a number, the mean of the divergence over all the elements (not the sum).
""",
    "gaussian_kl_backward": """
The gradients of `gaussian_kl`.

dy: a number, the gradient with respect to y.
cache: the forward's, a named tuple (mean, logvar), of equal shape.
dmean, dlogvar: like mean.
""",
    "scaled_linear_betas": """
The noise schedule of latent diffusion, "scaled linear" in the chapter.

start, end: the first β and the last.
steps: T, their number.
betas: (T,) float64, growing.
""",
    "add_noise": """
The forward process in one step: a latent and noise, mixed for a timestep.

z: (N, h, w, c), latents.
noise: like z.
signal_level, noise_level: (N, 1, 1, 1), how much of each, as NoiseSchedule.noise_levels(t) gives them for the timesteps
  of the N latents. They are the factors themselves: no root has to be taken.
z_t: like z.
""",
    "epsilon_loss": """
The loss of latent diffusion: how well the model predicts the noise.

model: model.forward(x, t, context) -> (prediction, cache), the prediction like x.
z: (N, h, w, c), latents.
noise: like z.
t: (N,), timesteps.
levels: (signal_level, noise_level), what add_noise(z, noise, signal_level, noise_level) takes.
context: (N, L, D), the captions' tokens.
y: the loss, a number, a mean over all elements.
mse(prediction, target) -> (y, cache).
""",
    "ddim": f"""
DDIM: from noise to latents, deterministic or not.

{SAMPLER}
steps: how many. The timestep before t is t - T // steps, even where that is below 0: schedule.alpha_bar knows.
generators: one numpy.random.Generator for each picture. Needed where eta > 0: then each step adds noise, float32
  numbers of every picture's own generator, in the dtype of the latents.
eta: η of the chapter. 0: nothing is drawn. 1: as much noise as DDPM.
""",
    "ddpm": f"""
DDPM: from noise to latents, each step a sample of the posterior.

{SAMPLER}
steps: how many. The timestep before t is the next one to visit. After the last there is none: there ᾱ is 1, and no
  noise is added.
generators: one numpy.random.Generator for each picture. The noise of a step is float32 numbers of every picture's own
  generator, in the dtype of the latents.
""",
    "guided": """
Classifier-free guidance: a model that is led by words becomes a prediction that a sampler can use.

model: a function; model(x, t, context) -> ε like x, with t: (N,) of the dtype of x.
context: (N, L, D), the caption's tokens.
negative_context: (N, L, D), the tokens of what to lead away from, or of the empty caption.
guidance_scale: s. At 1 the prediction is the model's own for `context`.
rescale: 0 to 1. Unless it is 0, the prediction is rescaled(epsilon, positive, rescale) of the guided ε and the ε for
  `context`.
The function that is returned takes latents (N, h, w, c) and t, a number.
""",
}
