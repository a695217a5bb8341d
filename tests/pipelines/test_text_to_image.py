"""Pipeline.text_to_image: what decides a picture, and what does not."""

import numpy as np
import pytest
import tiny_pipeline

from minild import using
from minild.diffusion import ddim
from minild.errors import UserError
from minild.pipelines import planning
from minild.random import standard_normal

RED, GREEN = tiny_pipeline.CAPTIONS


def draw(pipe, prompts=RED, steps=3, **settings):
    return pipe.text_to_image(prompts, steps=steps, **settings)


def test_pictures_are_float32_in_0_to_1_and_not_flat(pipe):
    pictures = draw(pipe, [RED, GREEN])
    assert pictures.shape == (2, 8, 8, 3)
    assert pictures.dtype == np.float32
    assert pictures.min() >= 0 and pictures.max() <= 1
    assert pictures.std() > 0.05


def test_it_is_guided_ddim_then_the_decoder(pipe):
    # by hand: two passes of the U-Net a step, extrapolated, on the noise of generator `seed`
    context, negative = pipe.encode_prompts([RED]), pipe.encode_prompts([GREEN])

    def predict(x, t):
        t = np.full(1, t, np.float32)
        positive, away = pipe.unet(x, t, context), pipe.unet(x, t, negative)
        return away + 4 * (positive - away)

    noise = standard_normal([np.random.default_rng(11)], (4, 4, 2))
    *_, z = ddim(predict, noise, pipe.schedule, 3)
    expected = np.clip(pipe.vae.decode(z / 0.7) / 2 + 0.5, 0, 1)
    drawn = draw(pipe, negative_prompt=GREEN, guidance_scale=4, seed=11)
    np.testing.assert_allclose(drawn, expected, atol=2e-5)


@pytest.mark.parametrize(("sampler", "small_map"), [("ddim", 16384), ("ddpm", 16384), ("ddpm", 0)])
def test_a_picture_is_the_same_alone_and_in_a_batch(pipe, sampler, small_map, monkeypatch):
    """With a SMALL_MAP of 0 guidance takes two passes of the U-Net: side by side for a picture that is alone."""
    monkeypatch.setattr(planning, "SMALL_MAP", small_map)
    prompts = [RED, GREEN, RED]
    together = draw(pipe, prompts, seed=5, sampler=sampler)
    for i, prompt in enumerate(prompts):
        np.testing.assert_array_equal(draw(pipe, prompt, seed=5 + i, sampler=sampler)[0], together[i])
    assert abs(together[0] - together[2]).max() > 0.01  # one prompt, two seeds


@pytest.mark.parametrize(("small_positions", "cores"), [(0, 2), (0, 4), (1024, 2)])
def test_one_pass_or_two_is_a_matter_of_rounding(pipe, small_positions, cores, monkeypatch):
    monkeypatch.setattr(planning, "core_count", lambda: cores)
    expected = draw(pipe, [RED, GREEN], seed=5)
    monkeypatch.setattr(planning, "SMALL_MAP", 0)
    monkeypatch.setattr(planning, "SMALL_POSITIONS", small_positions)
    np.testing.assert_allclose(draw(pipe, [RED, GREEN], seed=5), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("small_map", "guidance_scale", "batches"),
    [(16384, 4, [2]), (0, 4, [1, 1]), (0, 1, [1]), (0, 0, [1]), (16384, 0.5, [1]), (16384, -3, [1])],
)
def test_a_small_unet_sees_both_halves_at_once(pipe, small_map, guidance_scale, batches, monkeypatch):
    monkeypatch.setattr(planning, "SMALL_MAP", small_map)
    seen, forward = [], pipe.unet.forward
    monkeypatch.setattr(pipe.unet, "forward", lambda x, *rest: (seen.append(len(x)), forward(x, *rest))[1])
    draw(pipe, guidance_scale=guidance_scale, steps=3)
    assert seen == 3 * batches


