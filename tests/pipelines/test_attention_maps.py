"""minild.pipelines.attention_maps: each word's map over the picture; and where the shipped shapes look."""

import numpy as np
import pytest
import tiny_pipeline

from minild.data.shapes import COLOURS
from minild.errors import UserError
from minild.nn.watching import Place
from minild.pipelines import load, planning
from minild.pipelines.attention_maps import AttentionMaps, watch_attention
from minild.pipelines.request import requested
from minild.pipelines.watching import Pass, Watcher, watch_drawings

RED, GREEN = tiny_pipeline.CAPTIONS


def place_of(queries):
    return Place("somewhere", True, queries, tiny_pipeline.LENGTH)


@pytest.fixture
def written(pipe):
    """Maps of "red <unseen>" told by hand: 2 x 4 latents, layers of 2 x 4 and 1 x 2, two heads, two steps."""
    seen = AttentionMaps(pipe)
    request = requested(pipe, ["red qz", GREEN])
    assert pipe.tokenizer.words("red qz") == [("red", range(1, 2)), ("qz", range(2, 4))]
    for step in range(2):
        now = Pass(request, range(1), step, 0.0, (2, 4))
        large, small = np.zeros((1, 2, 8, 14), np.float32), np.zeros((1, 2, 2, 14), np.float32)
        large[0, :, 0, 1] = 0.2, 0.4  # red: top left, the mean over heads 0.3
        large[0, :, 7, 2:4] = 0.1 + step  # qz: bottom right, its two tokens 0.2 and 2.2
        small[0, :, 1, 1] = 0.5  # red: the right half
        seen.see(place_of(8), large, now)
        seen.see(place_of(8), large, now)
        seen.see(place_of(2), small, now)
    return seen


def test_a_map_is_the_mean_over_heads_layers_and_steps_and_the_sum_over_a_words_tokens(written):
    assert written.words() == ["red", "qz"] and written.grids == [(1, 2), (2, 4)]
    red, qz = written.maps(grids=[(2, 4)])
    assert red.shape == (4, 8) and red.dtype == np.float32  # f = 2
    np.testing.assert_allclose([red[0, 0], qz[3, 7]], [0.3, 1.2], rtol=1e-6)
    assert red[:, 3:].max() == 0 and qz[:, :5].max() == 0
    np.testing.assert_allclose(written.maps(step=0, grids=[(2, 4)])[1, 3, 7], 0.2, rtol=1e-6)
    np.testing.assert_allclose(written.map("qz", step=1, grids=[(2, 4)])[3, 7], 2.2, rtol=1e-6)
    np.testing.assert_allclose(written.map(0, grids=[(1, 2)])[:, [0, 7]], [[0, 0.5]] * 4)
    # two layers of the one size, and one of the other
    np.testing.assert_allclose(written.map("red")[0, [0, 7]], [2 / 3 * 0.3, 1 / 3 * 0.5], rtol=1e-6)


class Large(Watcher):
    """Keeps the probabilities of a picture where the feature maps are 5 x 7."""

    def __init__(self, picture):
        self.picture, self.weights = picture, []

    def see(self, place, weights, now):
        if now.pictures == range(self.picture, self.picture + 1) and place.queries == 35:
            self.weights.append(weights[0])


def test_maps_are_of_the_whole_picture_and_are_shares(pipe):
    with watch_attention(pipe) as seen, watch_drawings(pipe.unet, Large(1)) as large:
        pictures = pipe.text_to_image([RED, GREEN], steps=2, size=(10, 14), guidance_scale=2)
    assert pictures.shape[1:3] == (10, 14) and seen.grids == [(3, 4), (5, 7)]
    for picture, prompt in enumerate([RED, GREEN]):
        maps = seen.maps(picture)
        assert maps.shape == (len(prompt.split()), 10, 14)
        assert 0 < maps.min() and maps.sum(0).max() < 1
    of_green = np.mean(large.weights, axis=(0, 1))[:, 2].reshape(5, 7)  # "a green star ...": the third, with the begin
    shown = seen.map("green", 1, grids=[(5, 7)])
    np.testing.assert_allclose(shown[[0, 0, -1], [0, -1, -1]], of_green[[0, 0, -1], [0, -1, -1]], rtol=1e-5)
    assert abs(shown.mean() - of_green.mean()) < 1e-3


