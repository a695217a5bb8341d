"""Attention's probabilities, seen and replaced, beside those of the reference's layers of the same names."""

import numpy as np
import pytest
from models.tiny import UNET, unet_inputs

from minild.nn.watching import watch_layers
from parity.reference import channels_first, channels_last, pair, torch


class SeenProcessor:
    """A processor of the reference's Attention, written out: told(name, probabilities) -> those to go on with."""

    def __init__(self, name, told):
        self.name, self.told = name, told

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source)
        q, k, v = (attn.head_to_batch_dim(x) for x in (q, k, v))
        probabilities = self.told(self.name, attn.get_attention_scores(q, k, attention_mask))
        return attn.to_out[0](attn.batch_to_head_dim(probabilities @ v))


@pytest.mark.parametrize("replaced", [False, True], ids=["seen", "replaced"])
def test_probabilities(tmp_path, rng, replaced):
    ours, theirs = pair("UNet2DConditionModel", UNET, "reference", tmp_path, rng)
    inputs = unet_inputs(rng, UNET["in_channels"])
    x, t, context = (inputs[name].astype(np.float32) for name in ("x", "t", "context"))
    mine, reference = {}, {}

    def see(place, weights):
        mine[place.layer] = weights
        return np.flip(weights, -1) * (2 if place.cross else 1) if replaced else None

    def told(name, probabilities):
        reference[name] = probabilities.numpy()
        if not replaced:
            return probabilities
        return torch.flip(probabilities, [-1]) * (2 if name.endswith("attn2") else 1)

    with watch_layers(ours, see):
        y = ours(x, t, context)
    names = [name.removesuffix(".processor") for name in theirs.attn_processors]
    theirs.set_attn_processor({f"{name}.processor": SeenProcessor(name, told) for name in names})
    with torch.no_grad():
        expected = theirs(channels_first(x), torch.tensor(t), torch.tensor(context)).sample
    assert sorted(mine) == sorted(reference) == sorted(names)
    for name, weights in mine.items():
        np.testing.assert_allclose(weights.reshape(reference[name].shape), reference[name], atol=1e-5)
    np.testing.assert_allclose(y, channels_last(expected), atol=1e-5 * abs(y).max())