def test_seeds_of_their_own(pipe):
    pictures = draw(pipe, [RED, GREEN], seed=[7, 3], sampler="ddpm")
    for picture, prompt, seed in zip(pictures, [RED, GREEN], [7, 3]):
        np.testing.assert_array_equal(picture, draw(pipe, prompt, seed=seed, sampler="ddpm")[0])
    several = draw(pipe, RED, seed=np.array([7, 9, 7]))  # one prompt for all
    assert len(several) == 3
    np.testing.assert_array_equal(several[:2], np.concatenate([draw(pipe, seed=7), draw(pipe, seed=9)]))
    np.testing.assert_array_equal(several[0], several[2])


def test_seeds_go_with_latents(pipe):
    """They then decide the noise of every step, not the first."""
    noise = np.repeat(standard_normal([np.random.default_rng(4)], (4, 4, 2)), 3, axis=0)
    pictures = draw(pipe, latents=noise, seed=[5, 6, 5], sampler="ddpm")
    np.testing.assert_array_equal(pictures[0], pictures[2])
    assert abs(pictures[0] - pictures[1]).max() > 0.01


def test_a_negative_prompt_for_each_picture(pipe):
    pictures = draw(pipe, [RED, RED], negative_prompt=[GREEN, ""], seed=[1, 1])
    np.testing.assert_array_equal(pictures[0], draw(pipe, RED, negative_prompt=GREEN, seed=1)[0])
    np.testing.assert_array_equal(pictures[1], draw(pipe, RED, seed=1)[0])
    assert abs(pictures[0] - pictures[1]).max() > 1e-3


def test_a_negative_prompt_is_encoded_once(pipe, monkeypatch):
    seen, forward = [], pipe.text_encoder.forward
    monkeypatch.setattr(pipe.text_encoder, "forward", lambda x, *rest: (seen.append(len(x)), forward(x, *rest))[1])
    draw(pipe, [RED] * 3, negative_prompt=GREEN)
    assert seen == [1, 1]


def test_clip_skip_leaves_out_layers_of_the_prompt_alone(pipe):
    context, negative = pipe.encode_prompts([RED], clip_skip=1), pipe.encode_prompts([GREEN])
    embeddings, norm = pipe.text_encoder.embeddings, pipe.text_encoder.final_layer_norm
    np.testing.assert_array_equal(context, norm(embeddings(pipe.tokenizer.encode([RED]))))  # it has one layer

    def predict(x, t):
        t = np.full(1, t, np.float32)
        positive, away = pipe.unet(x, t, context), pipe.unet(x, t, negative)
        return away + 4 * (positive - away)

    noise = standard_normal([np.random.default_rng(11)], (4, 4, 2))
    *_, z = ddim(predict, noise, pipe.schedule, 3)
    settings = {"negative_prompt": GREEN, "guidance_scale": 4, "seed": 11}
    skipped = draw(pipe, clip_skip=1, **settings)
    np.testing.assert_allclose(skipped, pipe.decode(z), atol=2e-5)
    assert abs(skipped - draw(pipe, **settings)).max() > 1e-3


def test_guidance_rescale(pipe):
    settings = {"negative_prompt": GREEN, "seed": 11}
    plain = draw(pipe, guidance_scale=9, **settings)
    np.testing.assert_array_equal(draw(pipe, guidance_scale=9, guidance_rescale=0, **settings), plain)
    some, full = (draw(pipe, guidance_scale=9, guidance_rescale=r, **settings) for r in (0.5, 1))
    assert abs(some - plain).max() > 1e-3 and abs(full - some).max() > 1e-3
    # of no guidance nothing is taken back
    np.testing.assert_array_equal(draw(pipe, guidance_scale=1, guidance_rescale=1), draw(pipe, guidance_scale=1))


def test_a_seed_repeats(pipe):
    np.testing.assert_array_equal(draw(pipe, seed=2), draw(pipe, seed=2))
    assert abs(draw(pipe, seed=2) - draw(pipe, seed=3)).max() > 0.01


def test_prompt_negative_prompt_and_guidance_all_matter(pipe):
    plain = draw(pipe)
    for other in (
        draw(pipe, GREEN),
        draw(pipe, ""),
        draw(pipe, negative_prompt=GREEN),
        draw(pipe, guidance_scale=1),
        draw(pipe, steps=4),
        draw(pipe, sampler="ddpm"),
    ):
        assert abs(plain - other).max() > 1e-3


