"""A pipeline's folder, laid out as the reference's StableDiffusionPipeline: found, read and written.

Read, too, is one file with all of Stable Diffusion, as first published.
"""

import math
from pathlib import Path

from minild import checkpoints, pretrained
from minild.backend import get_device
from minild.data.location import data_path
from minild.diffusion.variance import LEARNED
from minild.durable import files_together, finish_move
from minild.errors import UserError
from minild.models import LPIPS, VQModel
from minild.pipelines.conditions import POSTERIORS, channel_count, condition_kinds, perceptual_network
from minild.pipelines.low_resolution import (
    PART,
    UPSCALING,
    is_upscaler,
    misfit,
    read_augmentation,
    write_augmentation,
)
from minild.pipelines.scheduler_config import open_scheduler, write_scheduler
from minild.pipelines.single_file import MODELS, read_single_file
from minild.reading import usable
from minild.tokenizer import CLIPTokenizer
from minild.tokenizer_files import remove_stale

INDEX, RECORD = "model_index.json", "minild.json"
PARTS = {
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "scheduler": ("diffusers", "DDIMScheduler"),
}
AUTOENCODERS = {"AutoencoderKL": MODELS["vae"], "VQModel": VQModel}  # what a vae may be
OF_TEXT = ("text_encoder", "tokenizer")  # the parts that a pipeline without words does not have
INPAINTING = "StableDiffusionInpaintPipeline"  # the reference's pipeline of text+masked
FORMAT_VERSION = "0.40.0"  # the reference's release whose layout we write

SHIPPED = ("emoji", "scenes", "shapes")  # in data/pretrained
PERCEPTUAL = "perceptual"  # the folder of what describes pictures to a model of images; no part of the reference's
DTYPES = ("float16", "float32", "float64")
IGNORED = ("safety_checker", "feature_extractor", "image_encoder")  # parts of an index that change no picture


def find_folder(name=None):
    """The pipeline folder called `name`: a path, or a name of SHIPPED; None is "emoji".

    A folder of that very path goes before a shipped pipeline. One whose writing was cut off at the very end is mended.
    UserError where there is neither.
    """
    if name is not None:
        _mend(Path(name))
    if name is not None and (Path(name) / INDEX).is_file():
        return Path(name)
    if name is None or str(name) in SHIPPED:
        shipped = data_path("pretrained", name or SHIPPED[0])
        if (shipped / INDEX).is_file():
            return shipped
        raise UserError(f"this copy of minild has no pipeline {name or SHIPPED[0]!r}: name a folder, or train one")
    if checkpoints.any_in(name):
        raise UserError(f"{name} is a training without a pipeline yet: go on with it, `minild info {name}` says how")
    raise UserError(f"{name} is no pipeline: expected a folder with {INDEX}, a file, or one of {', '.join(SHIPPED)}")


def _mend(folder):
    """Let a pipeline have the files of its last save, where a kill came in between. UserError where that cannot be."""
    try:
        finish_move(folder, INDEX)
    except OSError as error:
        raise UserError(f"{folder} was cut off while it was written, and mending it failed: {error}") from None


def read_index(folder):
    """model_index.json of a whole pipeline folder. UserError names a part that is missing or not supported."""
    index = pretrained.read_json(folder / INDEX)
    with usable(folder / INDEX):
        return _whole_index(folder, index)


def _whole_index(folder, index):
    absent = absent_parts(condition_of(read_record(folder), index))
    parts = {part: entry[1] for part, entry in index.items() if isinstance(entry, list) and len(entry) == 2}
    for part, (_, expected) in PARTS.items():
        if part in absent:
            continue
        kind = parts.get(part, expected)
        if part == "vae" and str(kind) in AUTOENCODERS:
            continue
        if part != "scheduler" and str(kind).removesuffix("Fast") != expected:
            raise UserError(f"{folder / INDEX}: {part} is {kind!r}, which is not supported, use {expected!r}")
    for part, kind in parts.items():
        if kind is not None and part not in PARTS and part not in (*IGNORED, PART):
            name = index.get("_class_name")
            raise UserError(f"{folder / INDEX}: {name} with a part {part} is no Stable Diffusion 1.x, so not supported")
    if index.get("_class_name") == UPSCALING and not is_upscaler(index):
        raise UserError(f"{folder / INDEX} names no {PART}")
    for part in (*PARTS, *([PART] if is_upscaler(index) else [])):
        if part in absent:
            continue
        if part not in parts:
            raise UserError(f"{folder / INDEX} names no {part}")
        if not (folder / part).is_dir():
            raise UserError(f"{folder} has no folder {part}: copy the whole pipeline")
    return index


def absent_parts(condition):
    """The parts that a pipeline led by that condition, in words, does not have."""
    return () if "text" in condition_kinds(condition) else OF_TEXT


