"""LoRAs of a pipeline: files of every layout, several at once, merged and not, and what does not fit."""

import json

import numpy as np
import pytest
import tiny_pipeline
from safetensors.numpy import load_file, save_file

from minild.errors import UserError
from minild.models.lora import named_layers, read_lora

PROMPT = tiny_pipeline.CAPTIONS[0]
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def layers_of(pipe, part="unet", words=ATTENTION):
    return {p: layer for p, layer, _ in named_layers(getattr(pipe, part)) if p.endswith(words)}


def matrices(pipe, rng, part="unet", words=ATTENTION, rank=lambda i: 2):
    """{path: (A, B)} of random updates, in the interchange layout."""
    found = {}
    for i, (path, layer) in enumerate(layers_of(pipe, part, words).items()):
        shape, r = layer.weight.shape, rank(i)
        spatial = shape[:-2] if len(shape) == 4 else ()
        a = rng.standard_normal((r, shape[-2], *spatial), np.float32) * 0.5
        found[path] = a, rng.standard_normal((shape[-1], r, *(1 for _ in spatial)), np.float32) * 0.5
    return found


def peft(found, part="unet"):
    prefix = "text_encoder.text_model" if part == "text_encoder" else part
    return {f"{prefix}.{p}.lora_{s}.weight": m for p, pair in found.items() for s, m in zip("AB", pair)}


def merged_by_hand(pipe, found, part="unet", factor=1.0):
    """The pipeline with W + factor · B A for every weight."""
    state = getattr(pipe, part).state_dict()
    for path, (a, b) in found.items():
        product = np.einsum("or,ri...->oi...", b.reshape(b.shape[:2]), a)
        state[f"{path}.weight"] = state[f"{path}.weight"] + factor * product.reshape(state[f"{path}.weight"].shape)
    getattr(pipe, part).load_state_dict(state)
    return pipe


def draw(pipe):
    return pipe.text_to_image(PROMPT, steps=3, seed=1, sampler="ddim", guidance_scale=2.0)


@pytest.fixture
def pipe():
    return tiny_pipeline.make()


@pytest.fixture
def file(tmp_path):
    def write(state, name="one", metadata=None):
        save_file(state, tmp_path / f"{name}.safetensors", metadata)
        return tmp_path / f"{name}.safetensors"

    return write


def old_unet(found):
    """diffusers before PEFT: the updates of an attention are its processor's."""
    state = {}
    for path, (a, b) in found.items():
        layer = path.removesuffix(".0")
        start, _, name = layer.rpartition(".")
        key = f"unet.{start}.processor.{name}_lora"
        state |= {f"{key}.down.weight": a, f"{key}.up.weight": b}
    return state


def kohya(found, part="unet", alpha=None):
    state = {}
    for path, (a, b) in found.items():
        start = "lora_unet_" if part == "unet" else "lora_te_text_model_"
        name = start + path.replace(".", "_")
        state |= {f"{name}.lora_down.weight": a, f"{name}.lora_up.weight": b}
        state |= {} if alpha is None else {f"{name}.alpha": np.array(alpha, np.float32)}
    return state


def down_and_up(found, start="unet", name="lora"):
    sides = ("down", "up")
    return {f"{start}.{p}.{name}.{s}.weight": m for p, pair in found.items() for s, m in zip(sides, pair)}


