"""Learnt tokens: words that a text encoder gets later, each a vector or several (textual inversion; arXiv 2208.01618).

A file is that of the reference's: {token: vectors}, of shape (D,) or (n, D). A token of n vectors stands for itself and
n - 1 more, token_1 and so on, which CLIPTokenizer.expand puts behind it.
"""

from pathlib import Path

import numpy as np

from minild.backend import get_array_module, to_device, to_host
from minild.errors import UserError
from minild.pretrained import write_weights
from minild.weights import open_safetensors

FILE = "learned_embeds.safetensors"  # the reference's name, looked for in a folder
MAX_VECTORS = 1000  # of one token: a prompt has room for 75
A1111 = "emb_params"  # the one key of files of another program, which leave the token to the file's name


def load_embeddings(pipe, path, token=None):
    """Add the learnt token in a file, or in a folder with learned_embeds.safetensors, to a pipeline -> the token.

    `token` stands in place of the file's own. UserError for a file that holds no such vectors, or vectors of another
    width, and for a token that the tokenizer has already.
    """
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    if pipe.text_encoder is None:
        raise UserError("a learnt token is for a model that words lead, which this is not")
    own, vectors = read_embeddings(path)
    token, width = token or own, pipe.text_encoder.config["hidden_size"]
    if vectors.shape[1] != width:
        raise UserError(f"{path} holds {vectors.shape}, where the text encoder's vectors are of {width} numbers")
    add_token(pipe, token, vectors)
    return token


def read_embeddings(path):
    """-> (the token, its vectors (n, D) float32) of a file. UserError for a file that holds no such vectors."""
    state = open_safetensors(path)
    if len(state) != 1:
        raise UserError(f"{path} holds {len(state)} tensors, where a learnt token is one")
    ((own, array),) = state.items()
    with np.errstate(over="ignore", invalid="ignore"):
        vectors = np.array(array, np.float32)
    vectors = vectors[None] if vectors.ndim == 1 else vectors
    if vectors.ndim != 2 or not vectors.size:
        raise UserError(f"{path} holds {vectors.shape}, where a learnt token has vectors")
    if len(vectors) > MAX_VECTORS:
        raise UserError(f"{path} holds {len(vectors):,} vectors, and {MAX_VECTORS:,} is the most of one token")
    if not np.isfinite(vectors).all():
        raise UserError(f"{path} holds values that are no numbers")
    return Path(path).stem if own == A1111 else own, vectors


def add_token(pipe, token, vectors):
    """Add a token of n vectors (n, D), host arrays, to a pipeline's tokenizer and text encoder -> its ids, n numbers.

    UserError for a token that is there already, is empty or holds white space.
    """
    encoder = pipe.text_encoder
    if not token.strip() or token.split() != [token]:
        raise UserError(f"the token {token!r} is not one word: name it <thing>, say")
    names = [token, *(f"{token}_{i}" for i in range(1, len(vectors)))]
    try:
        tokenizer = pipe.tokenizer.with_tokens(names)
    except ValueError as error:
        raise UserError(f"the token {token!r} cannot be added, so choose another: {error}") from None
    ids = [tokenizer.vocabulary[name] for name in names]
    weight = encoder.embeddings.token_embedding.weight
    xp, rows = get_array_module(weight.data), weight.data
    if ids[-1] >= len(rows):  # there may be rows to spare
        new = xp.zeros((ids[-1] + 1, rows.shape[1]), rows.dtype)
        new[: len(rows)] = rows
        rows = new
    else:
        rows = rows.copy()
    rows[ids[0] : ids[-1] + 1] = to_device(vectors.astype(rows.dtype), encoder.device)
    weight.data, weight.shape, weight.grad = rows, rows.shape, None
    encoder.config["vocab_size"] = len(rows)
    pipe.tokenizer = tokenizer
    return ids


def token_vectors(pipe, text):
    """The vectors (n, D), on the host, of the tokens of a text. UserError where it has none."""
    tokens = pipe.tokenizer.tokens(text)
    if not tokens:
        raise UserError(f"{text!r} has no token: name a word")
    weight = to_host(pipe.text_encoder.embeddings.token_embedding.weight.data)
    return weight[[pipe.tokenizer.vocabulary.get(token, pipe.tokenizer.unk_token_id) for token in tokens]].astype("f")


def write_embeddings(path, token, vectors):
    """Write the vectors (n, D) of a token to a file of the reference's layout."""
    write_weights(Path(path), {token: np.ascontiguousarray(vectors, np.float32)})