def models_of(index, absent=()):
    """{part: the class of its model} of the parts that a pipeline has; of an index that read_index found whole."""
    models = {**MODELS, "vae": AUTOENCODERS.get(index["vae"][1], MODELS["vae"])}
    return {part: model for part, model in models.items() if part not in absent}


def condition_of(record, index):
    """What leads a pipeline, in words: as its record says, or the reference's class of it, or its named classes."""
    named = {INPAINTING: "text+masked", UPSCALING: "text+low resolution"}.get(index.get("_class_name"))
    return record.get("condition", named or ("class" if "id2label" in index else "text"))


def complete_record(record, index):
    """A record with what the reference's index says of the condition, where it does not say that itself."""
    condition, labels = condition_of(record, index), index.get("id2label")
    if condition == "text":
        return record
    named = {"classes": [labels[str(i)] for i in range(len(labels))]} if labels else {}
    complete = {"condition": condition, **named, **record}
    if not all(isinstance(name, str) for name in complete.get("classes", [])):
        raise UserError(f"{INDEX}: id2label: expected names, got {labels!r}")
    return complete


def told_by_training(folder):
    """What minild.json says of the training of a pipeline or a network; {} where there is none."""
    return pretrained.read_json(folder / RECORD) if (folder / RECORD).is_file() else {}


def read_record(folder):
    """told_by_training of a pipeline. UserError for what it cannot use."""
    record = told_by_training(folder)
    guidance, classes = record.get("guidance_scale", 1), record.get("classes", [])
    if isinstance(guidance, bool) or not isinstance(guidance, (int, float)) or not abs(guidance) < math.inf:
        raise UserError(f"{folder / RECORD}: guidance_scale: expected a number, got {guidance!r}")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{folder / RECORD}: classes: expected a list of names, got {classes!r}")
    if (posterior := record.get("posterior", "sample")) not in POSTERIORS:
        raise UserError(f"{folder / RECORD}: posterior: expected one of {', '.join(POSTERIORS)}, got {posterior!r}")
    return record


def read_pipeline(folder, dtype, device, variant):
    """{part: what Pipeline takes for it} of a folder or a file. UserError as pipelines.load says."""
    if dtype not in DTYPES:
        raise UserError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    get_device(device)
    if folder is not None and Path(folder).is_file():
        folder = Path(folder)
        require_no_variant(folder, variant)
        with usable(folder):
            parts = read_single_file(folder, dtype, device)
        return _fitting(folder, parts)
    return read_folder(find_folder(folder), dtype, device, variant)


def _fitting(path, parts):
    """The parts. UserError where they do not fit."""
    with usable(path):
        faults = misfits(parts)
    if faults:
        raise UserError(f"{path}: its parts do not fit: {'; '.join(faults)}")
    return parts


def read_folder(folder, dtype="float32", device="cpu", variant=None):
    """read_pipeline of a folder as it is: one whose writing was cut off is not mended."""
    index = read_index(folder)
    variants = part_variants(folder, variant)
    with usable(folder / INDEX):
        record = complete_record(read_record(folder), index)
    parts = {"record": record, "passed_over": [], "text_encoder": None, "tokenizer": None}
    absent = absent_parts(condition_of(record, index))
    for part, model in models_of(index, absent).items():
        with usable(folder / part):
            parts[part] = model.from_pretrained(folder / part, dtype, device, variants[part])
        parts["passed_over"] += [f"{part}: {phrase}" for phrase in parts[part].passed_over]
    with usable(folder / "tokenizer"):
        parts["tokenizer"] = None if absent else CLIPTokenizer.from_pretrained(folder / "tokenizer")
    with usable(folder / "scheduler"):
        scheduler = open_scheduler(folder / "scheduler", index["scheduler"][1])
    if scheduler.schedule is None:
        raise UserError(f"{folder}: {scheduler.refusal}, nor any other")
    if "image" in condition_kinds(record.get("condition", "text")) and (folder / PERCEPTUAL).is_dir():
        with usable(folder / PERCEPTUAL):
            parts["perceptual"] = LPIPS.from_pretrained(folder / PERCEPTUAL)
    with usable(folder / PART):
        parts["augmentation"] = read_augmentation(folder, index)
    return _fitting(folder, parts | scheduler._asdict())


def part_variants(folder, variant):
    """{part: the variant to read of its weights}: the one asked for where the part has it, else None.

    UserError if no part has it.
    """
    found = {part: pretrained.weight_files(folder / part, model.weights_name) for part, model in MODELS.items()}
    if variant is not None and not any(variant in files for files in found.values()):
        known = sorted({name for files in found.values() for name in files if name})
        raise UserError(f"{folder} has no variant {variant!r} of any weights, only {', '.join(known) or 'plain ones'}")
    return {part: variant if variant in files else None for part, files in found.items()}


