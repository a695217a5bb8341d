"""Finding, in a text, the formulas that give what a task asks for: `answers(text, task)`.

Whatever in the text reads as an expression of known names is translated to Python and evaluated on the arguments that
the task is tried on: mathematical signs (dx = y · (dy - Σ_j dy_j y_j)), code (`dy @ cache.weight.T`), and names that
the text itself defines on the way (with α = ᾱ_t / ᾱ_prev, ...). One that gives one of the task's outputs is an answer.
What a text leaves open is tried both ways: whether two arrays side by side are multiplied element by element or as
matrices, and over which axes a sum or a mean runs. Words are not understood.
"""

import itertools
import re
import warnings

import numpy as np

from minild.course.judge import close
from minild.course.worker import evaluate, make_trials
from minild.ops.activation import softmax, softmax_backward
from minild.ops.attention import split_heads
from minild.ops.conv import as_matrix, im2col, pad
from minild.ops.norm import by_group
from minild.random import standard_normal

SEED = 4
TRIALS = {"6.4": 1}  # the one with noise; of the others, the first
SIGNS = {
    "ε_θ(z_t, t, τ_θ(y))": "prediction", "x̂": "xhat", "ẑ": "clean", "ᾱ": "abar", "α": "alpha",
    "β": "beta", "γ": "gamma", "ε": "epsilon", "η": "eta", "ω": "omega", "σ(": "sigmoid(", "σ": "sigma", "·": "*",
    "×": "*", "−": "-", "²": "**2", "ᵀ": " ᵀ", "½": "0.5", "^": "**",
}  # fmt: skip
TOKEN = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?|[A-Za-z]\w*|\*\*|//|[-+*/@()\[\],.=|‖√Σᵀ]|\S")
FUNCTIONS = {
    "exp": np.exp, "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos, "log": np.log, "abs": np.abs,
    "linspace": np.linspace, "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "softmax": lambda x: softmax(x)[0],
    "T": lambda x: np.swapaxes(x, -1, -2), "concat": lambda *x: np.concatenate(x, axis=-1), "repeat": np.repeat,
    "softmax_backward": softmax_backward,
}  # fmt: skip
OPERATORS = ("+", "-", "*", "/", "@", "(", ")", "[", "]", ".", "|", "‖", "√", "Σ", "ᵀ", "**", "//")
SUMS = ("sum", "mean", "var")  # functions where a bracket follows
AXES = ("all", "rows", "last", "group")


def answers(text, task):
    """The expressions of a text that give an output of the task, as Python."""
    names, expected = known(task)
    found = {}
    for joint, axes in itertools.product("*@", AXES):
        if axes == "group" and "groups" not in names:
            continue
        scope = {**FUNCTIONS, **over(axes, names), **names, "np": np, "__builtins__": {}}
        for expression in re.findall(r"`([^`]+)`", text):  # code
            if any(same(evaluated(expression, scope), right) for right in expected):
                found[expression] = None
        for _ in range(2):  # a name may be defined after its use
            for target, tokens in runs(text, scope):
                for part in parts_of(tokens):
                    expression = python(part, joint, scope)
                    value = evaluated(expression, scope)
                    if value is not None and len(part) == len(tokens) and target and target not in names:
                        scope[target] = value
                    if len(part) > 1 and any(same(value, right) for right in expected):
                        found[expression] = None
    return list(found)


def runs(text, scope):
    """(name or None, tokens): the stretches of a text that are made of known names, numbers and signs.

    The name is that which the text gives to the stretch: NAME = ...
    """
    for sign, word in SIGNS.items():
        text = text.replace(sign, word)
    text = re.sub(r"_[ij]\b|_0\b", "", text)  # of dy_j y_j
    text = re.sub(r"[.:](\s|$)", " ; ", text)  # the end of a sentence
    target, run, tokens = None, [], TOKEN.findall(text)
    for token, following in zip(tokens, [*tokens[1:], ";"]):
        depth = sum(t in "([" for t in run) - sum(t in ")]" for t in run)
        if is_word(token) and following == "=" and depth <= 0:
            yield target, run
            target, run = token, []
        elif token == "=" and not run:
            continue
        elif token in OPERATORS or token in SUMS or token in scope or token[0].isdigit() or (run and run[-1] == "."):
            run.append(token)
        elif token in ",=" and depth > 0:
            run.append(token)
        else:
            yield target, run
            target, run = None, []
    yield target, run


def parts_of(tokens):
    """Every stretch of a run, the longest first."""
    for length in range(len(tokens), 0, -1):
        for start in range(len(tokens) - length + 1):
            yield tokens[start : start + length]


