"""ControlNetModel and the residuals of a U-Net: gradients, where it begins, and what is refused."""

import numpy as np
import pytest
from device_double import count_synchronisations
from training.small import drawn

from minild.backend import to_device, to_host
from minild.errors import UserError
from minild.gradcheck import check, check_module
from minild.models import Condition, Conditioned, ControlNetModel, UNet2DConditionModel
from minild.models.controlnet import ControlNetConditioningEmbedding
from minild.nn.module import Module
from models.tiny import CONTROLNET, LABELLED, PROJECTED, THREE_LEVELS, UNET, controlnet_inputs, unet_inputs


class InPart(Module):
    """A ControlNet for the checker, which looks at what the U-Net does not have, and at each `every`th parameter."""

    def __init__(self, model, every):
        self.held, self.every = (drawn(model, "float64"),), every
        self.forward, self.backward = model.forward, model.backward

    def named_parameters(self, prefix=""):
        for i, (name, parameter) in enumerate(self.held[0].named_parameters(prefix)):
            if name.startswith("controlnet") or i % self.every == 0:
                yield name, parameter


@pytest.mark.parametrize(("size", "every"), [((4, 6), 3), ((5, 3), 20)])
def test_gradients(rng, size, every):
    check_module(InPart(ControlNetModel.from_config(CONTROLNET), every), controlnet_inputs(rng, size), samples=1)


def test_gradients_of_class_labels(rng):
    config = CONTROLNET | {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 5}
    inputs = controlnet_inputs(rng) | {"class_labels": rng.standard_normal((2, 5))}
    model = drawn(ControlNetModel.from_config(config), "float64")
    check(model.forward, model.backward, inputs, samples=2)


@pytest.mark.parametrize("size", [(8, 4), (3, 5)])
def test_gradients_of_the_embedding(rng, size):
    check_module(ControlNetConditioningEmbedding(2, (3, 4, 5), 6), {"x": rng.standard_normal((2, *size, 2))}, samples=9)


class WithResiduals(Module):
    """A U-Net with its residuals as inputs of their own, for the checker."""

    def __init__(self, unet):
        self.unet = unet

    def forward(self, x, t, context, **residuals):
        return self.unet.forward(x, t, context, residuals=tuple(residuals.values()))

    def backward(self, dy, cache):
        *gradients, dresiduals = self.unet.backward(dy, cache)
        return *gradients, *dresiduals


def residuals_of(unet, rng, size=(4, 6)):
    """Random residuals of a U-Net for two latents of that size."""
    features = ControlNetModel.from_unet(unet, f=1)
    x, t, context = (x.astype("f") for x in unet_inputs(rng, unet.config["in_channels"], size).values())
    made = features(x, t, context, np.zeros((2, *size, 3), np.float32))
    return {f"residual_{i}": rng.standard_normal(residual.shape) for i, residual in enumerate(made)}


def check_residuals(unet, inputs):
    model = WithResiduals(drawn(unet, "float64"))
    check(model.forward, model.backward, inputs, samples=2)


def test_gradients_of_residuals(rng):
    unet = UNet2DConditionModel.from_config(UNET)
    check_residuals(unet, unet_inputs(rng, 3) | residuals_of(unet, rng))


def test_the_residual_of_a_middle_that_is_not_there(rng):
    """It is added to what the last down block gave, as the reference does."""
    unet = UNet2DConditionModel.from_config(THREE_LEVELS | {"layers_per_block": 1})
    shapes = [(4, 6, 8)] * 2 + [(2, 3, 8)] * 2 + [(1, 2, 8), (1, 2, 16), (1, 2, 16)]
    residuals = {f"residual_{i}": rng.standard_normal((2, *shape)) for i, shape in enumerate(shapes)}
    check_residuals(unet, unet_inputs(rng, 3) | residuals)


class Controlled(Module):
    """Conditioned with a ControlNet, its condition as plain inputs for the checker; it looks at some parameters."""

    def __init__(self, unet, controlnet):
        self.led = Conditioned(unet, controlnet, scale=0.7)

    def forward(self, x, t, context, control, channels=None):
        return self.led.forward(x, t, Condition(context, None, channels, control))

    def backward(self, dy, cache):
        return self.led.backward(dy, cache)

    def named_parameters(self, prefix=""):
        for name, parameter in super().named_parameters(prefix):
            if "controlnet_" in name or "conv_in" in name:
                yield name, parameter


@pytest.mark.parametrize("beside", [0, 2])
def test_gradients_of_both_together(rng, beside):
    """With channels beside the latents, too, at which a ControlNet does not look."""
    unet = UNet2DConditionModel.from_config(UNET | {"in_channels": 3 + beside})
    model = Controlled(drawn(unet, "float64"), drawn(ControlNetModel.from_config(CONTROLNET), "float64"))
    inputs = controlnet_inputs(rng) | ({"channels": rng.standard_normal((2, 4, 6, beside))} if beside else {})
    check_module(model, inputs, differentiable=["x", "t", "context"], samples=1)


