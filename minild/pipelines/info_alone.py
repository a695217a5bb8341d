"""What is no pipeline and goes with one: a network in a folder of its own, low-rank updates, a learnt word; told."""

from pathlib import Path

from minild import pretrained
from minild.errors import UserError
from minild.models import (
    LPIPS,
    AutoencoderKL,
    CLIPModel,
    CLIPTextModel,
    ControlNetModel,
    LatentClassifier,
    UNet2DConditionModel,
    VQModel,
)
from minild.models.lora import ROLE, read_lora
from minild.pipelines.folder import told_by_training
from minild.pipelines.learnt_tokens import FILE, read_embeddings
from minild.reading import usable
from minild.weights import open_safetensors

CONFIG = "config.json"
PART = "a part of a pipeline"
NETWORKS = {  # the class of a network, and what it is for
    LatentClassifier: "leads a pipeline by its latents: class2img --classifier",
    ControlNetModel: "leads a pipeline by a picture: --controlnet",
    LPIPS: "the perceptual distance",
    CLIPModel: "likens pictures and captions",
    AutoencoderKL: PART,
    VQModel: PART,
    UNet2DConditionModel: PART,
    CLIPTextModel: PART,
}
KINDS = {model.__name__: model for model in NETWORKS}


def is_network(folder):
    """Whether a folder may hold one network, or a learnt word."""
    return (Path(folder) / CONFIG).is_file() or (Path(folder) / FILE).is_file()


def is_addition(path):
    """Whether a file holds what is added to a pipeline: low-rank updates, or one word's vectors."""
    weights = open_safetensors(path)
    return len(weights) == 1 or any(ROLE.search(key) for key in weights)


def describe_network(folder, variant, summary):
    """Lines of text on the network in a folder. UserError for one of a class that is not known.

    summary(weights) -> (number of parameters, names of their dtypes, bytes).
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        return describe_addition(folder / FILE, summary)
    with usable(folder / CONFIG):
        given = pretrained.read_json(folder / CONFIG)
        name = given.get("_class_name") or (given.get("architectures") or [None])[0]
        if name not in KINDS:
            what = "does not say what it holds" if name is None else f"holds {name!r}, which is not known"
            raise UserError(f"{folder / CONFIG} {what}: minild knows {', '.join(KINDS)}, and pipelines")
        kind = KINDS[name]
        config, weights, told = kind.open_pretrained(folder, variant)
    with usable(folder):
        own, record = _OWN.get(kind, lambda config: [])(config), told_by_training(folder)
        head = [("folder", folder), ("holds", f"{name}, {_size(summary(weights))}"), *(("", phrase) for phrase in told)]
        return _lines([*head, ("for", NETWORKS[kind]), *own, *_training(record)])


def describe_addition(path, summary):
    """Lines of text on a file of low-rank updates, or of a learnt word."""
    weights = open_safetensors(path)
    head = ("file", path)
    if any(ROLE.search(key) for key in weights):
        updates = read_lora(path)
        layers = [f"{len(found)} layers of the {part}" for part, found in updates.items()]
        several = [update for found in updates.values() for update in found.values()]
        ranks, alphas = {len(update.down) for update in several}, {update.alpha for update in several}
        holds = f"a LoRA, {_size(summary(weights))}: updates of {' and '.join(layers)}"
        rank = ("rank", f"{_range(ranks)}; alpha {_range(alphas)}")
        return _lines([head, ("holds", holds), rank, ("for", "a model that has these layers: --lora")])
    token, vectors = read_embeddings(path)
    many = f"{len(vectors)} vector{'s' if len(vectors) > 1 else ''} of {vectors.shape[1]} numbers"
    fits = f"a model whose text encoder is {vectors.shape[1]} wide: --embedding"
    return _lines([head, ("holds", f"a learnt word, {token}: {many}"), ("for", fits)])


def _lines(named):
    return [f"{name:<14}{text}" for name, text in named]


def _size(summary):
    count, dtypes, size = summary
    return f"{count:,} parameters, {' and '.join(dtypes)}, {size / 1e6:.1f} MB"


def _range(numbers):
    low, high = min(numbers), max(numbers)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _of_classifier(config):
    classes = ", ".join(f"{i} {name}" for i, name in enumerate(config["classes"]))
    return [("latents", f"of {config['in_channels']} channels"), ("classes", classes)]


def _of_controlnet(config):
    f = 2 ** (len(config["conditioning_embedding_out_channels"]) - 1)
    widths = ", ".join(map(str, config["block_out_channels"]))
    seen = f"{f} times as large as the latents, which have {config['in_channels']} channels"
    return [
        ("pictures", f"of {config['conditioning_channels']} channels, {seen}"),
        ("U-Net", f"of the widths {widths}; words of {config['cross_attention_dim']} numbers"),
    ]


def _of_perceptual(config):
    widths = config["widths"]
    return [("levels", f"{len(widths)}, of {', '.join(map(str, widths))} channels")]


def _of_clip(config):
    vision, text = config["vision_config"], config["text_config"]
    size, patch = vision["image_size"], vision["patch_size"]
    return [
        ("pictures", f"{size} x {size} pixels, in patches of {patch}"),
        ("texts", f"{text['vocab_size']:,} tokens, {text['max_position_embeddings']} to a text"),
        ("both", f"{config['projection_dim']} numbers"),
    ]


_OWN = {
    LatentClassifier: _of_classifier,
    ControlNetModel: _of_controlnet,
    LPIPS: _of_perceptual,
    CLIPModel: _of_clip,
}


def _training(record):
    """What a network's record says, each line only if it does."""
    lines = []
    if "model" in record:
        lines.append(("trained for", record["model"]))
    if "follows" in record:
        lines.append(("follows", record["follows"]))
    if "dataset" in record:
        size = f" at {record['size']} x {record['size']} pixels" if "size" in record else ""
        lines.append(("trained on", f"{record['dataset']}{size}"))
    if "steps" in record:
        lines.append(("training", f"{record['steps']:,} steps in {record['seconds']:,.0f} s"))
    if "accuracy" in record:
        lines.append(("accuracy", f"{100 * record['accuracy']:.1f} %"))
    if "retrieved" in record:
        share, tested, among = (record[name] for name in ("retrieved", "tested", "among"))
        lines.append(("retrieval", f"{100 * share:.1f} % of {tested} pictures find their caption among {among}"))
    return lines
