"""CLIPTextModel: the text encoder τ_θ, a causal transformer (Radford et al. 2021, arXiv 2103.00020, section 2.4)."""

from minild.engine import run
from minild.errors import UserError
from minild.models.model import Model, require_divisor
from minild.nn.layers import ACTIVATIONS, Embedding, LayerNorm, Linear
from minild.nn.module import Module, Parameter
from minild.ops.attention import attention


class CLIPAttention(Module):
    """Self-attention, of the text causal, every projection with a bias: (N, L, D) -> (N, L, D)."""

    def __init__(self, width, heads, causal=True):
        self.k_proj, self.v_proj = Linear(width, width), Linear(width, width)
        self.q_proj, self.out_proj = Linear(width, width), Linear(width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x):
        """x (N, L, D) -> y (N, L, D)."""
        q, cache_q = self.q_proj.forward(x)
        k, cache_k = self.k_proj.forward(x)
        v, cache_v = self.v_proj.forward(x)
        h, cache_attention = run(attention, q, k, v, self.heads, causal=self.causal)
        y, cache_out = self.out_proj.forward(h)
        return y, (cache_q, cache_k, cache_v, cache_attention, cache_out)

    def backward(self, dy, cache):
        """dy (N, L, D) -> dx (N, L, D)."""
        cache_q, cache_k, cache_v, cache_attention, cache_out = cache
        dq, dk, dv = cache_attention.backward(self.out_proj.backward(dy, cache_out))
        dx = self.v_proj.backward(dv, cache_v)
        dx += self.k_proj.backward(dk, cache_k)
        dx += self.q_proj.backward(dq, cache_q)
        return dx


class CLIPMLP(Module):
    """Linear, activation, linear: (N, L, D) -> (N, L, D)."""

    def __init__(self, width, inner, activation):
        self.fc1, self.fc2 = Linear(width, inner), Linear(inner, width)
        self.activation = activation

    def forward(self, x):
        """x (N, L, D) -> y (N, L, D)."""
        act = ACTIVATIONS[self.activation]
        h, fc1 = self.fc1.forward(x)
        h, cache = act.forward(h)
        h, fc2 = self.fc2.forward(h)
        return h, (fc1, cache, fc2)

    def backward(self, dy, cache):
        """dy (N, L, D) -> dx (N, L, D)."""
        fc1, act, fc2 = cache
        dh = ACTIVATIONS[self.activation].backward(self.fc2.backward(dy, fc2), act)
        return self.fc1.backward(dh, fc1)


class CLIPEncoderLayer(Module):
    """x + self_attn(layer_norm1(x)), then + mlp(layer_norm2(x)): (N, L, D) -> (N, L, D)."""

    def __init__(self, width, heads, inner, activation, eps, causal=True):
        self.self_attn = CLIPAttention(width, heads, causal)
        self.layer_norm1 = LayerNorm(width, eps)
        self.mlp = CLIPMLP(width, inner, activation)
        self.layer_norm2 = LayerNorm(width, eps)

    def forward(self, x):
        """x (N, L, D) -> y (N, L, D)."""
        h, norm1 = self.layer_norm1.forward(x)
        h, attn = self.self_attn.forward(h)
        x = x + h
        h, norm2 = self.layer_norm2.forward(x)
        h, mlp = self.mlp.forward(h)
        return x + h, (norm1, attn, norm2, mlp)

    def backward(self, dy, cache):
        """dy (N, L, D) -> dx (N, L, D)."""
        norm1, attn, norm2, mlp = cache
        dx = dy + self.layer_norm2.backward(self.mlp.backward(dy, mlp), norm2)
        return dx + self.layer_norm1.backward(self.self_attn.backward(dx, attn), norm1)


class CLIPTextEmbeddings(Module):
    """token_embedding[ids] + position_embedding: ids (N, L) -> (N, L, D)."""

    def __init__(self, vocabulary, positions, width, deviation):
        self.token_embedding = Embedding(vocabulary, width, deviation)
        self.position_embedding = Positions(positions, width, deviation)

    def forward(self, token_ids):
        """token_ids (N, L) -> (N, L, D)."""
        h, tokens = self.token_embedding.forward(token_ids)
        h, positions = self.position_embedding.forward(h)
        return h, (tokens, positions)

    def backward(self, dy, cache):
        """dy (N, L, D). Adds to both tables' gradients; ids have none, so nothing is returned."""
        tokens, positions = cache
        self.token_embedding.backward(self.position_embedding.backward(dy, positions), tokens)


