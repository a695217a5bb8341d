"""Pipeline.text_to_image: what decides a picture, and what does not."""

import numpy as np
import pytest
import tiny_pipeline

from minild.backend import standard_normal
from minild.diffusion import ddim
from minild.errors import UserError

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


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_picture_is_the_same_alone_and_in_a_batch(pipe, sampler):
    prompts = [RED, GREEN, RED]
    together = draw(pipe, prompts, seed=5, sampler=sampler)
    for i, prompt in enumerate(prompts):
        np.testing.assert_array_equal(draw(pipe, prompt, seed=5 + i, sampler=sampler)[0], together[i])
    assert abs(together[0] - together[2]).max() > 0.01  # one prompt, two seeds


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


def test_a_device_draws_the_same_pictures_in_bounded_batches(pipe, device, monkeypatch):
    from minild.pipelines import pipeline

    monkeypatch.setattr(pipeline, "GPU_POSITIONS", 32)  # two of these pictures
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
        ({"sampler": "magic"}, "unknown sampler 'magic': use one of ddpm, ddim"),
        ({"guidance_scale": float("nan")}, "guidance must be a finite number"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"size": (10, 8)}, "size 10 x 8 is not divisible by 4"),
        ({"size": (8, 0)}, "size 8 x 0 is not divisible by 4"),
        ({"size": (8, 8), "latents": np.zeros((1, 4, 4, 2))}, "not both"),
        ({"latents": np.zeros((4, 4, 2))}, r"latents: expected shape \(N, h, w, 2\)"),
        ({"latents": np.zeros((1, 4, 4, 3))}, r"got \(1, 4, 4, 3\)"),
        ({"latents": np.zeros((1, 4, 5, 2))}, "multiples of 2"),
        ({"latents": np.zeros((0, 4, 4, 2))}, r"got \(0, 4, 4, 2\)"),
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
