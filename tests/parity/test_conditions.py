"""Models that more than words leads, in the reference: its inpainting pipeline opens ours, and draws the same."""

import numpy as np
import tiny_pipeline

from minild import pipelines
from minild.models import AutoencoderKL, UNet2DConditionModel
from parity import reference
from parity.reference import channels_first, diffusers, torch


def inpainting_pipeline():
    """The tiny pipeline of text and masked pictures: four latent channels, nine of the U-Net."""
    pipe, rng = tiny_pipeline.make(), np.random.default_rng(3)
    pipe.vae = AutoencoderKL.from_config(pipe.vae.config | {"latent_channels": 4})
    pipe.unet = UNet2DConditionModel.from_config(pipe.unet.config | {"in_channels": 9, "out_channels": 4})
    for model in (pipe.vae, pipe.unet):
        for parameter in model.parameters():
            parameter.data = parameter.data + 0.1 * rng.standard_normal(parameter.data.shape, np.float32)
    # The reference draws the masked picture's latents from their posterior, which is here all but its mean.
    pipe.vae.quant_conv.weight.data[..., 4:] = 0
    pipe.vae.quant_conv.bias.data[4:] = -30
    pipe.record = {"condition": "text+masked"}
    return pipe


def test_the_references_inpainting_pipeline_draws_the_same(tmp_path, rng):
    inpainting_pipeline().save_pretrained(tmp_path)
    (tmp_path / "minild.json").unlink()  # its class alone says what it is
    ours, theirs = pipelines.load(tmp_path), diffusers.StableDiffusionInpaintPipeline.from_pretrained(tmp_path)
    theirs.set_progress_bar_config(disable=True)
    pictures, latents = rng.random((2, 12, 8, 3), np.float32), rng.standard_normal((2, 6, 4, 4), np.float32)
    masks = np.zeros((2, 12, 8), bool)
    masks[0, 2:7, 1:6], masks[1, 5:] = True, True
    prompts, settings = list(tiny_pipeline.CAPTIONS), {"guidance_scale": 4.0}
    mine = ours.condition_to_image(pictures, masks, prompts, steps=6, latents=latents, **settings)
    drawn = theirs(
        prompts,
        image=channels_first(pictures),
        mask_image=channels_first(masks[..., None].astype(np.float32)),
        num_inference_steps=6,
        latents=channels_first(latents),
        height=12,
        width=8,
        output_type="np",
        **settings,
    ).images
    assert mine.std() > 0.05
    np.testing.assert_allclose(mine, drawn, atol=2e-5)


def test_the_references_classes_open_a_model_without_words(tmp_path, rng):
    pipe = tiny_pipeline.make()
    pipe.unet = UNet2DConditionModel.from_config(pipe.unet.config | {"num_class_embeds": 4})
    pipe.unet.conv_out.weight.data = rng.standard_normal(pipe.unet.conv_out.weight.shape, np.float32)  # once zero
    pipe.text_encoder = pipe.tokenizer = None
    pipe.record = {"condition": "class", "classes": ["a", "b", "c"]}
    pipe.save_pretrained(tmp_path)
    theirs = diffusers.DiffusionPipeline.from_pretrained(tmp_path, text_encoder=None, tokenizer=None)
    assert theirs.text_encoder is None and theirs.unet.config.num_class_embeds == 4
    x, t, zeros = rng.standard_normal((1, 4, 4, 2), np.float32), np.array([7.0], np.float32), np.zeros((1, 1, 8), "f")
    ours = pipe.unet(x, t, zeros, np.array([2]))
    with torch.no_grad():
        y = theirs.unet(channels_first(x), torch.tensor(t), torch.tensor(zeros), class_labels=torch.tensor([2])).sample
    assert ours.std() > 0.1
    np.testing.assert_allclose(ours, reference.channels_last(y), atol=1e-5)