def test_without_guidance_the_negative_prompt_does_nothing(pipe):
    np.testing.assert_array_equal(
        draw(pipe, guidance_scale=1), draw(pipe, guidance_scale=1, negative_prompt="a blue square")
    )


@pytest.mark.parametrize("guidance_scale", [1, np.float32(1), 0.999, 0.5, 0, -1, -7.5])
def test_a_guidance_of_1_or_less_is_none_and_the_prompt_still_counts(pipe, guidance_scale):
    """The formula would draw the negative prompt at 0, and flee from the prompt below it."""
    drawn = draw(pipe, guidance_scale=guidance_scale, negative_prompt=GREEN, guidance_rescale=0.7)
    np.testing.assert_array_equal(drawn, draw(pipe, guidance_scale=1))
    assert abs(drawn - draw(pipe, GREEN, guidance_scale=guidance_scale)).max() > 1e-3


def test_the_folders_own_sampler_is_the_default(pipe):
    np.testing.assert_array_equal(draw(pipe), draw(pipe, sampler="ddim"))
    pipe_of_ddpm = tiny_pipeline.make()
    pipe_of_ddpm.sampler = "ddpm"
    np.testing.assert_array_equal(draw(pipe_of_ddpm), draw(pipe, sampler="ddpm"))


def test_latents_replace_the_noise(pipe):
    noise = standard_normal([np.random.default_rng(4)], (4, 4, 2))
    np.testing.assert_array_equal(draw(pipe, latents=noise, seed=99), draw(pipe, seed=4))
    several = np.concatenate([noise, 0.5 * noise, noise])
    pictures = draw(pipe, latents=several)
    assert pictures.shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(pictures[0], pictures[2])
    assert abs(pictures[0] - pictures[1]).max() > 1e-3


def test_size_and_the_size_of_latents(pipe, rng):
    assert draw(pipe, size=(12, 16)).shape == (1, 12, 16, 3)
    assert draw(pipe, latents=rng.standard_normal((1, 6, 8, 2))).shape == (1, 12, 16, 3)