class Positions(Module):
    """A learned vector is added at each position; a prompt of L tokens uses the first L: (N, L, D) -> (N, L, D)."""

    def __init__(self, positions, width, deviation=0.02):
        self.weight = Parameter((positions, width), ("normal", deviation))

    def forward(self, x):
        """x (N, L, D) -> y (N, L, D); the backward needs nothing of it."""
        return x + self.weight.value[: x.shape[1]], None

    def backward(self, dy, cache):
        """dy (N, L, D) -> dx, which is dy."""
        if not self.weight.frozen:
            gradient = 0 * self.weight.data
            gradient[: dy.shape[1]] = dy.sum(axis=0)
            self.weight.accumulate(gradient)
        return dy


class CLIPEncoder(Module):
    """The stack of layers, of a text or of a picture: (N, L, D) -> (N, L, D)."""

    def __init__(self, config, causal=True):
        width, eps, activation = config["hidden_size"], config["layer_norm_eps"], config["hidden_act"]
        heads, inner, count = (config[f] for f in ("num_attention_heads", "intermediate_size", "num_hidden_layers"))
        self.layers = [CLIPEncoderLayer(width, heads, inner, activation, eps, causal) for _ in range(count)]

    def forward(self, x, count=None):
        """x (N, L, D) -> y (N, L, D), by the first `count` layers; None is all of them."""
        caches = []
        for layer in self.layers[:count]:
            x, cache = layer.forward(x)
            caches.append(cache)
        return x, caches

    def backward(self, dy, caches):
        """dy (N, L, D) -> dx (N, L, D)."""
        for layer, cache in zip(reversed(self.layers[: len(caches)]), reversed(caches)):
            dy = layer.backward(dy, cache)
        return dy


def require_encoder(title, config):
    """UserError unless hidden_act is an activation that is known, and the heads divide the width."""
    if config["hidden_act"] not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UserError(f"{title}: hidden_act = {config['hidden_act']!r} is not supported, use {known}")
    require_divisor(title, "num_attention_heads", config["num_attention_heads"], [config["hidden_size"]])


class CLIPTextModel(Model):
    """token_ids (N, L) -> the last hidden state after the final layer norm, (N, L, D)."""

    defaults = {
        "vocab_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "initializer_factor": 1.0,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 1,
    }
    free = frozenset({"bos_token_id", "eos_token_id", "pad_token_id"})
    only = {"quantization_config": [None]}
    inert = frozenset(
        "architectures attention_dropout chunk_size_feed_forward dropout dtype id2label initializer_range "
        "is_encoder_decoder label2id model_type output_attentions output_hidden_states problem_type projection_dim "
        "return_dict torch_dtype transformers_version".split()
    )
    weights_name = "model.safetensors"
    key_prefix = "text_model."
    ignored_keys = frozenset({"embeddings.position_ids"})  # 0, 1, 2, ... in files of earlier releases

    @classmethod
    def _own_config(cls, config):
        """Of a whole CLIP, those of its text encoder."""
        text = config.get("text_config")
        return text if isinstance(text, dict) else config

    @classmethod
    def complete_config(cls, config):
        """As of every Model; hidden_act must be an activation that is known."""
        complete = super().complete_config(config)
        require_encoder(cls.__name__, complete)
        return complete

    def __init__(self, config):
        super().__init__(config)
        width = config["hidden_size"]
        deviation = 0.02 * config["initializer_factor"]
        positions = config["max_position_embeddings"]
        self.embeddings = CLIPTextEmbeddings(config["vocab_size"], positions, width, deviation)
        self.encoder = CLIPEncoder(config)
        self.final_layer_norm = LayerNorm(width, config["layer_norm_eps"])

    def forward(self, token_ids, clip_skip=0):
        """token_ids (N, L) -> (N, L, D). clip_skip leaves out that many of the last layers, but not the norm."""
        count = len(self.encoder.layers)
        if not 0 <= clip_skip <= count:
            raise ValueError(f"clip_skip: expected 0 to the {count} layers, got {clip_skip}")
        most = self.config["max_position_embeddings"]
        if getattr(token_ids, "ndim", 0) != 2 or token_ids.shape[1] > most:
            got = getattr(token_ids, "shape", type(token_ids).__name__)
            raise ValueError(f"token_ids: expected an array (N, L) of {most} tokens at most, got {got}")
        h, embeddings = self.embeddings.forward(token_ids)
        h, layers = self.encoder.forward(h, count - clip_skip)
        y, norm = self.final_layer_norm.forward(h)
        return y, (embeddings, layers, norm)

    def backward(self, dy, cache):
        """dy (N, L, D); token ids have no gradient, so nothing is returned."""
        embeddings, layers, norm = cache
        dh = self.encoder.backward(self.final_layer_norm.backward(dy, norm), layers)
        self.embeddings.backward(dh, embeddings)
