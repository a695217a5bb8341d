"""Stable Diffusion 1.x's own plan at a few channels, and its weights under the keys of the original single file."""

import numpy as np
import tiny_pipeline
from safetensors.numpy import save_file

from minild.pipelines import Pipeline, single_file

WIDTHS = {
    "vae": {"block_out_channels": [4, 4, 8, 8], "norm_num_groups": 2, "sample_size": 64},
    "text_encoder": {
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "max_position_embeddings": tiny_pipeline.LENGTH,
    },
    "unet": {
        "block_out_channels": [8, 8, 16, 16],
        "norm_num_groups": 4,
        "cross_attention_dim": 8,
        "attention_head_dim": 2,
        "sample_size": 8,
    },
}
TRAINING = {  # what such files hold besides
    "alphas_cumprod": np.ones(1000, np.float32),
    "model_ema.decay": np.array(0.9999, np.float32),
    "first_stage_model.loss.logvar": np.zeros((), np.float32),
    "cond_stage_model.transformer.text_model.embeddings.position_ids": np.arange(14)[None],
}


def make():
    """The narrow pipeline, weights drawn at random."""
    tiny = tiny_pipeline.make()
    text = {"vocab_size": len(tiny.tokenizer)}
    models = {
        part: model.from_config(single_file.CONFIGS[part] | WIDTHS[part] | (text if part == "text_encoder" else {}))
        for part, model in single_file.MODELS.items()
    }
    rng = np.random.default_rng(5)
    for model in models.values():
        for parameter in model.parameters():
            parameter.data = parameter.data + 0.1 * rng.standard_normal(parameter.data.shape, np.float32)
    return Pipeline(**models, tokenizer=tiny.tokenizer, schedule=tiny.schedule)


def original_key(part, key):
    """The key of the original code for one of ours."""
    if part == "text_encoder":
        return f"{single_file.PREFIXES[part]}text_model.{key}"
    starts = {ours: theirs for theirs, ours in single_file.NAMES[part].items()}
    starts["up_blocks.0.upsamplers.0.conv"] = "output_blocks.2.1.conv"  # no attention stands before it
    start = max((s for s in starts if f"{key}.".startswith(f"{s}.")), key=len)
    return single_file.PREFIXES[part] + starts[start] + key[len(start) :]


def original_state(pipe):
    """{original key: array} of the pipeline's models; the autoencoder's attention is of 1 x 1 convolutions."""
    state = {}
    for part in single_file.MODELS:
        for key, array in getattr(pipe, part).state_dict().items():
            old = original_key(part, key)
            attends = ".mid.attn_1." in old and array.ndim == 2
            state[old] = array[:, :, None, None] if attends else array
    return state


def write(pipe, path, dtype="float32", **more):
    """The single file and, beside it, the tokenizer."""
    state = {key: np.ascontiguousarray(array, dtype) for key, array in original_state(pipe).items()}
    save_file(state | TRAINING | more, path)
    pipe.tokenizer.save_pretrained(path.parent / "tokenizer")
