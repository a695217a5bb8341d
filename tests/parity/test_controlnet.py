"""ControlNets beside the reference's: residuals, gradients, whole pictures, and folders that either one writes."""

import importlib

import numpy as np
import pytest
import tiny_pipeline
from models.passes import BLIND, Pass, assert_same, cast
from models.tiny import CONTROLNET, UNET, controlnet_inputs
from training.small import drawn

from minild import pipelines
from minild.models import ControlNetModel, UNet2DConditionModel
from parity.reference import TimestepsInFloat64, channels_first, channels_last, diffusers, torch
from parity.test_conditions import inpainting_pipeline
from parity.test_pipeline import assert_same_pictures

CLASSES = CONTROLNET | {"num_class_embeds": 7}


def reference_pass(model, dtype, x, t, context, control, dys, class_labels=None):
    """The reference's Pass, its residuals by their numbers; dys are their gradients."""
    model.to(getattr(torch, dtype))
    if dtype == "float64":
        model.time_proj = TimestepsInFloat64(model.time_proj)
    x, control = channels_first(x).requires_grad_(), channels_first(control).requires_grad_()
    t, context = torch.tensor(t, requires_grad=True), torch.tensor(context, requires_grad=True)
    labels = None if class_labels is None else torch.tensor(class_labels)
    downs, mid = model(x, t, context, control, class_labels=labels, return_dict=False)
    residuals = [*downs, mid]
    torch.autograd.backward(residuals, [channels_first(dy) for dy in dys])
    outputs = {f"residual {i}": channels_last(residual) for i, residual in enumerate(residuals)}
    gradients = {"x": channels_last(x.grad), "t": t.grad.numpy(), "context": context.grad.numpy()}
    gradients["control"] = channels_last(control.grad)
    return Pass(outputs, gradients | {name: p.grad.numpy() for name, p in model.named_parameters()})


def our_pass(model, dys, **inputs):
    residuals, cache = model.forward(**inputs)
    gradients = dict(zip(("x", "t", "context", "control"), model.backward(dys, cache)))
    outputs = {f"residual {i}": residual for i, residual in enumerate(residuals)}
    return Pass(outputs, gradients | model.gradient_dict())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("config", [CONTROLNET, CLASSES], ids=["plain", "classes"])
def test_residuals_and_gradients(tmp_path, rng, config, dtype):
    """Of a folder that is written here and opened by the reference."""
    ours = drawn(ControlNetModel.from_config(config))
    ours.save_pretrained(tmp_path)
    theirs = diffusers.ControlNetModel.from_pretrained(tmp_path).eval()
    inputs = cast(controlnet_inputs(rng) | {"t": np.array([3.75, 212.25])}, dtype)
    inputs |= {"class_labels": np.array([4, 1])} if config is CLASSES else {}
    ours.astype(dtype)
    dys = [rng.standard_normal(residual.shape).astype(dtype) for residual in ours(**inputs)]
    mine, its = our_pass(ours, dys, **inputs), reference_pass(theirs, dtype, dys=dys, **inputs)
    blind = (*BLIND, "class_embedding.weight") if config is CLASSES else BLIND
    assert_same(mine, its, dtype, blind)


def test_what_a_unet_makes_of_residuals(tmp_path, rng):
    ours = drawn(UNet2DConditionModel.from_config(UNET))
    ours.save_pretrained(tmp_path)
    theirs = diffusers.UNet2DConditionModel.from_pretrained(tmp_path).eval()
    inputs = {name: x.astype("f") for name, x in controlnet_inputs(rng).items() if name != "control"}
    made = ControlNetModel.from_unet(ours, f=4)(**inputs, control=np.zeros((2, 16, 24, 3), np.float32))
    residuals = [rng.standard_normal(residual.shape, np.float32) for residual in made]
    y, cache = ours.forward(**inputs, residuals=residuals)
    dy = rng.standard_normal(y.shape, np.float32)
    *_, dresiduals = ours.backward(dy, cache)
    tensors = [channels_first(residual).requires_grad_() for residual in residuals]
    its = theirs(
        channels_first(inputs["x"]),
        torch.tensor(inputs["t"]),
        torch.tensor(inputs["context"]),
        down_block_additional_residuals=tuple(tensors[:-1]),
        mid_block_additional_residual=tensors[-1],
    ).sample
    its.backward(channels_first(dy))
    np.testing.assert_allclose(y, channels_last(its), atol=1e-5 * np.abs(y).max())
    for mine, tensor in zip(dresiduals, tensors, strict=True):
        its = channels_last(tensor.grad)
        np.testing.assert_allclose(mine, its, atol=1e-5 * np.abs(its).max())