def python(tokens, joint, scope):
    """A stretch as Python."""
    tokens = list(tokens)
    while "|" in tokens and "[" in tokens and "]" in tokens:  # [a | b]
        first, last = tokens.index("["), len(tokens) - 1 - tokens[::-1].index("]")
        within = ["," if token == "|" else token for token in tokens[first + 1 : last]]
        tokens[first : last + 1] = ["concat", "(", *within, ")"]
    while tokens.count("‖") > 1:  # ‖a‖**2
        first = tokens.index("‖")
        last = tokens.index("‖", first + 1)
        tokens[first : last + 3] = ["mean", "(", "(", *tokens[first + 1 : last], ")", *tokens[last + 1 : last + 3], ")"]
    while "ᵀ" in tokens:
        last = tokens.index("ᵀ")
        tokens[max(last - 1, 0) : last + 1] = ["T", "(", *tokens[max(last - 1, 0) : last], ")"]
    while "√" in tokens:
        first = tokens.index("√")
        after = tokens[first + 1 : first + 2]
        tokens[first : first + 1 + (after != ["("])] = ["sqrt"] if after == ["("] else ["sqrt", "(", *after, ")"]
    while "Σ" in tokens:  # of a product
        first = last = len(tokens) - 1 - tokens[::-1].index("Σ")
        depth = 0
        while last + 1 < len(tokens) and (depth or tokens[last + 1] not in "+-)],="):
            last += 1
            depth += (tokens[last] in "([") - (tokens[last] in ")]")
        tokens[first : last + 1] = ["sum", "(", *tokens[first + 1 : last + 1], ")"]
    made = []
    for i, token in enumerate(tokens):
        before = tokens[i - 1] if i else "("
        is_method = tokens[i - 2 : i - 1] == ["."]
        is_call = token == "(" and (is_method or before in SUMS or callable(scope.get(before)))
        if is_call and before in SUMS and not is_method:
            made[-1] = f"{before}_over"
        if (is_value(before) or before in (")", "]")) and (is_value(token) or token == "(") and not is_call:
            made.append(joint)
        made.append(token)
    return "".join(made)


def is_word(token):
    return token[0].isascii() and token[0].isalpha()


def is_value(token):
    return is_word(token) or token[0].isdigit()


def over(axes, names):
    """sum, mean and var over these axes."""
    if axes == "group":
        groups = names["groups"]

        def grouped(kind):
            def call(x):
                shape, x = x.shape, by_group(x, groups)
                return np.broadcast_to(getattr(x, kind)(axis=(1, 3), keepdims=True), x.shape).reshape(shape)

            return call

        return {f"{kind}_over": grouped(kind) for kind in SUMS}
    settings = {
        "all": lambda x: {},
        "rows": lambda x: {"axis": tuple(range(x.ndim - 1))},
        "last": lambda x: {"axis": -1, "keepdims": True},
    }[axes]
    return {f"{kind}_over": lambda x, kind=kind: getattr(x, kind)(**settings(x)) for kind in SUMS}


