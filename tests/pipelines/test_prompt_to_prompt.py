"""minild.pipelines.prompt_to_prompt: alignments written out, and two pictures drawn together."""

import numpy as np
import pytest
import tiny_pipeline

from minild.backend import device_of, to_device, to_host
from minild.errors import UserError
from minild.nn.watching import Place
from minild.pipelines.drawing import draw_latents, encode
from minild.pipelines.prompt_to_prompt import (
    LARGEST_SELF,
    Alignment,
    PromptToPrompt,
    common_subsequence,
    prompt_to_prompt,
    refine,
    reweight,
    word_swap,
)
from minild.pipelines.request import requested
from minild.pipelines.watching import Pass, Watcher, watch_drawings
from minild.random import image_generators, standard_normal

RED, GREEN = tiny_pipeline.CAPTIONS
L = tiny_pipeline.LENGTH
CROSS, SELF = Place("attn2", True, 16, L), Place("attn1", False, 16, 16)


def taken(alignment):
    """{target position: {source position: share}} of a matrix."""
    return {
        t: {int(s): float(column[s]) for s in np.flatnonzero(column)} for t, column in enumerate(alignment.matrix.T)
    }


def one_to_one(first, last, shift=0):
    return {t: {t + shift: 1.0} for t in range(first, last)}


def test_a_swap_of_words_of_as_many_tokens_takes_each_from_its_place(pipe):
    alignment = word_swap(pipe.tokenizer, "a red circle", "a green star")
    np.testing.assert_array_equal(alignment.matrix, np.eye(L))
    assert not alignment.own.any()


def test_a_swap_of_words_of_other_lengths_shares_out_and_loses_nothing(pipe):
    # "qz" has two tokens, "qzq" three; "red" and "circle" one each
    longer = word_swap(pipe.tokenizer, "red qz circle", "red qzq circle")
    half, third = {2: pytest.approx(1 / 3), 3: pytest.approx(1 / 3)}, one_to_one(5, L, -1)
    third[L - 1] = {L - 2: 1.0, L - 1: 1.0}  # the source's last padding has no place of its own
    assert taken(longer) == one_to_one(0, 2) | {2: half, 3: half, 4: half} | third
    np.testing.assert_allclose(longer.matrix.sum(1), 1, rtol=1e-6)
    shorter = word_swap(pipe.tokenizer, "red qzq circle", "red green circle")
    expected = one_to_one(0, 2) | {2: {2: 1.0, 3: 1.0, 4: 1.0}} | one_to_one(3, L - 2, 2) | {L - 2: {}, L - 1: {}}
    assert taken(shorter) == expected and not shorter.own.any()


def test_a_swap_needs_as_many_words(pipe):
    with pytest.raises(UserError, match="as many words before and after, got 3 and 2: use refine"):
        word_swap(pipe.tokenizer, "a red circle", "a circle")


def test_refine_keeps_what_both_prompts_say_and_leaves_new_words_their_own(pipe):
    alignment = refine(pipe.tokenizer, "a red circle", "a qz red star circle")
    # positions: begin a red circle end; begin a q z red star circle end
    expected = {0: {0: 1.0}, 1: {1: 1.0}, 2: {}, 3: {}, 4: {2: 1.0}, 5: {}, 6: {3: 1.0}} | one_to_one(7, L, -3)
    assert taken(alignment) == expected
    assert np.flatnonzero(alignment.own).tolist() == [2, 3, 5]
    left_out = refine(pipe.tokenizer, "a red circle", "a circle")
    assert taken(left_out) == one_to_one(0, 2) | one_to_one(2, L - 1, 1) | {L - 1: {}}
    assert np.flatnonzero(left_out.own).tolist() == [L - 1]  # one padding more than the source has


@pytest.mark.parametrize(
    ("first", "second", "pairs"),
    [
        ("abc", "abc", [(0, 0), (1, 1), (2, 2)]),
        ("abcd", "xbdy", [(1, 1), (3, 2)]),
        ("axbxc", "abc", [(0, 0), (2, 1), (4, 2)]),
        ("aab", "ab", [(0, 0), (2, 1)]),
        ("ab", "ba", [(0, 1)]),
        ("ab", "cd", []),
        ("", "a", []),
    ],
)
def test_the_longest_common_subsequence(first, second, pairs):
    assert common_subsequence(first, second) == pairs


def test_reweight_scales_the_tokens_of_a_word(pipe):
    factors = reweight(pipe.tokenizer, "red qz red", {"qz": 3, 2: -0.5})
    assert factors[:6].tolist() == [1, 1, 3, 3, -0.5, 1] and (factors[6:] == 1).all()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"scales": {"blue": 2}}, "'blue' stands 0 times"),
        ({"scales": {7: 2}}, "word 7: there are 2"),
        ({"scales": {"red": float("nan")}}, "the scale of 'red' must be a finite number, got nan"),
        ({"way": "mix"}, "unknown way 'mix' to carry attention over: use one of swap, refine"),
        ({"cross_replace_steps": 1.5}, "cross_replace_steps must be a share of the steps, from 0 to 1, got 1.5"),
        ({"self_replace_steps": -1}, "self_replace_steps must be"),
    ],
)
def test_what_cannot_be_used_is_refused(pipe, asked, message):
    with pytest.raises(UserError, match=message):
        prompt_to_prompt(pipe.tokenizer, "red circle", "red star", **asked)


def test_the_way_follows_from_the_prompts(pipe):
    def own(*asked):
        return prompt_to_prompt(pipe.tokenizer, *asked).alignment.own.sum()

    assert own("red circle", "red star") == 0
    assert own("red circle", "red star", "refine") == 1
    assert own("red circle", "red star circle") == 1


