"""What a pipeline folder or file holds, or what goes with one; told without loading a pipeline's weights."""

import math
from pathlib import Path

from minild import checkpoints
from minild.diffusion import FlowSchedule, NoiseSchedule
from minild.diffusion.variance import LEARNED
from minild.pipelines.folder import (
    INDEX,
    MODELS,
    absent_parts,
    complete_record,
    find_folder,
    models_of,
    part_variants,
    read_index,
    read_record,
    require_no_variant,
)
from minild.pipelines.info_alone import describe_addition, describe_network, is_addition, is_network
from minild.pipelines.low_resolution import read_augmentation
from minild.pipelines.scheduler_config import DEFAULT_SAMPLER, Scheduler, open_scheduler, usable_samplers
from minild.pipelines.single_file import CONFIGS, open_single_file
from minild.reading import usable
from minild.shown import shown
from minild.tokenizer import CLIPTokenizer
from minild.weights import DTYPES

LONGEST = 10_000  # characters of a line: that of the classes may be long
DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def weights_summary(weights):
    """(number of parameters, names of their dtypes, bytes) of Weights; whole numbers, as of positions, are none.

    A dtype that cannot be read goes by the name that the file gives it.
    """
    tensors = [tensor for tensor in weights.tensors.values() if tensor.kind in DTYPE_NAMES or tensor.kind not in DTYPES]
    kinds = {tensor.kind for tensor in tensors}
    dtypes = [name for kind, name in DTYPE_NAMES.items() if kind in kinds]
    dtypes += [f"{kind!a} (cannot be read)" for kind in sorted(kinds - DTYPES.keys())]
    return sum(math.prod(tensor.shape) for tensor in tensors), dtypes, sum(tensor.size for tensor in tensors)


def describe(name=None, variant=None):
    """Lines of text on the pipeline `name` (see find_folder, load): its training, parts, sizes and schedule.

    `variant` is that of the weights, as load takes it. Of a training that was stopped before it wrote a pipeline: how
    far it came, and how to go on. Told of, too, is what goes with a pipeline (info_alone.py).
    """
    return [shown(line, LONGEST) for line in _describe(name, variant)]


def _describe(name, variant):
    path = Path(name or "")
    if name is not None and path.is_file():
        require_no_variant(path, variant)
        with usable(path):
            return describe_addition(path, weights_summary) if is_addition(path) else _describe_file(path)
    if name is not None and not (path / INDEX).is_file():
        if checkpoints.any_in(path):
            with usable(path):
                return _describe_unfinished(path)
        if is_network(path):
            return describe_network(path, variant, weights_summary)
    folder = find_folder(name)
    index = read_index(folder)
    with usable(folder):
        return _describe_folder(folder, index, part_variants(folder, variant))


def _describe_folder(folder, index, variants):
    record = complete_record(read_record(folder), index)
    absent = absent_parts(record.get("condition", "text"))
    head = [f"folder        {folder}", *_training(record)]
    if augmentation := read_augmentation(folder, index):
        head.append(f"noise levels  0 to {augmentation.highest} of a low-resolution picture")
    models = models_of(index, absent)
    opened = {part: model.open_pretrained(folder / part, variants[part]) for part, model in models.items()}
    configs, weights, told = ({part: three[i] for part, three in opened.items()} for i in range(3))
    head += [f"{part:<14}{phrase}" for part, phrases in told.items() for phrase in phrases]
    tokenizer = None if absent else CLIPTokenizer.from_pretrained(folder / "tokenizer")
    scheduler = open_scheduler(folder / "scheduler", index["scheduler"][1])
    return head + _parts(models, weights, configs, tokenizer, scheduler)


def _describe_file(path):
    weights, tokenizer, told = open_single_file(path)
    head = [f"file          {path}", *(f"              {phrase}" for phrase in told)]
    return [*head, *_parts(MODELS, weights, CONFIGS, tokenizer, Scheduler(NoiseSchedule(), DEFAULT_SAMPLER))]