LAYOUTS = {
    "peft": (peft, None, 1.0),
    "diffusers": (down_and_up, None, 1.0),
    "processors": (old_unet, None, 1.0),
    "kohya": (kohya, None, 1.0),
    "kohya with alpha": (lambda found: kohya(found, alpha=3), None, 1.5),
    "peft with alpha": (peft, {"unet.r": 2, "unet.lora_alpha": 5}, 2.5),
    "peft, rank-stabilised": (peft, {"unet.lora_alpha": 3, "unet.use_rslora": True}, 3 / 2**0.5),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_product_added_to_the_weights(pipe, file, rng, layout):
    write, stated, factor = LAYOUTS[layout]
    found = matrices(pipe, rng)
    metadata = {"lora_adapter_metadata": json.dumps(stated)} if stated else None
    before = draw(pipe)
    pipe.load_lora(file(write(found), metadata=metadata))
    expected = draw(merged_by_hand(tiny_pipeline.make(), found, factor=factor))
    np.testing.assert_allclose(draw(pipe), expected, atol=2e-5)
    assert np.abs(expected - before).max() > 0.01


@pytest.mark.parametrize("layout", ["peft", "linear layers", "kohya"])
def test_the_text_encoders_too(pipe, file, rng, layout):
    found = matrices(pipe, rng, "text_encoder", ("_proj", "fc1", "fc2"))
    old = down_and_up(found, "text_encoder.text_model", "lora_linear_layer")
    state = {"peft": peft(found, "text_encoder"), "linear layers": old, "kohya": kohya(found, "text_encoder")}[layout]
    before = draw(pipe)
    pipe.load_lora(file(state))
    expected = draw(merged_by_hand(tiny_pipeline.make(), found, "text_encoder"))
    np.testing.assert_allclose(draw(pipe), expected, atol=2e-5)
    assert np.abs(expected - before).max() > 1e-3


def test_any_layer_at_a_rank_of_its_own(pipe, file, rng):
    """Convolutions of 3 x 3 at stride 1 and 2 and of 1 x 1, layers of the timestep, ranks 1 to 3."""
    found = matrices(pipe, rng, words=("",), rank=lambda i: 1 + i % 3)
    found = {path: (a, 0.2 * b) for path, (a, b) in found.items()}
    assert any("downsamplers" in path for path in found) and any("linear_1" in path for path in found)
    pipe.load_lora(file(peft(found)))
    np.testing.assert_allclose(draw(pipe), draw(merged_by_hand(tiny_pipeline.make(), found)), atol=5e-5)


def test_several_add_up_each_by_its_scale(pipe, file, rng):
    first, second, before = matrices(pipe, rng), matrices(pipe, rng), draw(pipe)
    weights = {p: parameter.data.copy() for p, parameter in pipe.unet.named_parameters()}
    assert pipe.load_lora(file(peft(first), "first"), 0.6) == "first"
    assert pipe.load_lora(file(peft(second), "second"), -0.4, "other") == "other"
    assert pipe.loras.scales == {"first": 0.6, "other": -0.4}
    by_hand = merged_by_hand(merged_by_hand(tiny_pipeline.make(), first, factor=0.6), second, factor=-0.4)
    beside, expected = draw(pipe), draw(by_hand)
    np.testing.assert_allclose(beside, expected, atol=2e-5)
    pipe.loras.merge()
    np.testing.assert_allclose(draw(pipe), expected, atol=2e-5)
    pipe.loras.set_scale("other", 0.0)  # while merged
    only = merged_by_hand(tiny_pipeline.make(), first, factor=0.6)
    np.testing.assert_allclose(draw(pipe), draw(only), atol=2e-5)
    pipe.loras.set_scale("other", -0.4)
    pipe.loras.unmerge()
    np.testing.assert_array_equal(draw(pipe), beside)
    pipe.loras.merge()
    pipe.loras.remove("first")
    pipe.loras.remove("other")
    np.testing.assert_array_equal(draw(pipe), before)
    for path, parameter in pipe.unet.named_parameters():
        np.testing.assert_array_equal(parameter.data, weights[path])
    with pytest.raises(UserError, match="no LoRA 'first' is loaded, only none at all"):
        pipe.loras.remove("first")


def test_what_is_saved_are_the_weights(pipe, file, rng, tmp_path):
    found, state = matrices(pipe, rng), pipe.unet.state_dict()
    pipe.load_lora(file(peft(found)))
    pipe.save_pretrained(tmp_path / "beside")
    unet = "unet/diffusion_pytorch_model.safetensors"
    assert load_file(tmp_path / "beside" / unet).keys() == state.keys()
    path = next(iter(found))
    np.testing.assert_array_equal(load_file(tmp_path / "beside" / unet)[f"{path}.weight"], state[f"{path}.weight"])
    pipe.loras.merge()
    pipe.save_pretrained(tmp_path / "merged")
    expected = merged_by_hand(tiny_pipeline.make(), found).unet.state_dict()[f"{path}.weight"]
    np.testing.assert_allclose(load_file(tmp_path / "merged" / unet)[f"{path}.weight"], expected, atol=1e-6)


def without(state, end):
    return {key: array for key, array in state.items() if not key.endswith(end)}


FIRST = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
FAULTS = {
    "another model's width": (
        lambda s: {k: np.zeros((a.shape[0] * 2, a.shape[1]), "f") if "_B" in k else a for k, a in s.items()},
        r"is of another model: unet: .*to_q has shape \(16, 2\), expected \(8, 2\)",
    ),
    "a layer that is not there": (
        lambda s: {k.replace("attentions.0", "attentions.7"): a for k, a in s.items()},
        "does not fit the model: its unet has no down_blocks.0.attentions.7",
    ),
    "one matrix": (lambda s: without(s, f"{FIRST}.lora_B.weight"), f"{FIRST} has one matrix of two, down"),
    "ranks that differ": (
        lambda s: s | {f"unet.{FIRST}.lora_A.weight": np.zeros((3, 8), "f")},
        r"matrices \(3, 8\) and \(8, 2\), which share no rank",
    ),
    "LoKr": (lambda s: s | {f"unet.{FIRST}.lokr_w1": np.zeros((2, 2), "f")}, "lokr_w1 is no part of a LoRA"),
    "DoRA": (lambda s: s | {f"unet.{FIRST}.lora_magnitude_vector": np.zeros(8, "f")}, "is no part of a LoRA"),
    "a whole model": (lambda s: {"conv_in.weight": np.zeros((2, 2), "f")}, "conv_in.weight is no part of a LoRA"),
    "of another part": (lambda s: {"text_encoder_2.a.lora_A.weight": np.zeros((2, 2), "f")}, "is no part of a LoRA"),
    "not a number": (
        lambda s: s | {f"unet.{FIRST}.lora_A.weight": np.full((2, 8), np.nan, "f")}, "holds values that are no numbers"
    ),
    "nothing": (lambda s: {}, "holds no LoRA"),
    "the same twice": (
        lambda s: s | {k.replace(".0.lora", ".lora"): a for k, a in s.items() if "to_out" in k}, "to_out.0 twice"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_refused_and_nothing_changes(pipe, file, rng, fault):
    damage, message = FAULTS[fault]
    before = draw(pipe)
    with pytest.raises(UserError, match=message) as error:
        pipe.load_lora(file(damage(peft(matrices(pipe, rng)))))
    assert "\n" not in str(error.value) and not pipe.loras.scales
    np.testing.assert_array_equal(draw(pipe), before)


def test_files_and_scales_that_cannot_be(pipe, file, rng, tmp_path):
    found = file(peft(matrices(pipe, rng)))
    with pytest.raises(UserError, match="no such file"):
        pipe.load_lora(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("this is no safetensors file")
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        pipe.load_lora(tmp_path / "text.safetensors")
    with pytest.raises(UserError, match="is a pickle"):
        pipe.load_lora(tmp_path / "lora.bin")
    with pytest.raises(UserError, match="must be a finite number, got nan"):
        pipe.load_lora(found, float("nan"))
    broken = file(peft(matrices(pipe, rng)), "broken", {"lora_adapter_metadata": "{"})
    with pytest.raises(UserError, match="lora_adapter_metadata is no JSON"):
        read_lora(broken)
    worded = file(peft(matrices(pipe, rng)), "worded", {"lora_adapter_metadata": '{"unet.lora_alpha": "four"}'})
    with pytest.raises(UserError, match="has the alpha 'four', which is no number"):
        read_lora(worded)
    pipe.load_lora(found)
    with pytest.raises(UserError, match="a LoRA 'one' is loaded already"):
        pipe.load_lora(found)