def at_step(step, steps, pipe):
    return Pass(requested(pipe, [RED, GREEN], steps=steps), range(2), step, 0.0, (4, 4))


def test_what_the_target_takes_over(pipe, rng):
    matrix, own = np.zeros((L, L), np.float32), np.zeros(L, np.float32)
    matrix[2, 5], own[3] = 0.5, 1
    control = PromptToPrompt(Alignment(matrix, own), scales=np.full(L, 2, np.float32))
    weights = rng.random((3, 2, 16, L), dtype="f")
    given = control.see(CROSS, weights, at_step(0, 10, pipe)._replace(pictures=range(3)))
    np.testing.assert_array_equal(given[0], weights[0])
    for row in (1, 2):
        np.testing.assert_allclose(given[row][..., 5], weights[0][..., 2], rtol=1e-6)  # half of it, twice
        np.testing.assert_allclose(given[row][..., 3], 2 * weights[row][..., 3], rtol=1e-6)
        assert not np.delete(given[row], [3, 5], axis=-1).any()
    assert given.dtype == np.float32
    both = control.see(SELF, weights, at_step(0, 10, pipe)._replace(pictures=range(3)))
    np.testing.assert_array_equal(both, np.stack([weights[0]] * 3))


def test_on_every_device_the_same(pipe, device, rng):
    control = prompt_to_prompt(pipe.tokenizer, RED, GREEN, "refine", scales={"green": 2})
    weights = rng.random((2, 2, 16, L), dtype="f")
    for place in (CROSS, SELF):
        expected = control.see(place, weights, at_step(0, 10, pipe))
        given = control.see(place, to_device(weights, device), at_step(0, 10, pipe))
        assert device_of(given) == device
        np.testing.assert_allclose(to_host(given), expected, rtol=1e-5)


def test_only_in_the_first_share_of_the_steps(pipe, rng):
    weights = rng.random((2, 2, 16, L), dtype="f")
    control = prompt_to_prompt(pipe.tokenizer, RED, RED, cross_replace_steps=0.7, self_replace_steps=0.3)
    for place, last in ((CROSS, 7), (SELF, 3)):
        changed = [control.see(place, weights, at_step(step, 10, pipe)) is not None for step in range(10)]
        assert changed == [step < last for step in range(10)]
    none = prompt_to_prompt(pipe.tokenizer, RED, RED, cross_replace_steps=0, self_replace_steps=0)
    assert none.see(CROSS, weights, at_step(0, 10, pipe)) is none.see(SELF, weights, at_step(0, 10, pipe)) is None
    assert control.wants(SELF) and control.wants(Place("attn2", True, 4096, L))
    assert not control.wants(Place("attn1", False, LARGEST_SELF + 1, LARGEST_SELF + 1))


class Left(Watcher):
    """Keeps the probabilities that the layers computed with."""

    def __init__(self):
        self.cross, self.own = {}, {}

    def wants(self, place):
        return True

    def see(self, place, weights, now):
        (self.cross if place.cross else self.own)[place.layer, now.step] = weights


def draw_both(pipe, source, target, control, watcher=None, **asked):
    """As the module's docstring has it -> latents (2, h, w, c)."""
    request = requested(pipe, [source, target], seed=[3, 3], **asked)
    generators = [image_generators(seed, 1)[0] for seed in request.seeds]
    latents = standard_normal(generators, request.shape)
    with watch_drawings(pipe.unet, control), watch_drawings(pipe.unet, watcher or Left()):
        *_, z = draw_latents(pipe, request, encode(pipe, request), latents, generators)
    return z


@pytest.mark.parametrize("guidance", [1, 3])
def test_drawn_together_the_target_attends_as_the_source_does(pipe, guidance):
    left, control = Left(), prompt_to_prompt(pipe.tokenizer, "a red circle", "a green star", self_replace_steps=0.5)
    z = draw_both(pipe, "a red circle", "a green star", control, left, steps=4, guidance_scale=guidance)
    for seen, until in ((left.cross, 3), (left.own, 2)):
        assert len(seen) == 4 * 4
        for (_, step), weights in seen.items():
            assert np.array_equal(weights[0], weights[1]) == (step < until)
    alone = pipe.text_to_image("a red circle", seed=3, steps=4, guidance_scale=guidance)
    before, after = pipe.decode(z)
    np.testing.assert_allclose(before, alone[0], atol=1e-4)  # the source is the picture that it is without an edit
    free = pipe.text_to_image("a green star", seed=3, steps=4, guidance_scale=guidance)[0]
    assert abs(after - before).max() > 1e-3 and abs(after - free).max() > 1e-3


def test_the_same_prompt_gives_the_same_picture_unless_reweighted(pipe):
    before, after = draw_both(pipe, RED, RED, prompt_to_prompt(pipe.tokenizer, RED, RED), steps=4)
    np.testing.assert_allclose(before, after, atol=1e-4)
    scaled = prompt_to_prompt(pipe.tokenizer, RED, RED, scales={"circle": 4})
    same, after = draw_both(pipe, RED, RED, scaled, steps=4)
    np.testing.assert_array_equal(same, before)
    assert abs(after - before).max() > 1e-2


def test_pictures_drawn_apart_are_refused(pipe):
    with watch_drawings(pipe.unet, prompt_to_prompt(pipe.tokenizer, RED, RED)):
        with pytest.raises(ValueError, match="source and target must be drawn together"):
            pipe.text_to_image([RED, RED], steps=1)
