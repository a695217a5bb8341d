"""Textual inversion: a new word for a thing, of which the vector is trained, and nothing else (arXiv 2208.01618)."""

import numpy as np

from minild.backend import to_host
from minild.byte_pairs import END
from minild.errors import UserError
from minild.nn.embeddings import LearntVectors
from minild.pipelines.learnt_tokens import add_token, token_vectors, write_embeddings
from minild.training.latent_diffusion import Denoiser
from minild.training.tuning import Tuned, open_lesson, recompute, require_file, tune


def learnt_vectors(denoiser):
    """(name, Parameter) of what is trained."""
    yield "vectors", denoiser.text_encoder.embeddings.token_embedding.vectors


def train_textual_inversion(model, dataset, output, token, prompt=None, initial=None, vectors=1, recomputing=False,
                            minutes=None, steps=None, seed=0, device="cpu", size=None, batch_size=None,
                            learning_rate=5e-3):  # fmt: skip
    """Train a new token of the pipeline `model` on pictures, and write it to the file `output` -> how many steps
    it took.

    token         one word that the tokenizer does not have: <thing>, say
    prompt        the caption of pictures that have none, with the token in it; None: the token alone
    initial       a text, the mean of whose vectors the token's begin as; None: the mean of all that there are
    vectors       how many stand for the token

    The other arguments are those of train_lora. diffusers' load_textual_inversion reads the file. UserError for
    whatever is missing or does not fit, and for a caption without the token.
    """
    if vectors < 1:
        raise UserError(f"vectors: expected a whole number from 1, got {vectors}")
    require_file(output)
    lesson = open_lesson(model, dataset, output, token if prompt is None else prompt, size, device)
    pipe = lesson.pipe
    if pipe.tokenizer.tokens(token) == [f"{token.lower()}{END}"]:
        raise UserError(f"the model has a word {token} already: choose a new one, <{token}> say")
    for text in (text for texts in lesson.captions for text in texts):
        if token not in text:
            raise UserError(f"the caption {text!r} has no {token} in it: put it where the new thing is named")
    encoder = pipe.text_encoder
    known = to_host(encoder.embeddings.token_embedding.weight.data) if initial is None else token_vectors(pipe, initial)
    begin = np.repeat(known.astype(np.float32).mean(axis=0, keepdims=True), vectors, axis=0)
    begin += 1e-3 * known.std() * np.random.default_rng((seed, 0)).standard_normal(begin.shape, np.float32)
    ids = add_token(pipe, token, begin)
    for text in (text for texts in lesson.captions for text in texts):
        lost = pipe.tokenizer.dropped(pipe.tokenizer.expand(text))
        if token in lost:
            fit = f"the {pipe.tokenizer.max_length} tokens that fit"
            raise UserError(f"the caption {text!r} is longer than {fit}, and {token} is cut off: use fewer vectors")
    pipe.unet.freeze()
    encoder.freeze()
    table = encoder.embeddings.token_embedding
    own = LearntVectors(table, ids[0], table.weight.data[ids[0] : ids[-1] + 1].copy())
    encoder.embeddings.token_embedding = own
    if recomputing:
        recompute(pipe.unet)

    def write():
        write_embeddings(output, token, to_host(own.vectors.data))

    settings = {"minutes": minutes, "steps": steps, "seed": seed, "batch_size": batch_size, "weight_decay": 0.0}
    tuned = Tuned(Denoiser(pipe.unet, encoder), learnt_vectors)
    return tune("textual-inversion", lesson, tuned, write, output, learning_rate=learning_rate, **settings)
