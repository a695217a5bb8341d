"""How much memory a training will take, told before it begins; and how much there is."""

import math
import os
import re
from pathlib import Path

from minild.engine.cores import core_count
from minild.errors import UserError
from minild.models import UNet2DConditionModel
from minild.training.first_stage import AUTOENCODERS

NUMBER = 4  # bytes, of float32
TAKEN = 2.0  # times what its layers are given, a step takes; measured over presets, sizes and batches: 1.6 to 2.4
RECOMPUTED = 0.3  # times that, where blocks are computed once more in their backward; measured: 0.2 to 0.35
WATCHED = 1.2  # times that, where a discriminator or a perceptual distance looks on in stage one
COPIES = 10  # of all weights: they, AdamW's two averages and its mask, their own average and its copy, what is saved
TOKENS, VOCABULARY = 32, 4096  # of a caption, and of all, at most about
PROCESS = 60e6  # bytes that each replica has for itself: interpreter, workspaces
ADVICE = {
    "pictures": "train on fewer pictures, or on smaller ones (--size)",
    "weights": "choose a preset with fewer channels",
    "a batch": "train on smaller pictures (--size), or choose a preset with a smaller batch_size",
}
TUNING = {
    "weights": "train a lora, which has far fewer",
    "a batch": "use --recompute, a smaller --batch-size, or smaller pictures (--size)",
}
DECODING = {
    "weights": "choose a model with a smaller autoencoder",
    "a batch": "use a smaller --batch-size, or smaller pictures (--size)",
}


def level_of(name, levels):
    """At which level of a U-Net or an autoencoder, 0 the first, a parameter of that name works."""
    if block := re.search(r"(down|up)_blocks\.(\d+)\.(\w+)", name):
        level = int(block[2])
        return level if block[1] == "down" else levels - 1 - level - (block[3] == "upsamplers")
    if re.search(r"mid_block|quant_conv|encoder\.conv_(norm_)?out|decoder\.conv_in", name):
        return levels - 1
    return 0


def numbers_given(model, levels, side):
    """How many numbers the layers of a U-Net or an autoencoder are given for one item of side x side pixels or latents:
    a backward is made of what its layer was given.
    """
    count = 0
    for name, parameter in model.named_parameters():
        places = math.ceil(side / 2 ** level_of(name, levels)) ** 2
        if re.search(r"attn2\.to_[kv]", name):
            places = TOKENS
        if re.search(r"time_em|class_emb", name):
            places = 1
        if parameter.layout:
            count += places * parameter.shape[-2]
        elif name.endswith("weight") and len(parameter.shape) == 1:  # of a normalisation
            count += places * parameter.shape[0]
    return count


def _size(model):
    return sum(parameter.size for parameter in model.parameters())


def estimate(preset, size, count, replicas=None, ranks=1):
    """{"pictures", "weights", "a batch": bytes} that a training on `count` pictures of size x size pixels takes, in one
    process of `ranks` that share each batch.

    pictures  uint8, twice while they are put together; and their latents, with what the loss makes of them
    weights   COPIES, and a gradient for each replica; of the stage that has more
    a batch   TAKEN times what the layers are given, and PROCESS for each replica; of the stage that takes more

    Nothing is made: parameters that nobody asks for take no memory. What leads the model beside words is not counted.
    """
    levels, side = len(preset.channels), size // 2 ** (len(preset.channels) - 1)
    kind, width, layers = AUTOENCODERS[preset.regularisation], preset.text_width, preset.text_layers
    vae = kind(kind.complete_config(preset.autoencoder_config(size)))
    unet = UNet2DConditionModel(UNet2DConditionModel.complete_config(preset.unet_config(size)))
    watched = WATCHED if preset.perceptual_weight or preset.adversarial_weight else 1
    text = VOCABULARY * width + 8 * width**2 * layers, 10 * width * TOKENS * layers
    first = preset.autoencoder.batch_size, _size(vae), watched * numbers_given(vae, levels, size)
    unet_given = numbers_given(unet, len(preset.unet_channels), side)
    second = preset.diffusion.batch_size, _size(unet) + text[0], unet_given + text[1]
    weights, batch = [], []
    for items, parameters, given in (first, second):
        items = math.ceil(items / ranks)
        processes = min(replicas or core_count(), items)
        weights.append(NUMBER * parameters * (COPIES + processes))
        batch.append(NUMBER * TAKEN * given * items + PROCESS * processes)
    pictures, latents = 3 * count * size**2, NUMBER * count * side**2 * preset.latent_width
    return {"pictures": pictures + max(pictures, 4 * latents), "weights": max(weights), "a batch": max(batch)}


