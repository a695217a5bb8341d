"""train_textual_inversion: one vector learns, and nothing else; its file; what it refuses."""

import numpy as np
import pytest
import tiny_pipeline
from safetensors.numpy import load_file

from minild.errors import UserError
from minild.gradcheck import check_module
from minild.models import Condition
from minild.nn.embeddings import LearntVectors
from minild.pipelines import load
from minild.pipelines.learnt_tokens import add_token
from minild.training import Budget, StagePreset, train_textual_inversion, training_steps, tuning
from minild.training.latent_diffusion import Denoiser
from minild.training.textual_inversion import learnt_vectors
from minild.training.tuning import Tuned

pytestmark = pytest.mark.usefixtures("no_sheets")


class OfLatents(Tuned):
    def forward(self, x, t, ids):
        return super().forward(x, t, Condition(context=ids))

    def backward(self, dy, cache):
        return super().backward(dy, cache)[:2]


def test_gradients_by_differences(rng):
    """Through a U-Net and a text encoder that are frozen, into the vectors of two tokens."""
    pipe = tiny_pipeline.make()
    first = add_token(pipe, "<thing>", rng.standard_normal((2, 8), np.float32))[0]
    for part in (pipe.unet, pipe.text_encoder):
        part.freeze().astype("float64")
    embeddings = pipe.text_encoder.embeddings
    embeddings.token_embedding = LearntVectors(embeddings.token_embedding, first, rng.standard_normal((2, 8)))
    ids = pipe.tokenizer.encode([pipe.tokenizer.expand("a red <thing>"), "a <thing> and a <thing>"])
    whole = OfLatents(Denoiser(pipe.unet, pipe.text_encoder), learnt_vectors)
    x, t = rng.standard_normal((2, 4, 6, 2)), np.array([3.7, 612.2])
    check_module(whole, {"x": x, "t": t, "ids": ids}, samples=2)
    assert [name for name, _ in whole.named_parameters()] == ["vectors"]
    assert all(p.grad is None for part in (pipe.unet, pipe.text_encoder) for p in part.parameters())


def test_a_file_with_the_word(tmp_path, model, bare):
    file = tmp_path / "thing.safetensors"
    settings = {"initial": "red circle", "vectors": 2, "steps": 3, "learning_rate": 0.1}
    assert train_textual_inversion(model, bare, file, "<thing>", **settings) == 3
    state = load_file(file)
    assert list(state) == ["<thing>"] and state["<thing>"].shape == (2, 8)
    pipe, plain = load(model), load(model)
    table = plain.text_encoder.embeddings.token_embedding.weight.data
    begin = table[[plain.tokenizer.vocabulary[token] for token in ("red</w>", "circle</w>")]].mean(axis=0)
    assert 0.01 < np.abs(state["<thing>"] - begin).max() < 0.5
    assert pipe.load_textual_inversion(file) == "<thing>"
    drawn = [p.text_to_image("a <thing>", steps=2) for p in (pipe, plain)]
    assert np.abs(drawn[0] - drawn[1]).max() > 0.01
    np.testing.assert_array_equal(*(p.text_to_image("a circle", steps=2) for p in (pipe, plain)))


def test_it_learns(rng):
    """One batch; all but the vector stays what it is."""
    pipe = tiny_pipeline.make()
    (first,) = add_token(pipe, "<thing>", rng.standard_normal((1, 8), np.float32))
    pictures = rng.integers(0, 256, (4, 8, 8, 3), np.uint8)
    task = tuning.objective_of(tuning.Lesson(pipe, pictures, [("a <thing>",)] * 4, 8))
    embeddings, batch = pipe.text_encoder.embeddings, task.batch(rng, 4, 0.5)
    states = pipe.unet.state_dict(), pipe.text_encoder.state_dict()
    for part in (pipe.unet, pipe.text_encoder):
        part.freeze()
    begin = rng.standard_normal((1, 8), np.float32)
    embeddings.token_embedding = LearntVectors(embeddings.token_embedding, first, begin)
    whole = Tuned(Denoiser(pipe.unet, pipe.text_encoder), learnt_vectors)
    task.batch = lambda *arguments: batch
    preset = StagePreset(learning_rate=0.2, batch_size=4, weight_decay=0.0)
    losses = [float(step["loss"]) for _, step in training_steps(whole, task, preset, Budget(steps=25), rng)]
    assert losses[-1] < 0.999 * losses[0]
    for part, state in zip((pipe.unet, pipe.text_encoder), states):
        for name, array in part.state_dict().items():
            np.testing.assert_array_equal(array, state[name], err_msg=name)


def test_what_does_not_fit_is_refused(tmp_path, model, bare):
    file = tmp_path / "new" / "o.safetensors"
    for token, more, message in (
        ("circle</w>", {}, "there is a token 'circle</w>' already"),
        ("two words", {}, "is not one word"),
        ("Circle", {}, "the model has a word Circle already: choose a new one, <Circle> say"),
        ("<thing>", {"prompt": "a red circle"}, "the caption 'a red circle' has no <thing> in it"),
        ("<thing>", {"vectors": 0}, "vectors: expected a whole number from 1"),
        ("<thing>", {"initial": " "}, "has no token: name a word"),
        ("<thing>", {"vectors": 13}, "is longer than the 14 tokens that fit, and <thing> is cut off"),
    ):
        with pytest.raises(UserError, match=message):
            train_textual_inversion(model, bare, file, token, steps=1, **more)
        assert not file.parent.exists()
