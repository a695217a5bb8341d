"""CLIPModel: pictures and texts in one space (Radford et al. 2021, arXiv 2103.00020, section 2).

The image encoder is a vision transformer (Dosovitskiy et al. 2020, arXiv 2010.11929): a picture's patches are its
tokens, and a learned token before them, the class token, gathers what the picture is embedded by.
"""

import math

from minild.backend import get_array_module
from minild.errors import UserError
from minild.models.clip_text import CLIPEncoder, CLIPTextModel, Positions, require_encoder
from minild.models.model import Model
from minild.nn.layers import Conv2d, LayerNorm, Linear
from minild.nn.module import Module, Parameter

LARGEST_SCALE = math.log(100)  # of logit_scale: logits are at most 100 times the cosine (section 2.5)
OLD_EOS = 2  # the eos_token_id of early configs, which is not that of their tokenizer


class CLIPVisionEmbeddings(Module):
    """x (N, H, W, C) -> a class token and the patches, each with its position: (N, 1 + patches, D)."""

    def __init__(self, channels, size, patch, width, deviation):
        self.class_embedding = Parameter((width,), ("normal", deviation))
        self.patch_embedding = Conv2d(channels, width, patch, stride=patch, padding=0, bias=False)
        self.position_embedding = Positions(1 + (size // patch) ** 2, width, deviation)

    def forward(self, x):
        """x (N, H, W, C) -> (N, 1 + patches, D), the patches row by row."""
        h, patches = self.patch_embedding.forward(x)
        N, rows, columns, D = h.shape
        xp = get_array_module(h)
        first = xp.broadcast_to(self.class_embedding.value, (N, 1, D))
        h, _ = self.position_embedding.forward(xp.concatenate([first, h.reshape(N, rows * columns, D)], axis=1))
        return h, (patches, (N, rows, columns, D))

    def backward(self, dy, cache):
        """dy (N, 1 + patches, D) -> dx (N, H, W, C)."""
        patches, shape = cache
        dh = self.position_embedding.backward(dy, None)
        self.class_embedding.accumulate(dh[:, 0].sum(axis=0))
        return self.patch_embedding.backward(dh[:, 1:].reshape(shape), patches)


class CLIPVisionModel(Model):
    """x (N, H, W, C) -> the class token after the last layer and a norm, (N, D)."""

    defaults = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_channels": 3,
        "image_size": 224,
        "patch_size": 32,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "initializer_factor": 1.0,
    }
    only = CLIPTextModel.only
    inert = CLIPTextModel.inert
    weights_name = "model.safetensors"
    key_prefix = "vision_model."
    ignored_keys = frozenset({"embeddings.position_ids"})  # as the text's

    @classmethod
    def _own_config(cls, config):
        """Of a whole CLIP, those of its image encoder."""
        vision = config.get("vision_config")
        return vision if isinstance(vision, dict) else config

    @classmethod
    def complete_config(cls, config):
        """As of every Model; the activation must be known, and whole patches make up the picture's side."""
        complete = super().complete_config(config)
        require_encoder(cls.__name__, complete)
        size, patch = complete["image_size"], complete["patch_size"]
        if not all(isinstance(n, int) and n > 0 for n in (size, patch)) or size % patch:
            raise UserError(f"{cls.__name__}: patch_size = {patch!r} does not divide image_size = {size!r}")
        return complete

    def __init__(self, config):
        super().__init__(config)
        width, eps, size = config["hidden_size"], config["layer_norm_eps"], config["image_size"]
        deviation = 0.02 * config["initializer_factor"]
        self.embeddings = CLIPVisionEmbeddings(config["num_channels"], size, config["patch_size"], width, deviation)
        self.pre_layrnorm = LayerNorm(width, eps)  # the reference's own spelling
        self.encoder = CLIPEncoder(config, causal=False)
        self.post_layernorm = LayerNorm(width, eps)

    def forward(self, x):
        """x (N, H, W, C) -> (N, D). ValueError for pictures of another size than the config's."""
        size = self.config["image_size"]
        expected = (size, size, self.config["num_channels"])
        if getattr(x, "shape", ())[1:] != expected:
            raise ValueError(f"x: expected pictures of {expected}, got {getattr(x, 'shape', type(x).__name__)}")
        h, embeddings = self.embeddings.forward(x)
        h, pre = self.pre_layrnorm.forward(h)
        h, layers = self.encoder.forward(h)
        y, post = self.post_layernorm.forward(h[:, 0])
        return y, (embeddings, pre, layers, h.shape, post)

    def backward(self, dy, cache):
        """dy (N, D) -> dx (N, H, W, C)."""
        embeddings, pre, layers, shape, post = cache
        dh = get_array_module(dy).zeros(shape, dy.dtype)
        dh[:, 0] = self.post_layernorm.backward(dy, post)
        dh = self.pre_layrnorm.backward(self.encoder.backward(dh, layers), pre)
        return self.embeddings.backward(dh, embeddings)


class CLIPModel(Model):
    """Pictures x (N, H, W, 3) and token_ids (M, L) -> their embeddings (N, P) and (M, P), not yet of length one.

    A text's embedding is its hidden state at the end token, a picture's that of its class token; each goes through a
    projection without a bias. x is as the config beside the model (preprocessor_config.json) says, [-1, 1] for
    minild's own. ops.contrastive(images, texts, logit_scale) is the loss.
    """

    defaults = {
        "text_config": {},
        "vision_config": {},
        "projection_dim": 512,
        "logit_scale_init_value": 2.6592,  # ln(1 / 0.07)
        "model_type": "clip",
    }
    free = frozenset({"model_type"})
    only = {"text_config_dict": [None], "vision_config_dict": [None], "quantization_config": [None]}
    inert = CLIPTextModel.inert | {"initializer_factor"}
    weights_name = "model.safetensors"
    ignored_keys = frozenset({"text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"})

    @classmethod
    def _own_config(cls, config):
        """All of it; of the two encoders' configs the fields that are known, for a file may hold any others."""
        parts = {"text_config": CLIPTextModel, "vision_config": CLIPVisionModel}
        own = {field: value for field, value in config.items() if not field.endswith("_config_dict")}
        for field, part in parts.items():
            if isinstance(own.get(field), dict):
                own[field] = {name: value for name, value in own[field].items() if part._knows(name)}
        return own

    @classmethod
    def complete_config(cls, config):
        """As of every Model; text_config and vision_config are those of the two encoders."""
        complete = super().complete_config(config)
        for field, part in (("text_config", CLIPTextModel), ("vision_config", CLIPVisionModel)):
            if not isinstance(complete[field], dict):
                raise UserError(f"{cls.__name__}: {field} = {complete[field]!r} is not supported, use an object")
            complete[field] = part.complete_config(complete[field])
        return complete

    def __init__(self, config):
        super().__init__(config)
        text, vision, width = config["text_config"], config["vision_config"], config["projection_dim"]
        self.logit_scale = Parameter((), config["logit_scale_init_value"])
        self.text_model, self.vision_model = CLIPTextModel(text), CLIPVisionModel(vision)
        self.visual_projection = Linear(vision["hidden_size"], width, bias=False)
        self.text_projection = Linear(text["hidden_size"], width, bias=False)

    def forward(self, x, token_ids):
        """x (N, H, W, 3), token_ids (M, L) -> (images (N, P), texts (M, P))."""
        pooled, vision = self.vision_model.forward(x)
        images, visual = self.visual_projection.forward(pooled)
        hidden, text = self.text_model.forward(token_ids)
        last = self.ends(token_ids)
        texts, textual = self.text_projection.forward(hidden[last])
        return (images, texts), (vision, visual, text, textual, last, hidden.shape)

    def backward(self, dy, cache):
        """dy = (dimages (N, P), dtexts (M, P)) -> dx (N, H, W, 3); token ids have no gradient."""
        vision, visual, text, textual, last, shape = cache
        dimages, dtexts = dy
        dhidden = get_array_module(dtexts).zeros(shape, dtexts.dtype)
        dhidden[last] = self.text_projection.backward(dtexts, textual)
        self.text_model.backward(dhidden, text)
        return self.vision_model.backward(self.visual_projection.backward(dimages, visual), vision)

    def ends(self, token_ids):
        """Where each text ends, an index of (N, L): its first end token; its largest id for configs that say 2."""
        end = self.text_model.config["eos_token_id"]
        columns = (token_ids if end == OLD_EOS else token_ids == end).argmax(axis=1)
        return get_array_module(token_ids).arange(len(token_ids)), columns

    def embed_pictures(self, x):
        """x (N, H, W, 3) -> (N, P) of length one; no cache is kept."""
        return _unit(self.visual_projection(self.vision_model(x)))

    def embed_texts(self, token_ids):
        """token_ids (N, L) -> (N, P) of length one; no cache is kept."""
        return _unit(self.text_projection(self.text_model(token_ids)[self.ends(token_ids)]))

    def limit_scale(self):
        """Hold the logit scale at ln 100 at most, as is done after every step of its training."""
        scale = self.logit_scale.data
        scale[...] = get_array_module(scale).minimum(scale, LARGEST_SCALE)


def _unit(x):
    return x / get_array_module(x).sqrt((x * x).sum(axis=-1, keepdims=True))
