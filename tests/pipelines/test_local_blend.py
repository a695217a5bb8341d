"""Local blend: which words make the mask, and what stays outside of it."""

import numpy as np
import pytest
import tiny_pipeline

from minild.backend import device_of, to_device, to_host
from minild.nn.watching import Place
from minild.pipelines.local_blend import BEGINS, LARGEST_MAP, LocalBlend, local_blend
from minild.pipelines.prompt_to_prompt import changed_words
from minild.pipelines.request import requested
from minild.pipelines.watching import Pass

L = tiny_pipeline.LENGTH


def test_the_words_that_differ(pipe):
    source, target = changed_words(pipe.tokenizer, "a red qz circle", "a green circle star")
    # positions: begin a red q z circle end; begin a green circle star end
    assert np.flatnonzero(source).tolist() == [2, 3, 4] and np.flatnonzero(target).tolist() == [2, 4]
    assert not changed_words(pipe.tokenizer, "a red circle", "a red circle").any()
    assert changed_words(pipe.tokenizer, "red", "green")[:, 1].all()


def test_a_weighted_word_is_a_place_to_change(pipe):
    words = local_blend(pipe.tokenizer, "a circle", "a red circle", {"circle": 2.0}).words
    assert not words[0].any() and np.flatnonzero(words[1]).tolist() == [2, 3]


def at(step, pipe):
    return Pass(requested(pipe, ["red", "green"], steps=10), range(2), step, 0.0, (4, 6))


def test_outside_the_mask_the_source_stays(pipe, device, rng):
    words = np.zeros((2, L), bool)
    words[0, 2] = words[1, 3] = True
    blend, weights = LocalBlend(words), np.full((2, 3, 24, L), 0.01, np.float32)
    weights[0, :, 5, 2] = weights[1, :, 10, 3] = 0.9
    weights[1, :, 20, 7] = 0.9  # of a word that stays
    z = to_device(rng.random((2, 4, 6, 2), dtype="f"), device)
    for step in range(10):
        blend.see(Place("attn2", True, 24, L), to_device(weights, device), at(step, pipe))
        mixed = blend.mix(z, 0.5)
        assert device_of(mixed) == device and (mixed is z) == (step + 1 <= 10 * BEGINS)
    before, after = to_host(z), to_host(mixed)
    np.testing.assert_array_equal(after[0], before[0])
    there = (after[1] == before[1]).all(axis=-1)
    assert np.flatnonzero(there).tolist() == [5, 10]
    np.testing.assert_array_equal(after[1][~there], before[0][~there])


def test_maps_of_several_sizes_add_up(pipe, rng):
    words = np.ones((2, L), bool)
    blend = LocalBlend(words)
    for queries in (24, 6):
        blend.see(Place("attn2", True, queries, L), rng.random((2, 3, queries, L), dtype="f"), at(9, pipe))
    assert blend.seen.shape == (2, 4, 6) and blend.mask().shape == (4, 6)
    assert blend.wants(Place("attn2", True, LARGEST_MAP, L)) and not blend.wants(Place("attn2", True, 4096, L))
    assert not blend.wants(Place("attn1", False, 16, 16))


def test_without_a_map_all_may_change(rng):
    blend, z = LocalBlend(np.ones((2, L), bool)), rng.random((2, 4, 6, 2), dtype="f")
    blend.holds = True
    np.testing.assert_array_equal(blend.mix(z, 0.5), z)


@pytest.mark.parametrize("weights", [None, {"red": 1.0}])
def test_nothing_to_change_is_refused(pipe, weights):
    with pytest.raises(Exception, match="no word of the two prompts differs"):
        local_blend(pipe.tokenizer, "a red circle", "a red circle", weights)
