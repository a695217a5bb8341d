"""Configs that cover the models' options at widths of a few channels, and inputs that tell the axes apart."""

import numpy as np

UNET = {
    "block_out_channels": [8, 16],
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 6,
    "attention_head_dim": 2,
    "in_channels": 3,
    "out_channels": 3,
}
UNET_2 = UNET | {  # as in Stable Diffusion 2, and what else a config can say
    "layers_per_block": 2,
    "use_linear_projection": True,
    "attention_head_dim": [2, 4],
    "in_channels": 5,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
}
AUTOENCODER = {
    "block_out_channels": [4, 8],
    "norm_num_groups": 4,
    "latent_channels": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
}
VQ = AUTOENCODER | {  # codes are wider than the latent that the encoder gives
    "latent_channels": 3,
    "vq_embed_dim": 4,
    "num_vq_embeddings": 12,
}
TEXT = {
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 7,
}


THREE_LEVELS = UNET | {  # a depth of its own for each, and no middle
    "block_out_channels": [8, 8, 16],
    "layers_per_block": [2, 1, 1],
    "mid_block_type": None,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"],
}


def unet_inputs(rng, channels, size=(4, 6)):
    return {
        "x": rng.standard_normal((2, *size, channels)),
        "t": np.array([3.7, 612.2]),
        "context": rng.standard_normal((2, 5, 6)),
    }


def autoencoder_inputs(rng):
    return {"x": rng.standard_normal((2, 6, 4, 3)), "noise": rng.standard_normal((2, 3, 2, 2))}


LABELLED = {  # every way to be led by more than a context, and the shape of the labels for two pictures
    "table": (UNET | {"num_class_embeds": 7}, None),
    "table, concatenated": (UNET | {"num_class_embeds": 7, "class_embeddings_concat": True, "in_channels": 5}, None),
    "timestep": (UNET | {"class_embed_type": "timestep", "num_class_embeds": 3}, (2,)),
    "identity": (UNET | {"class_embed_type": "identity", "class_embeddings_concat": True}, (2, 32)),
    "projection": (UNET | {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 5}, (2, 5)),
    "simple projection": (
        UNET | {"class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 5, "in_channels": 7},
        (2, 5),
    ),
}
PROJECTED = {  # a context that the model projects itself, and its shape for two pictures
    "text_proj": (UNET | {"encoder_hid_dim": 4}, (2, 5, 4)),
    "image_proj": (UNET | {"encoder_hid_dim": 4, "encoder_hid_dim_type": "image_proj"}, (2, 4)),
}


def labels(rng, shape):
    """Class labels for two pictures: entries of a table of seven, or numbers of that shape."""
    return np.array([4, 1]) if shape is None else rng.standard_normal(shape)


CLIP = {  # the two encoders and the space they share are each of another width
    "text_config": TEXT | {"eos_token_id": 9},
    "vision_config": {
        "hidden_size": 12,
        "intermediate_size": 10,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 8,
        "patch_size": 4,
    },
    "projection_dim": 6,
}

CONTROLNET = {field: value for field, value in UNET.items() if field not in ("up_block_types", "out_channels")} | {
    "conditioning_embedding_out_channels": [4, 6, 8],  # f = 4
}


def controlnet_inputs(rng, size=(4, 6), f=4):
    return unet_inputs(rng, 3, size) | {"control": rng.random((2, f * size[0], f * size[1], 3))}
