"""minild.pipelines.watching: who watches a drawing is told picture, step and the half that the prompts lead."""

import numpy as np
import pytest
import tiny_pipeline

from minild.models import Conditioned
from minild.pipelines import planning
from minild.pipelines.drawing import encode
from minild.pipelines.request import requested
from minild.pipelines.watching import Pass, WatchedModel, Watcher, watch_drawings

RED, GREEN = tiny_pipeline.CAPTIONS


class Notes(Watcher):
    """Keeps all that it is told; gives back what `answer` makes of the probabilities."""

    def __init__(self, answer=lambda weights: None):
        self.told, self.answer = [], answer

    def see(self, place, weights, now):
        self.told.append((place, weights, now))
        return self.answer(weights)


@pytest.mark.parametrize(("sampler", "asked"), [("ddim", 1), ("euler", 1), ("heun", 2)])
@pytest.mark.parametrize("guidance", [1, 3])
def test_every_step_of_every_picture_is_seen(pipe, sampler, asked, guidance):
    with watch_drawings(pipe.unet, Notes()) as notes:
        pipe.text_to_image([RED, GREEN, RED], steps=3, sampler=sampler, guidance_scale=guidance)
    seen = {(now.pictures, now.step) for _, _, now in notes.told}
    assert seen == {(range(i, i + 1), step) for i in range(3) for step in range(3)}
    layers = {place.layer for place, _, _ in notes.told}
    assert len(layers) == 4 and all(layer.endswith("attn2") for layer in layers)
    of_one = [now for _, _, now in notes.told if now.pictures == range(1, 2) and now.step == 0]
    assert len(of_one) == asked * len(layers)
    assert of_one[0].request.prompts == [RED, GREEN, RED] and of_one[0].shape == (4, 4)
    times = [now.t for _, _, now in notes.told if now.pictures == range(1)]
    assert times == sorted(times, reverse=True)


def halves(pipe, joined):
    """What is seen of one pass of a guided drawing of two pictures, both halves in one batch or apart."""
    request = requested(pipe, [RED, GREEN], GREEN, guidance_scale=2)
    guidance, x = encode(pipe, request), np.ones((2, 4, 4, 2), np.float32)
    model, t = WatchedModel(Conditioned(pipe.unet), guidance, request), np.full(2, 500, np.float32)
    with watch_drawings(pipe.unet, Notes()) as notes:
        if joined:
            model(np.concatenate([x, x]), np.concatenate([t, t]), both(guidance))
        else:
            model(x, t, guidance.negative)
            assert not notes.told
            model(x, t, guidance.condition)
    return notes.told


def both(guidance):
    contexts = [guidance.negative.context, guidance.condition.context]
    return guidance.condition._replace(context=np.concatenate(contexts))


def test_seen_is_the_half_that_the_prompts_lead(pipe):
    apart, joined = halves(pipe, False), halves(pipe, True)
    assert len(apart) == len(joined) == 4
    for (place, weights, now), (same_place, same, other) in zip(apart, joined):
        assert now.pictures == other.pictures == range(2) and place == same_place
        assert weights.shape[0] == 2 and abs(weights[0] - weights[1]).max() > 1e-3
        np.testing.assert_allclose(same, weights, rtol=1e-5)


def test_a_replacement_is_of_that_half_alone(pipe):
    request = requested(pipe, RED, GREEN, guidance_scale=2)
    guidance, x = encode(pipe, request), np.ones((2, 4, 4, 2), np.float32)
    model, t = WatchedModel(Conditioned(pipe.unet), guidance, request), np.full(2, 500, np.float32)
    negative, positive = model(x, t, both(guidance))
    with watch_drawings(pipe.unet, Notes(lambda weights: weights * 0)):
        still, changed = model(x, t, both(guidance))
    np.testing.assert_allclose(still, negative, atol=1e-5)
    assert abs(changed - positive).max() > 1e-3


@pytest.mark.parametrize("apart", [True, False], ids=["in two passes", "in one"])
def test_watching_changes_no_bit_of_a_picture(pipe, apart, monkeypatch):
    if apart:
        monkeypatch.setattr(planning, "SMALL_MAP", 0)
    drawn = {"negative_prompt": GREEN, "steps": 3, "guidance_scale": 2, "sampler": "euler-a"}
    expected = pipe.text_to_image([RED, GREEN], **drawn)
    with watch_drawings(pipe.unet, Notes()) as notes:
        np.testing.assert_array_equal(pipe.text_to_image([RED, GREEN], **drawn), expected)
    assert all(len(weights) == 1 for _, weights, _ in notes.told)
    with watch_drawings(pipe.unet, Notes(lambda weights: weights[..., ::-1].copy())):
        assert abs(pipe.text_to_image([RED, GREEN], **drawn) - expected).max() > 1e-3


def test_another_models_drawings_are_not_seen(pipe):
    with watch_drawings(tiny_pipeline.make().unet, Notes()) as notes:
        pipe.text_to_image(RED, steps=1)
    assert not notes.told


@pytest.mark.parametrize(
    ("shape", "sizes"), [((5, 7), [(5, 7), (3, 4), (2, 2), (1, 1)]), ((8, 2), [(8, 2), (4, 1), (2, 1), (1, 1)])]
)
def test_the_map_that_queries_are_of(shape, sizes):
    now = Pass(None, range(1), 0, 0.0, shape)
    assert [now.grid(h * w) for h, w in sizes] == sizes


class Steps(Watcher):
    """Keeps the latents after each step, and stops the drawing after `last`."""

    def __init__(self, last=None):
        self.told, self.last = [], last

    def wants(self, place):
        return False

    def stepped(self, z, request, pictures, step):
        self.told.append((step, pictures, z.copy()))
        if step == self.last:
            raise InterruptedError


@pytest.mark.parametrize("skip", [0, 2])
def test_latents_are_told_after_each_step_the_last_as_they_are_decoded(pipe, skip):
    with watch_drawings(pipe.unet, Steps()) as steps:
        if skip:
            drawn = pipe.image_to_image(np.full((8, 8, 3), 0.5), [RED, GREEN], 0.6, steps=5)
        else:
            drawn = pipe.text_to_image([RED, GREEN], steps=5)
    for picture in range(2):
        told = [(step, z) for step, pictures, z in steps.told if pictures == range(picture, picture + 1)]
        assert [step for step, _ in told] == list(range(1 + skip, 6))
        assert np.array_equal(pipe.decode(told[-1][1])[0], drawn[picture])
        assert abs(told[0][1] - told[-1][1]).max() > 0.1


def test_who_watches_may_end_the_drawing(pipe):
    with pytest.raises(InterruptedError), watch_drawings(pipe.unet, Steps(last=2)) as steps:
        pipe.text_to_image(RED, steps=5)
    assert [step for step, _, _ in steps.told] == [1, 2]


def test_only_who_watches_that_u_net_is_told(pipe):
    with watch_drawings(tiny_pipeline.make().unet, Steps()) as steps:
        pipe.text_to_image(RED, steps=1)
    assert steps.told == []
