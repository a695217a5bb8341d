"""What a pipeline folder holds, told without loading its weights."""

import math

from minild import pretrained
from minild.pipelines.folder import MODELS, find_folder, read_index, read_record, usable
from minild.pipelines.scheduler_config import read_scheduler
from minild.tokenizer import CLIPTokenizer

DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def weights_summary(folder, name):
    """(number of parameters, names of their dtypes, bytes on disk) of the weights called `name` in a model's folder."""
    tensors = pretrained.open_weights(folder, name).tensors.values()
    count = sum(math.prod(tensor.shape) for tensor in tensors)
    dtypes = sorted({DTYPE_NAMES.get(tensor.kind, tensor.kind) for tensor in tensors})
    return count, dtypes, sum(path.stat().st_size for path in {tensor.path for tensor in tensors})


def describe(name=None):
    """Lines of text on the pipeline `name` (see find_folder): its training, parts, sizes and schedule."""
    folder = find_folder(name)
    read_index(folder)
    with usable(folder):
        return _describe(folder)


def _describe(folder):
    record = read_record(folder)
    lines = [f"folder        {folder}", *_training(record)]
    total = 0
    for part, model in MODELS.items():
        count, dtypes, size = weights_summary(folder / part, model.weights_name)
        total += count
        kind = f"{model.__name__}, {count:,} parameters, {' and '.join(dtypes)}, {size / 1e6:.1f} MB"
        lines.append(f"{part:<14}{kind}")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    schedule, sampler = read_scheduler(folder / "scheduler")
    fields = schedule.config
    lines += [
        f"in all        {total:,} parameters",
        *_picture(folder),
        f"tokenizer     {len(tokenizer):,} tokens, {tokenizer.max_length} to a prompt",
        f"schedule      {fields['num_train_timesteps']} steps, {fields['beta_schedule']} betas from "
        f"{fields['beta_start']} to {fields['beta_end']}; sampler {sampler}",
    ]
    return lines


def _picture(folder):
    """The sizes of pictures and of latents."""
    vae, unet = (
        MODELS[part].complete_config(pretrained.read_json(folder / part / "config.json")) for part in ("vae", "unet")
    )
    size = unet["sample_size"]
    f, c = 2 ** (len(vae["block_out_channels"]) - 1), vae["latent_channels"]
    if size is None:
        return [f"pictures      of no size given; latents of {c} channels, f = {f}"]
    h, w = (size, size) if isinstance(size, int) else size
    return [f"pictures      {h * f} x {w * f} pixels; latents {h} x {w} x {c}, f = {f}"]


def _training(record):
    """What the record says, each line only if it does."""
    lines = []
    if "dataset" in record:
        size = record.get("size")
        pixels = f" at {size} x {size} pixels" if size else ""
        lines.append(f"trained on    {record['dataset']}{pixels}")
    if "command" in record:
        lines.append(f"command       {record['command']}")
    for stage, figures in record.get("stages", {}).items():
        lines.append(f"stage         {stage}: {figures['steps']:,} steps in {figures['seconds']:,.0f} s")
    if "date" in record:
        lines.append(f"date          {record['date']}")
    return lines