def test_on_every_device_the_same(pipe, device, monkeypatch):
    monkeypatch.setattr(planning, "GPU_POSITIONS", 32)  # there two of three pictures are one batch, of both halves
    there = tiny_pipeline.make()
    there.unet.to(device), there.text_encoder.to(device), there.vae.to(device)
    seen = []
    for each in (pipe, there):
        with watch_attention(each) as maps:
            each.text_to_image([RED, GREEN, RED], steps=2, guidance_scale=2)
        seen.append(np.concatenate([maps.maps(picture, step) for picture in range(3) for step in range(2)]))
    np.testing.assert_allclose(seen[1], seen[0], atol=1e-5)


def test_the_last_drawing_is_kept(pipe):
    with watch_attention(pipe) as seen:
        pipe.text_to_image([RED, RED], steps=2)
        pipe.text_to_image("green", steps=1)
    assert seen.words() == ["green"]
    with pytest.raises(UserError, match="step 1: 1 were taken"):
        seen.maps(step=1)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda seen: seen.map("blue"), r"'blue' stands 0 times among \['red', 'qz'\]: give the number"),
        (lambda seen: seen.map(2), "word 2: there are 2, counted from 0"),
        (lambda seen: seen.maps(7), "picture 7: 2 were drawn"),
        (lambda seen: seen.words(-1), "picture -1: 2 were drawn"),
        (lambda seen: seen.maps(step=2), "step 2: 2 were taken"),
        (lambda seen: seen.maps(grids=[(8, 8)]), r"no feature map of \(8, 8\) attends to words: there are \[\(1, 2\)"),
        (lambda seen: AttentionMaps(seen.pipe).maps(), "no attention was seen: draw within"),
    ],
)
def test_what_is_not_there_is_refused(written, ask, message):
    with pytest.raises(UserError, match=message):
        ask(written)


def test_a_word_that_stands_twice_goes_by_number(pipe):
    with watch_attention(pipe) as seen:
        pipe.text_to_image("red red", steps=1)
    with pytest.raises(UserError, match="'red' stands 2 times"):
        seen.map("red")
    assert abs(seen.map(0) - seen.map(1)).max() > 1e-4


def test_a_model_without_words_has_no_maps():
    pipe = tiny_pipeline.make(record={"condition": "class"})
    with pytest.raises(UserError, match="attention maps are of words, and what leads the model is class"):
        with watch_attention(pipe):
            pass


DRAWN = [
    (("red", "circle"), "above", ("blue", "square")),
    (("green", "triangle"), "left of", ("yellow", "star")),
    (("pink", "square"), "above", ("cyan", "circle")),
    (("orange", "triangle"), "left of", ("purple", "square")),
]


def test_on_the_shipped_shapes_a_words_map_stands_where_its_object_does():
    pipe = load("shapes")
    captions = [
        f"{'an' if one[0] == 'orange' else 'a'} {' '.join(one)} {how} a {' '.join(other)} on a white background"
        for one, how, other in DRAWN
    ]
    with watch_attention(pipe) as seen:
        pictures = pipe.text_to_image(captions, steps=10)
    inside_shapes, outside_shapes = 0, 0
    for i, (one, _, other) in enumerate(DRAWN):
        for colour, shape in (one, other):
            near = abs(255 * pictures[i] - COLOURS[colour]).max(axis=-1) < 60
            rows, columns = (np.flatnonzero(near.any(axis=axis)) for axis in (1, 0))
            box = np.zeros(near.shape, bool)
            box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
            assert 60 < box.sum() < 300
            of_colour, of_shape = seen.map(colour, i), seen.map(shape, i)
            assert of_colour[box].mean() > 1.2 * of_colour[~box].mean(), (captions[i], colour)
            inside_shapes += of_shape[box].mean()
            outside_shapes += of_shape[~box].mean()
    assert inside_shapes > 1.2 * outside_shapes