@pytest.mark.parametrize(("height", "width"), [(10, 8), (8, 14), (18, 26), (2, 2), (6, 40)])
def test_any_multiple_of_f_is_a_size(pipe, height, width):
    """The U-Net halves 5 x 4 positions to 3 x 2. A picture is the same alone, among others, and from latents."""
    together = draw(pipe, [RED, GREEN], size=(height, width), seed=5)
    assert together.shape == (2, height, width, 3) and np.isfinite(together).all()
    np.testing.assert_array_equal(draw(pipe, GREEN, size=(height, width), seed=6)[0], together[1])
    noise = standard_normal([np.random.default_rng(6)], (height // 2, width // 2, 2))
    np.testing.assert_array_equal(draw(pipe, GREEN, latents=noise)[0], together[1])
    with using("textbook"):
        np.testing.assert_allclose(draw(pipe, GREEN, latents=noise)[0], together[1], atol=1e-4)


def test_a_device_draws_the_same_pictures_in_bounded_batches(pipe, device, monkeypatch):
    monkeypatch.setattr(planning, "GPU_POSITIONS", 32)  # two of these pictures
    there = tiny_pipeline.make()
    for model in (there.vae, there.text_encoder, there.unet):
        model.to(device)
    assert there.device == device
    pictures = draw(there, [RED, GREEN, RED], sampler="ddpm")
    assert isinstance(pictures, np.ndarray)
    np.testing.assert_allclose(pictures, draw(pipe, [RED, GREEN, RED], sampler="ddpm"), atol=1e-4)


def test_float16_draws_nearly_the_same(pipe):
    half = tiny_pipeline.make()
    for model in (half.vae, half.text_encoder, half.unet):
        model.astype("float16")
    pictures = draw(half, guidance_scale=1)
    assert pictures.dtype == np.float32
    np.testing.assert_allclose(pictures, draw(pipe, guidance_scale=1), atol=0.05)


def test_encoding_a_text_does_not_depend_on_the_others(pipe):
    context = pipe.encode_prompts([RED, GREEN, RED])
    assert context.shape == (3, tiny_pipeline.LENGTH, 8)
    np.testing.assert_array_equal(context[0], context[2])
    np.testing.assert_array_equal(context[1:2], pipe.encode_prompts([GREEN]))


def test_no_bar_unless_it_is_asked_for(pipe, capsys):
    draw(pipe)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"prompts": []}, "no prompt"),
        ({"steps": 0}, "steps: expected 1 to 1000, got 0"),
        ({"steps": 1001}, "steps: expected 1 to 1000, got 1001"),
        ({"steps": "5"}, "steps: expected 1 to 1000, got '5'"),
        ({"steps": 2.5}, "steps: expected 1 to 1000, got 2.5"),
        ({"sampler": "magic"}, "unknown sampler 'magic': use one of ddpm, ddim"),
        ({"guidance_scale": float("nan")}, "guidance must be a finite number"),
        ({"guidance_scale": float("-inf")}, "guidance must be a finite number, got -inf"),
        ({"guidance_scale": "7.5"}, "guidance must be a finite number, got '7.5'"),
        ({"guidance_scale": [1, 2]}, "guidance must be a finite number"),
        ({"guidance_rescale": "0.5"}, "guidance rescale must be from 0 to 1, got '0.5'"),
        ({"guidance_rescale": 1.1}, "guidance rescale must be from 0 to 1, got 1.1"),
        ({"guidance_rescale": float("nan")}, "guidance rescale must be from 0 to 1"),
        ({"clip_skip": 2}, "clip skip must be from 0 to 1, the text encoder's layers, got 2"),
        ({"clip_skip": -1}, "clip skip must be from 0 to 1"),
        ({"clip_skip": 0.5}, "clip skip must be from 0 to 1"),
        ({"seed": -1}, "seed must be a whole number from 0, got -1"),
        ({"seed": [3, -1]}, "seed must be a whole number from 0, got -1"),
        ({"seed": 1.5}, "seed must be a whole number from 0, got 1.5"),
        ({"seed": []}, "no seed"),
        ({"prompts": [RED, GREEN], "seed": [1, 2, 3]}, "2 prompts do not go with 3 seeds: give one, or as many"),
        ({"seed": [1, 2], "latents": np.zeros((3, 4, 4, 2))}, "2 seeds do not go with 3 latents: give as many, or a"),
        ({"prompts": [RED, GREEN], "negative_prompt": [""] * 3}, "3 negative prompts do not go with 2 prompts"),
        ({"negative_prompt": []}, "0 negative prompts do not go with 1 prompt"),
        ({"size": (11, 8)}, "size 11 x 8 is not divisible by 2: use multiples of 2 pixels"),
        ({"size": 8}, r"size: expected \(height, width\) in pixels, got 8"),
        ({"size": (8, 8, 3)}, r"size: expected \(height, width\) in pixels, got \(8, 8, 3\)"),
        ({"size": ("8", "8")}, r"size: expected \(height, width\)"),
        ({"size": (8, 0)}, "size 8 x 0 is not divisible by 2"),
        ({"size": (8, 8), "latents": np.zeros((1, 4, 4, 2))}, "not both"),
        ({"latents": np.zeros((4, 4, 2))}, r"latents: expected shape \(N, h, w, 2\)"),
        ({"latents": np.zeros((1, 4, 4, 3))}, r"got \(1, 4, 4, 3\)"),
        ({"latents": np.zeros((0, 4, 4, 2))}, r"got \(0, 4, 4, 2\)"),
        ({"latents": np.zeros((1, 4, 0, 2))}, r"got \(1, 4, 0, 2\)"),
        ({"latents": np.full((1, 4, 4, 2), np.nan)}, "not finite"),
        ({"latents": np.zeros((1, 4, 4, 2), complex)}, "real numbers"),
        ({"prompts": [RED, GREEN], "latents": np.zeros((3, 4, 4, 2))}, "2 prompts do not go with 3 latents"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(pipe, settings, message):
    with pytest.raises(UserError, match=message) as caught:
        draw(pipe, **settings)
    assert "\n" not in str(caught.value)


def test_a_model_that_gives_no_numbers_is_told(pipe):
    broken = tiny_pipeline.make()
    broken.vae.decoder.conv_out.bias.data = np.full(3, np.nan, np.float32)
    with pytest.raises(UserError, match="no numbers in float32"):
        draw(broken)