def _describe_unfinished(folder):
    state = checkpoints.newest(folder).state
    stages = {stage: {"steps": state["taken"][stage], "seconds": state["elapsed"][stage]} for stage in state["taken"]}
    return [
        f"folder        {folder}, no pipeline yet: its training was stopped, or still runs",
        *_training({"dataset": state["dataset"], "size": state["size"], "stages": stages}),
        f"to go on      minild train {state['dataset']} --output {folder} --resume",
    ]


def _parts(models, weights, configs, tokenizer, scheduler):
    lines, total = [], 0
    for part, model in models.items():
        count, dtypes, size = weights_summary(weights[part])
        total += count
        kind = f"{model.__name__}, {count:,} parameters, {' and '.join(dtypes)}, {size / 1e6:.1f} MB"
        lines.append(f"{part:<14}{kind}")
    return [
        *lines,
        f"in all        {total:,} parameters",
        _picture(models["vae"], *(models[part].complete_config(configs[part]) for part in ("vae", "unet"))),
        *([f"tokenizer     {len(tokenizer):,} tokens, {tokenizer.max_length} to a prompt"] if tokenizer else []),
        *_schedule(scheduler),
    ]


def _schedule(scheduler):
    """The schedule and the sampler; of one that is not supported, why, and what to use."""
    if scheduler.schedule is None:
        return [f"sampler       {scheduler.refusal}, nor any other"]
    fields = scheduler.schedule.config
    if isinstance(scheduler.schedule, FlowSchedule):
        steps = f"{fields['num_train_timesteps']} steps, a rectified flow, shift {fields['shift']:g}"
        return [f"schedule      {steps}; sampler {scheduler.sampler}"]
    betas = f"{fields['beta_schedule']} betas from {fields['beta_start']} to {fields['beta_end']}"
    if fields["trained_betas"] is not None:
        betas = "betas of its own"
    if fields["rescale_betas_zero_snr"]:
        betas += ", rescaled to zero terminal SNR"
    if fields["prediction_type"] != "epsilon":
        betas += f", the U-Net tells {fields['prediction_type']}"
    if fields["variance_type"] in LEARNED:
        betas += ", the U-Net tells its variance"
    line = f"schedule      {fields['num_train_timesteps']} steps, {betas}"
    if scheduler.sampler:
        return [f"{line}; sampler {scheduler.sampler}"]
    usable = ", ".join(usable_samplers(scheduler.schedule.given))
    return [line, f"sampler       {scheduler.refusal}: choose one of {usable}"]


def _picture(autoencoder, vae, unet):
    """The sizes of pictures and of latents, of the autoencoder's class and two configs."""
    size = unet["sample_size"]
    f, c = 2 ** (len(vae["block_out_channels"]) - 1), autoencoder.latent_width(vae)
    codes = f", quantised to {vae['num_vq_embeddings']:,} codes" if "num_vq_embeddings" in vae else ""
    if size is None:
        return f"pictures      of no size given; latents of {c} channels, f = {f}{codes}"
    h, w = (size, size) if isinstance(size, int) else size
    return f"pictures      {h * f} x {w * f} pixels; latents {h} x {w} x {c}, f = {f}{codes}"


def _training(record):
    """What the record says, each line only if it does."""
    lines = []
    if "dataset" in record:
        size = record.get("size")
        pixels = f" at {size} x {size} pixels" if size else ""
        lines.append(f"trained on    {record['dataset']}{pixels}")
    if "condition" in record:
        lines.append(f"led by        {record['condition']}")
    if "classes" in record:
        lines.append(f"classes       {', '.join(f'{i} {name}' for i, name in enumerate(record['classes']))}")
    if "command" in record:
        lines.append(f"command       {record['command']}")
    for stage, figures in record.get("stages", {}).items():
        lines.append(f"stage         {stage}: {figures['steps']:,} steps in {figures['seconds']:,.0f} s")
    if "date" in record:
        lines.append(f"date          {record['date']}")
    for what in record.get("learnt", []):
        lines.append(f"learnt since  {what}")
    return lines