def test_it_begins_as_the_unet_itself(rng):
    """A copy of the way down, and residuals of zero."""
    unet = drawn(UNet2DConditionModel.from_config(UNET))
    controlnet = ControlNetModel.from_unet(unet, f=2)
    assert controlnet.config["conditioning_embedding_out_channels"] == [16, 32] and controlnet.f == 2
    ours, its = controlnet.state_dict(), unet.state_dict()
    shared = ours.keys() & its.keys()
    assert {key.partition(".")[0] for key in shared} == {"conv_in", "time_embedding", "down_blocks", "mid_block"}
    assert all(key.startswith("controlnet_") for key in ours.keys() - shared)
    for key in shared:
        np.testing.assert_array_equal(ours[key], its[key])
    x, t, context, control = (x.astype("f") for x in controlnet_inputs(rng, f=2).values())
    residuals = controlnet(x, t, context, control)
    assert all(not residual.any() for residual in residuals)
    np.testing.assert_array_equal(unet(x, t, context, residuals=residuals), unet(x, t, context))
    own = next(iter(controlnet.parameters()))
    own.data[...] = 0  # a copy: the U-Net keeps its own
    assert its["conv_in.weight"].any() and unet.state_dict()["conv_in.weight"].any()


def test_the_picture_and_the_scale_matter(rng):
    unet, controlnet = drawn(UNet2DConditionModel.from_config(UNET)), drawn(ControlNetModel.from_config(CONTROLNET))
    x, t, context, control = (x.astype("f") for x in controlnet_inputs(rng).values())

    def led(control, scale):
        return Conditioned(unet, controlnet, scale)(x, t, Condition(context, control=control))

    alone = unet(x, t, context)
    np.testing.assert_array_equal(led(control, 0.0), alone)
    assert np.abs(led(control, 1.0) - alone).max() > 0.1
    assert np.abs(led(control, 1.0) - led(control, 0.5)).max() > 0.1
    assert np.abs(led(control, 1.0) - led(control[::-1], 1.0)).max() > 1e-3


def test_forward_and_backward_are_numpys(device, rng):
    inputs = [x.astype("f") for x in controlnet_inputs(rng).values()]

    def passes(device):
        unet, controlnet = drawn(UNet2DConditionModel.from_config(UNET)), drawn(ControlNetModel.from_config(CONTROLNET))
        model = Conditioned(unet.to(device), controlnet.to(device), 0.7)
        x, t, context, control = (to_device(x, device) for x in inputs)
        with count_synchronisations() as waits:
            y, cache = model.forward(x, t, Condition(context, control=control))
            gradients = model.backward(0.3 - y, cache)
        assert waits.reasons == []
        return [to_host(array) for array in (y, *gradients, *(p.grad for p in model.parameters()))]

    for theirs, ours in zip(passes("cpu"), passes(device), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(1, np.abs(theirs).max()))


@pytest.mark.parametrize(("change", "message"), [
    (lambda given: given | {"control": given["control"][:, :-1]}, r"^control: expected shape \(2, 16, 24, 3\)"),
    (lambda given: given | {"control": given["control"][..., :1]}, "^control: expected shape"),
    (lambda given: given | {"control": given["control"][0]}, "^control: expected"),
    (lambda given: given | {"control": given["control"].astype("f8")}, "^control: expected dtype float32"),
    (lambda given: given | {"context": given["context"][..., 1:]}, "^context: expected shape"),
])  # fmt: skip
def test_a_wrong_argument_is_named(rng, change, message):
    given = {name: x.astype("f") for name, x in controlnet_inputs(rng).items()}
    with pytest.raises(ValueError, match=message):
        ControlNetModel.from_config(CONTROLNET)(**change(given))


def test_residuals_of_another_unet_are_named(rng):
    unet = UNet2DConditionModel.from_config(UNET)
    residuals = tuple(residual.astype("f") for residual in residuals_of(unet, rng).values())
    x, t, context = (x.astype("f") for x in unet_inputs(rng, 3).values())
    with pytest.raises(ValueError, match=r"^residuals: expected 5 arrays, got 4"):
        unet(x, t, context, residuals=residuals[:-1])
    with pytest.raises(ValueError, match=r"^residuals\[1\]: expected shape"):
        unet(x, t, context, residuals=(residuals[0], residuals[-1], *residuals[2:]))


@pytest.mark.parametrize(("fields", "message"), [
    ({"global_pool_conditions": True}, "global_pool_conditions = True is not supported, use False"),
    ({"controlnet_conditioning_channel_order": "bgr"}, "channel_order = 'bgr' is not supported, use 'rgb'"),
    ({"layers_per_block": [1, 1]}, "layers_per_block = .* use one number"),
    ({"conditioning_channels": 0}, "conditioning_channels = 0 is not supported, use a whole number from 1"),
    ({"conditioning_embedding_out_channels": []}, "conditioning_embedding_out_channels = .* use a list of widths"),
    ({"mid_block_type": None}, "mid_block_type = None is not supported, use 'UNetMidBlock2DCrossAttn'"),
    ({"class_embed_type": "simple_projection"}, "class_embed_type = 'simple_projection' is not supported"),
    ({"encoder_hid_dim": 3}, "encoder_hid_dim = 3 is not supported"),
])  # fmt: skip
def test_what_is_not_supported_is_named(fields, message):
    with pytest.raises(UserError, match=f"^ControlNetModel: .*{message}"):
        ControlNetModel.from_config(CONTROLNET | fields)


@pytest.mark.parametrize(("config", "f", "message"), [
    (UNET, 3, r"1, 2, 4, 8, \.\.\. times as large as latents, not 3"),
    (UNET | {"time_embedding_dim": 12}, 2, "whose time_embedding_dim is that"),
    (PROJECTED["text_proj"][0], 2, "takes its context and its classes as they are"),
    (LABELLED["table, concatenated"][0], 2, "takes its context and its classes as they are"),
])  # fmt: skip
def test_a_unet_that_none_goes_with(config, f, message):
    with pytest.raises(UserError, match=message):
        ControlNetModel.from_unet(UNet2DConditionModel.from_config(config), f)
