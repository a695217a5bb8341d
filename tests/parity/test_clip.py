"""CLIPModel against transformers' of the same random weights: embeddings, logits, loss and every gradient.

1e-5 in float32, 1e-10 in float64, of the largest value; each side opens the folder that the other writes.
"""

import numpy as np
import pytest
from models.tiny import CLIP

from minild.engine import using
from minild.models import CLIPModel
from minild.ops.contrastive import contrastive, contrastive_backward
from parity.reference import channels_first, channels_last, drawn, torch, transformers

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
GELU = {
    "text_config": CLIP["text_config"] | {"hidden_act": "gelu", "eos_token_id": 2},  # as early configs have it
    "vision_config": CLIP["vision_config"] | {"hidden_act": "gelu", "patch_size": 2, "num_hidden_layers": 1},
    "projection_dim": 4,
}


def pair(config, writer, folder, rng):
    """(ours, theirs) of a config with the same weights: one writes a folder, the other opens it."""
    if writer == "minild":
        ours = CLIPModel.from_config(config)
        for parameter, array in zip(ours.parameters(), drawn([p.data for p in ours.parameters()], rng)):
            parameter.data = np.asarray(array)
        ours.save_pretrained(folder)
        return ours, transformers.CLIPModel.from_pretrained(folder).eval()
    theirs = transformers.CLIPModel(transformers.CLIPConfig(**config)).eval()
    with torch.no_grad():
        parameters = list(theirs.parameters())
        for parameter, array in zip(parameters, drawn([p.numpy() for p in parameters], rng)):
            parameter.copy_(torch.from_numpy(np.asarray(array)))
    theirs.save_pretrained(folder)
    ours = CLIPModel.from_pretrained(folder)
    assert not ours.passed_over
    return ours, theirs


def near(ours, theirs, dtype, name, scale=None):
    theirs = theirs if isinstance(theirs, np.ndarray) else theirs.detach().numpy()
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape and ours.dtype == dtype, name
    error = np.abs(ours - theirs).max() / (scale or np.abs(theirs).max())
    assert error <= TOLERANCE[dtype], f"{name}: off by {error:.2g}"


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("writer", ["minild", "transformers"])
@pytest.mark.parametrize("config", [CLIP, GELU], ids=["quick_gelu", "gelu"])
def test_clip(rng, tmp_path, config, writer, dtype):
    torch.manual_seed(0)
    ours, theirs = pair(config, writer, tmp_path, rng)
    ours.astype(dtype)
    theirs.to(getattr(torch, dtype))
    x = rng.standard_normal((3, 8, 8, 3)).astype(dtype)
    ids = rng.integers(0, 8, (3, 5))
    ids[0, 2:], ids[1, 4:], ids[2, 1:] = 9, 9, 9
    with using("textbook"):
        (images, texts), cache = ours.forward(x, ids)
        loss, loss_cache = contrastive(images, texts, ours.logit_scale.value)
        dimages, dtexts, dscale = contrastive_backward(1.0, loss_cache)
        dx = ours.backward((dimages, dtexts), cache)
    ours.logit_scale.accumulate(np.asarray(dscale))

    their_x = channels_first(x).requires_grad_()
    y = theirs(input_ids=torch.tensor(ids), pixel_values=their_x, return_loss=True)
    y.loss.backward()
    near(loss, y.loss, dtype, "loss")
    near(loss_cache.logits, y.logits_per_image, dtype, "logits")
    near(loss_cache.unit_images, y.image_embeds, dtype, "image embeddings")
    near(loss_cache.unit_texts, y.text_embeds, dtype, "text embeddings")
    near(dx, channels_last(their_x.grad), dtype, "dx")
    gradients = ours.gradient_dict()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert gradients.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        blind = name.endswith("k_proj.bias")  # adds the same to every score: only rounding is left of its gradient
        near(gradients[name], gradient, dtype, name, largest if blind else None)


def test_a_trained_folder_is_opened_whole(tmp_path, monkeypatch):
    """Tokenizer, image processor and model of a folder that `minild train clip` wrote give the same embeddings."""
    from minild.data.shapes import Shapes
    from minild.evaluation import load_clip
    from minild.training import clip

    monkeypatch.setattr(clip, "PICTURES", 64)
    clip.train_clip("shapes", tmp_path, steps=1)
    test = Shapes("test")
    pictures, captions = np.stack([test[i][0] for i in range(3)]), [test.caption(i) for i in range(3)]
    ours = load_clip(tmp_path)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    processor = transformers.CLIPImageProcessor.from_pretrained(tmp_path)
    model = transformers.CLIPModel.from_pretrained(tmp_path).float().eval()
    texts = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    images = processor([torch.from_numpy(p).permute(2, 0, 1) for p in pictures], return_tensors="pt")
    with torch.no_grad():
        y = model(input_ids=texts.input_ids, pixel_values=images.pixel_values)
    np.testing.assert_allclose(ours.embed_captions(captions), y.text_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(ours.embed_pictures(pictures), y.image_embeds.numpy(), atol=1e-5)