def require_no_variant(path, variant):
    """UserError for a variant of a single file."""
    if variant is not None:
        raise UserError(f"{path} is a single file, which has no variants: leave out the variant {variant!r}")


def learns_variance(schedule):
    """Whether a folder's model may tell the variance of its steps, in as many channels again."""
    return schedule.given.get("variance_type") in LEARNED


def misfits(parts):
    """What keeps the parts from working together, a list of phrases."""
    unet, vae, record = parts["unet"].config, parts["vae"].config, parts.get("record", {})
    text, tokenizer = parts["text_encoder"] and parts["text_encoder"].config, parts["tokenizer"]
    kinds, c = condition_kinds(record.get("condition", "text")), parts["vae"].latent_width(vae)
    classes = len(record.get("classes", []))
    added, plus = channel_count(kinds, c, classes), f" and {kinds[-1]}" if len(kinds) > 1 or not text else ""
    pairs = [
        ("unet in_channels", unet["in_channels"], f"vae latent channels{plus}", c + added),
    ]
    if not (unet["out_channels"] == 2 * c and learns_variance(parts["schedule"])):
        pairs.append(("unet out_channels", unet["out_channels"], "vae latent channels", c))
    if text:
        field = "encoder_hid_dim" if unet["encoder_hid_dim"] else "cross_attention_dim"
        pairs.insert(0, (f"unet {field}", unet[field], "text_encoder hidden_size", text["hidden_size"]))
    if parts.get("perceptual"):
        described = parts["perceptual"].config["widths"][-1]
        pairs.append(("unet encoder_hid_dim", unet["encoder_hid_dim"], f"width of {PERCEPTUAL}", described))
    if "class" in kinds:
        pairs.append(("unet num_class_embeds", unet["num_class_embeds"], "number of classes, with none,", classes + 1))
    faults = [f"{a} is {x}, {b} {y}" for a, x, b, y in pairs if x != y]
    augmentation = parts.get("augmentation")
    if fault := misfit(augmentation, unet, kinds):
        faults.append(fault)
    elif not augmentation and (unet["class_embed_type"] or (unet["num_class_embeds"] and "class" not in kinds)):
        faults.append(f"unet takes class labels, and {RECORD} does not say of what")
    if not text:
        return faults
    tokens = max(tokenizer.vocabulary.values()) + 1
    limits = [
        ("number of token ids", tokens, "text_encoder vocab_size", text["vocab_size"]),
        ("length in tokens", tokenizer.max_length, "text_encoder length", text["max_position_embeddings"]),
    ]
    return faults + [f"tokenizer {a} is {x}, {b} {y}" for a, x, b, y in limits if x > y]


def write_pipeline(pipeline, folder, dtype):
    """Write the folder of a Pipeline, the weights in `dtype`.

    All of its files are written, or none, so that one that was whole stays whole; model_index.json comes last: a new
    folder that has it is whole.
    """
    with files_together(folder, INDEX) as aside:
        for part in MODELS:
            if getattr(pipeline, part):
                getattr(pipeline, part).save_pretrained(aside / part, dtype)
        if pipeline.tokenizer:
            pipeline.tokenizer.save_pretrained(aside / "tokenizer")
        if "image" in pipeline.kinds:
            (pipeline.perceptual or perceptual_network()).save_pretrained(aside / PERCEPTUAL)
        scheduler_class = write_scheduler(aside / "scheduler", pipeline.schedule, pipeline.sampler)
        if pipeline.record:
            pretrained.write_json(aside / RECORD, pipeline.record)
        augmentation = write_augmentation(aside, pipeline.augmentation)
        pretrained.write_json(aside / INDEX, _index(pipeline, scheduler_class, augmentation))
    remove_stale(Path(folder) / "tokenizer")


def _index(pipeline, scheduler_class, augmentation):
    """model_index.json of a Pipeline."""
    inpaints = pipeline.kinds == ("text", "masked")
    index = {
        "_class_name": UPSCALING if augmentation else INPAINTING if inpaints else "StableDiffusionPipeline",
        "_diffusers_version": FORMAT_VERSION,
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        **{part: list(entry) if _is_there(pipeline, part) else [None, None] for part, entry in PARTS.items()},
        "vae": ["diffusers", type(pipeline.vae).__name__],
        "scheduler": ["diffusers", scheduler_class],
        **augmentation,
    }
    if "class" in pipeline.kinds:  # as the reference's DiTPipeline has them
        index["id2label"] = {str(i): name for i, name in enumerate(pipeline.classes)}
    return index


def _is_there(pipeline, part):
    return part == "scheduler" or getattr(pipeline, part) is not None
