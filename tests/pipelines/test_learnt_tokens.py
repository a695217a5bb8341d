"""Learnt tokens: added to a pipeline, used in prompts, saved with it; and files that hold none."""

import numpy as np
import pytest
import tiny_pipeline
from safetensors.numpy import load_file, save_file

from minild.errors import UserError
from minild.pipelines import load
from minild.pipelines.learnt_tokens import token_vectors, write_embeddings


@pytest.fixture
def pipe():
    return tiny_pipeline.make()


def test_a_token_of_two_vectors(pipe, tmp_path, rng):
    vectors = rng.standard_normal((2, 8), np.float32)
    others = pipe.encode_prompts(["a red square"])
    rows = len(pipe.text_encoder.embeddings.token_embedding.weight.data)
    write_embeddings(tmp_path / "learned_embeds.safetensors", "<thing>", vectors)
    np.testing.assert_array_equal(load_file(tmp_path / "learned_embeds.safetensors")["<thing>"], vectors)
    assert pipe.load_textual_inversion(tmp_path) == "<thing>"  # a folder, as the reference has them
    ids = pipe.tokenizer.encode([pipe.tokenizer.expand("a <thing>")])[0]
    assert ids[2:4].tolist() == [rows, rows + 1]
    table = pipe.text_encoder.embeddings.token_embedding.weight.data
    np.testing.assert_array_equal(table[rows:], vectors)
    np.testing.assert_array_equal(pipe.encode_prompts(["a red square"]), others)
    assert pipe.tokenizer.tokens("a <THING>")[-1] == "<thing>"  # as in the reference, in any case
    context = pipe.encode_prompts(["a <thing>"])
    assert np.abs(context - pipe.encode_prompts(["a thing"])).max() > 0.1
    pipe.save_pretrained(tmp_path / "pipe")
    np.testing.assert_array_equal(load(tmp_path / "pipe").encode_prompts(["a <thing>"]), context)


def test_other_files_and_names(pipe, tmp_path, rng):
    flat, several = rng.standard_normal(8, np.float32), rng.standard_normal((3, 8), np.float32)
    save_file({"<flat>": flat}, tmp_path / "flat.safetensors")
    save_file({"emb_params": several}, tmp_path / "toy.safetensors")
    assert pipe.load_textual_inversion(tmp_path / "flat.safetensors") == "<flat>"
    assert pipe.load_textual_inversion(tmp_path / "toy.safetensors") == "toy"
    assert pipe.load_textual_inversion(tmp_path / "flat.safetensors", "<again>") == "<again>"
    np.testing.assert_array_equal(token_vectors(pipe, "<flat> <again>"), [flat, flat])
    assert pipe.tokenizer.expand("a toy") == "a toy toy_1 toy_2"


def test_what_is_no_learnt_token_is_refused(pipe, tmp_path, rng):
    vectors, path = rng.standard_normal((1, 8), np.float32), tmp_path / "file.safetensors"
    for state, message in (
        ({"<a>": vectors, "<b>": vectors}, "holds 2 tensors, where a learnt token is one"),
        ({"<a>": vectors[:, :5]}, r"holds \(1, 5\), where the text encoder's vectors are of 8 numbers"),
        ({"<a>": vectors[None]}, r"holds \(1, 1, 8\)"),
        ({"<a>": vectors * np.inf}, "no numbers"),
        ({"two words": vectors}, "'two words' is not one word"),
        ({"red</w>": vectors}, "there is a token 'red</w>' already"),
    ):
        save_file(state, path)
        with pytest.raises(UserError, match=message):
            pipe.load_textual_inversion(path)
    save_file({"<a>": vectors}, path)
    pipe.load_textual_inversion(path)
    with pytest.raises(UserError, match="choose another: there is a token '<a>' already"):
        pipe.load_textual_inversion(path)
    with pytest.raises(UserError, match=r"the token .<A>. cannot be added.* read the same in lower case"):
        pipe.load_textual_inversion(path, "<A>")
    with pytest.raises(UserError, match="no such file"):
        pipe.load_textual_inversion(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="has no token: name a word"):
        token_vectors(pipe, " ")