def tuning_estimate(tuned, model, side, items, recomputing=False, watched=False, replicas=None):
    """{"weights", "a batch": bytes} that a fine-tuning takes beside the pipeline, which is there: as `estimate` has
    them, the weights those of `tuned` alone, the batch's what the layers of `model` are given.

    side: of a U-Net's latents, of a decoder's pictures; watched: whether a discriminator or a perceptual distance looks
    on. What a text encoder that learns is given, much less than the U-Net, is not counted.
    """
    processes = min(replicas or core_count(), items)
    times = (RECOMPUTED if recomputing else 1) * (WATCHED if watched else 1)
    given = times * numbers_given(model, len(model.config["block_out_channels"]), side)
    weights = NUMBER * _size(tuned) * (COPIES + processes)
    return {"weights": weights, "a batch": NUMBER * TAKEN * given * items + PROCESS * processes}


def available():
    """(bytes that this process may still take, what sets the limit); (infinity, "") where nothing says so."""
    limits = [(_meminfo(), "of memory are free"), (_container(), "are left to this container")]
    limits.append((_address_space(), "are left to this process (ulimit -v)"))
    return min(limits)


def require_memory(needed, advice=ADVICE):
    """UserError, with the numbers and what to change, where an estimate is more than is available."""
    (there, where), total = available(), sum(needed.values())
    if total > there:
        parts = ", ".join(f"{part} {size / 1e9:.1f}" for part, size in needed.items())
        told = f"needs about {total / 1e9:.1f} GB ({parts}), and {max(0, there) / 1e9:.1f} GB {where}"
        raise UserError(f"this training {told}: {advice[max(needed, key=needed.get)]}")


def _meminfo(path="/proc/meminfo"):
    """What the system could give without swapping."""
    found = re.search(r"^MemAvailable: +(\d+) kB", _text(path), re.MULTILINE)
    return int(found[1]) * 1024 if found else math.inf


def _container(root="/sys/fs/cgroup", own="/proc/self/cgroup"):
    """What the control groups above this process leave it, of version 2 or 1; files that can be dropped are free."""
    left = math.inf
    for line in _text(own).splitlines():
        _, kind, path = line.split(":", 2)
        if kind not in ("", "memory"):
            continue
        most, used, unused = VERSIONS[kind]
        group = Path(root, kind, path.strip("/"))
        for folder in [group, *group.parents]:
            limit, taken = _text(folder / most).strip(), _text(folder / used).strip()
            if limit.isdigit() and taken.isdigit():
                dropped = re.search(rf"^{unused} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
                left = min(left, int(limit) - int(taken) + (int(dropped[1]) if dropped else 0))
    return left


VERSIONS = {  # of control groups, by what /proc/self/cgroup calls them: the limit, what is used, what of that is files
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def _address_space(path="/proc/self/statm"):
    """What RLIMIT_AS leaves of it."""
    try:
        import resource  # which Windows does not have
    except ImportError:
        return math.inf
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _text(path).split()
    if limit == resource.RLIM_INFINITY or not pages:
        return math.inf
    return limit - int(pages[0]) * os.sysconf("SC_PAGE_SIZE")


def _text(path):
    """What a file says; "" where there is none to read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