def evaluated(expression, scope):
    """The value of an expression, an array of numbers; None where there is none."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of syntax
            value = np.asarray(eval(expression, scope), np.float64)
    except Exception:  # whatever a text may come to mean
        return None
    return value if value.size else None


def same(value, right):
    if value is None:
        return False
    if right.ndim == 0 and value.ndim:  # "the mean of" may stand there in words
        return any(close(x, right, 1e-6) for x in (value.mean(), value.sum()))
    return value.size == right.size and close(value.reshape(right.shape), right, 1e-6) and bool(np.any(right))


def known(task):
    """({name: value}, [outputs]) of one trial: its arguments, what its cache holds, and what the chapter calls them."""
    trial = TRIALS.get(task.number, 0)
    arguments, _ = make_trials(task, SEED)[trial]
    spare, _ = make_trials(task, SEED)[trial]
    outputs = {k[4:]: x for k, x in evaluate(task, task.reference, spare) if k.startswith("out:")}
    cache = arguments.get("cache")
    fields = cache._asdict() if hasattr(cache, "_asdict") else {}
    names = {**fields, **arguments}
    more = MORE.get(task.number, MORE.get(task.function_name))
    if more:
        names, outputs = {**names}, dict(outputs)
        more(names, outputs)
    return names, [np.asarray(x, np.float64) for x in outputs.values()]


def of_embedding(names, outputs):
    names.update(t=names["t"][:, None], i=np.arange(names["dim"] // 2))
    names.setdefault("freq_shift", 0)
    names.setdefault("max_period", 10000)


def of_rows(names, outputs):
    for name in ("x", "dy"):
        names[name] = names[name].reshape(-1, names[name].shape[-1])


def of_patches(names, outputs):
    weight, stride = names["weight"], names["stride"]
    margins = names.get("margins") or ((names["padding"],) * 2,) * 2
    columns = im2col(pad(names["x"], margins), weight.shape[:2], stride)
    names.update(columns=as_matrix(columns, weight), weight=weight.reshape(-1, weight.shape[3]))
    if "dy" in names:
        names["dy"] = names["dy"].reshape(-1, names["dy"].shape[-1])


def of_heads(names, outputs):
    N, L, D = names["x"].shape
    names.update(N=N, L=L, D=D)


def of_attention(names, outputs):
    heads = names["heads"] if "heads" in names else names["q"].shape[1]
    for values in (names, outputs):
        for name in ("q", "k", "v", "dy", "y", "dq", "dk", "dv"):
            if name in values and values[name].ndim == 3:
                values[name] = split_heads(values[name], heads)
    names["d"] = names["q"].shape[-1]


def of_feed_forward(names, outputs):
    names["gated"], names["out"] = names["cache"]


def of_attention_layer(names, outputs):
    labels = ("cache_q", "cache_k", "cache_v", "cache_attention", "cache_out")
    names.update(zip(labels, names["cache"]))
    dh = names["self"].to_out[0].backward(names["dy"], names["cache_out"])
    names.update(dh=dh, **dict(zip(("dq", "dk", "dv"), names["cache_attention"].backward(dh))))
    for way in ("q", "k", "v"):
        names[f"from_{way}"] = getattr(names["self"], f"to_{way}").backward(names[f"d{way}"], names[f"cache_{way}"])


def of_groups(names, outputs):
    shape = names.get("x", names.get("xhat")).shape
    if "rstd" in names:
        grouped = by_group(names["xhat"], names["groups"])
        names["rstd"] = np.broadcast_to(names["rstd"], grouped.shape).reshape(shape)
    else:
        group = over("group", names)
        names.update(mean=group["mean_over"](names["x"]), var=group["var_over"](names["x"]))


def of_posterior(names, outputs):
    names.update(mean=names["posterior"].mean, logvar=names["posterior"].logvar)
    names["deviation"] = np.exp(names["logvar"] / 2)


def of_sample(names, outputs):
    names["logvar"] = 2 * np.log(names["deviation"])
    outputs.pop("dmean")  # which is dz as it comes


def of_moments(names, outputs):
    names.update(count=names["mean"].size, deviation=np.exp(names["logvar"] / 2))


def of_noising(names, outputs):
    signal = names.get("signal_level", names.get("levels", (0,))[0])
    names.update(epsilon=names["noise"], abar_t=signal**2, abar=signal**2)
    if "model" in names:
        z_t = signal * names["z"] + names["levels"][1] * names["noise"]
        prediction = names["model"].forward(z_t, names["t"], names["context"])[0]
        names.update(z_t=z_t, prediction=prediction, mse=lambda a, b: ((a - b) ** 2).mean())


def of_sampler(names, outputs):
    schedule, steps, z_t = names["schedule"], names["steps"], names["latents"]
    t, following = (int(t) for t in schedule.timesteps(steps)[:2])
    abar_t, abar_prev = schedule.alpha_bar(t), schedule.alpha_bar(following)
    clean, epsilon = schedule.predictions(names["predict"](z_t, t), z_t, abar_t)
    noise = standard_normal(names["generators"], z_t.shape[1:], z_t.dtype)
    names.update(z_t=z_t, abar_t=abar_t, abar_prev=abar_prev, clean=clean, epsilon=epsilon, noise=noise)
    for label in [label for label in outputs if label != "step 1"]:
        del outputs[label]
    if "eta" not in names:  # of DDPM mean and variance alone are an answer, too
        variance = (1 - abar_prev) / (1 - abar_t) * (1 - abar_t / abar_prev)
        outputs.update(mean=outputs["step 1"] - np.sqrt(variance) * noise, variance=variance)


def of_guidance(names, outputs):
    t = np.full(len(names["latents"]), names["t"], np.float64)
    for name, context in (("context", "context"), ("negative", "negative_context")):
        names[f"epsilon_{name}"] = names["model"](names["latents"], t, names[context])
    names.update(s=names["guidance_scale"], positive=names["epsilon_context"], negative=names["epsilon_negative"])


MORE = {
    "timestep_embedding": of_embedding, "2.1": of_rows, "feed_forward_backward": of_feed_forward, "3.2": of_patches,
    "conv2d_backward": of_patches, "split_heads": of_heads, "attention": of_attention,
    "attention_backward": of_attention, "attention_layer_backward": of_attention_layer, "group_norm": of_groups,
    "group_norm_backward": of_groups, "reparameterize": of_posterior, "reparameterize_backward": of_sample,
    "gaussian_kl": of_moments, "gaussian_kl_backward": of_moments, "add_noise": of_noising, "epsilon_loss": of_noising,
    "ddim": of_sampler, "ddpm": of_sampler, "guided": of_guidance,
}  # fmt: skip