def test_a_copy_of_a_unet_is_the_references(tmp_path):
    unet = drawn(UNet2DConditionModel.from_config(UNET))
    unet.save_pretrained(tmp_path)
    theirs = diffusers.ControlNetModel.from_unet(diffusers.UNet2DConditionModel.from_pretrained(tmp_path))
    ours = ControlNetModel.from_unet(unet).state_dict()
    its = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    assert {name: x.shape for name, x in ours.items()} == {name: x.shape for name, x in its.items()}
    for name in ours.keys() - {name for name in its if name.startswith("controlnet_cond_embedding")}:
        np.testing.assert_array_equal(ours[name], its[name])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folders of a tiny pipeline, and of a ControlNet for it with random weights, one that we wrote."""
    folder = tmp_path_factory.mktemp("both")
    pipe = tiny_pipeline.make()
    pipe.save_pretrained(folder / "pipe")
    drawn(ControlNetModel.from_unet(pipe.unet, f=pipe.vae.downsampling)).save_pretrained(folder / "ours")
    return folder


def both_draw(folders, controlnet, rng, scale):
    reference = diffusers.StableDiffusionControlNetPipeline.from_pretrained(
        folders / "pipe",
        controlnet=diffusers.ControlNetModel.from_pretrained(controlnet),
        safety_checker=None,
        local_files_only=True,
    )
    reference.set_progress_bar_config(disable=True)
    latents, control = rng.standard_normal((2, 6, 4, 2), np.float32), rng.random((2, 12, 8, 3), np.float32)
    prompts = ["a red circle", "a blue square"]
    mine = pipelines.load(folders / "pipe").text_to_image(
        prompts, "blurry", 6, 5.0, "ddim", latents=latents, controlnet=controlnet, control=control, control_scale=scale
    )
    theirs = reference(
        prompts,
        channels_first(control),
        negative_prompt=["blurry"] * 2,
        num_inference_steps=6,
        guidance_scale=5.0,
        controlnet_conditioning_scale=scale,
        latents=channels_first(latents),
        output_type="np",
    ).images
    assert_same_pictures(mine, theirs)
    return mine


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_pictures(folders, rng):
    """Drawn by both, with a ControlNet's folder of ours, and with one that the reference writes again."""
    whole = both_draw(folders, folders / "ours", np.random.default_rng(3), 1.0)
    half = both_draw(folders, folders / "ours", np.random.default_rng(3), 0.5)
    assert np.abs(whole - half).max() > 0.01
    diffusers.ControlNetModel.from_pretrained(folders / "ours").save_pretrained(folders / "theirs")
    np.testing.assert_array_equal(both_draw(folders, folders / "theirs", np.random.default_rng(3), 1.0), whole)


CONTROLLED = "diffusers.pipelines.controlnet.pipeline_controlnet_{}"


def both_begin(kind, folders, rng, monkeypatch, strength, mask=None):
    """(ours, the reference's): pictures that begin with pictures and follow others, in 6 steps of DDIM."""
    noise, (pictures, control) = rng.standard_normal((2, 8, 4, 4), np.float32), rng.random((2, 2, 16, 8, 3), np.float32)
    module = importlib.import_module(CONTROLLED.format(kind.lower()))
    monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: channels_first(noise))
    reference = getattr(diffusers, f"StableDiffusionControlNet{kind}Pipeline").from_pretrained(
        folders / "pipe",
        controlnet=diffusers.ControlNetModel.from_pretrained(folders / "net"),
        safety_checker=None,
        local_files_only=True,
    )
    reference.set_progress_bar_config(disable=True)
    settings, prompts = {"strength": strength, "guidance_scale": 4.0}, ["a red circle", "a blue square"]
    led = settings | {"controlnet": folders / "net", "control": control, "control_scale": 0.8}
    pipe, given = pipelines.load(folders / "pipe"), {"steps": 6, "sampler": "ddim", "latents": noise}
    if mask is None:
        mine, masked = pipe.image_to_image(pictures, prompts, **given, **led), {}
    else:
        mine = pipe.inpaint(pictures, mask, prompts, **given, **led)
        masked = {"mask_image": channels_first(np.stack([mask, mask])[..., None].astype("f"))}
    theirs = reference(
        prompts,
        image=channels_first(pictures),
        control_image=channels_first(control),
        num_inference_steps=6,
        controlnet_conditioning_scale=0.8,
        height=16,
        width=8,
        output_type="np",
        **masked,
        **settings,
    ).images
    return mine, theirs


@pytest.fixture(scope="module", params=["whole pictures", "masked pictures"])
def wide(request, tmp_path_factory):
    """The folders of a tiny pipeline of four latent channels, of either kind, and of a ControlNet for it."""
    folder, pipe, rng = tmp_path_factory.mktemp("wide"), inpainting_pipeline(), np.random.default_rng(8)
    whole = type(pipe.unet).from_config(pipe.unet.config | {"in_channels": 4})
    drawn(ControlNetModel.from_unet(whole, f=pipe.vae.downsampling)).save_pretrained(folder / "net")
    if request.param == "whole pictures":
        pipe.unet, pipe.record = whole, {}
        for parameter in whole.parameters():
            parameter.data = parameter.data + 0.1 * rng.standard_normal(parameter.data.shape, np.float32)
    pipe.save_pretrained(folder / "pipe")
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_inpainting(wide, rng, monkeypatch, strength):
    mask = np.zeros((16, 8), bool)
    mask[2:8, 2:6] = True  # on the grid of f = 2: the reference looks at one pixel of four
    mine, theirs = both_begin("Inpaint", wide, rng, monkeypatch, strength, mask)
    assert mine[:, mask].std() > 0.05
    np.testing.assert_allclose(mine[:, mask], theirs[:, mask], atol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("wide", ["whole pictures"], indirect=True)
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_image_to_image(wide, rng, monkeypatch, strength):
    mine, theirs = both_begin("Img2Img", wide, rng, monkeypatch, strength)
    assert mine.std() > 0.05
    np.testing.assert_allclose(mine, theirs, atol=1e-4)
