"""`minild train clip`: an image encoder and a text encoder learn which picture and which caption belong together.

(Radford et al. 2021, arXiv 2103.00020.) In small: the published CLIP learnt from 400 million pairs of the internet,
this one in minutes from a data set of minild's or a folder of yours, and it knows no other pictures.
"""

from typing import Any, NamedTuple

import numpy as np

from minild import data, pretrained
from minild.backend import get_device, to_device
from minild.data.pictures import gather, tell_skipped, to_signed
from minild.durable import files_together
from minild.engine import run
from minild.engine.memory import keep_freed_memory
from minild.errors import UserError
from minild.evaluation.clip import PREPROCESSOR, load_clip, retrieve
from minild.models import CLIPModel
from minild.ops.contrastive import contrastive
from minild.training.alone import new_folder, require_unused, train_alone
from minild.training.leads import fit_tokenizer
from minild.training.presets import StagePreset, preset_for

PRESET = StagePreset(learning_rate=1e-3, batch_size=64, weight_decay=0.05)
MINUTES = 10
PICTURES = 12_288  # at most, of a data set that can draw any number
PATCH, WIDTH, LAYERS, HEADS, EMBEDDING = 4, 128, 3, 4, 128  # of the image encoder, and of the space they share
SHIFT = 2  # pixels: how far a picture is moved at most, so that no place is learnt by heart
CHOICES = 32  # captions a picture is told from at the end


class ContrastiveCache(NamedTuple):
    model: Any
    embeddings: Any
    loss: Any


class ContrastiveObjective:
    """The contrastive loss of a batch in which no two pictures share a caption.

    pictures (N, H, W, 3) uint8; captions, N tuples of true captions; token_ids (N, K, L), K of them for each picture.
    A loss couples its batch: every caption is wrong for every other picture. So a batch is not split over replicas, as
    in the other trainings, but computed as one, by ops that use all cores.
    """

    def __init__(self, pictures, captions, token_ids):
        self.pictures, self.captions, self.token_ids = pictures, captions, token_ids

    def batch(self, rng, size, progress):
        """Random pictures, each moved a little, and a true caption of each, on the host; fewer if captions run out."""
        rows, taken = [], set()
        for row in rng.permutation(len(self.pictures)):
            if taken.isdisjoint(self.captions[row]):
                taken.update(self.captions[row])
                rows.append(row)
            if len(rows) == size:
                break
        chosen = rng.integers(self.token_ids.shape[1], size=len(rows))
        return to_signed(moved(self.pictures[rows], rng)), self.token_ids[rows, chosen]

    def forward(self, model, batch):
        """-> {"loss": loss} on the device, cache."""
        x, token_ids = (to_device(array, model.device) for array in batch)
        (images, texts), embeddings = model.forward(x, token_ids)
        loss, loss_cache = run(contrastive, images, texts, model.logit_scale.value)
        return {"loss": loss}, ContrastiveCache(model, embeddings, loss_cache)

    def backward(self, dloss, cache):
        """Adds dloss times the gradient of the loss into the model's gradients."""
        dimages, dtexts, dscale = cache.loss.backward(dloss)
        cache.model.logit_scale.accumulate(dscale)
        cache.model.backward((dimages, dtexts), cache.embeddings)

    def after_step(self, model, losses, rng, progress):
        """Keep the temperature in its limit -> the losses."""
        model.limit_scale()
        return losses


def moved(pictures, rng):
    """Pictures (N, H, W, C), each moved by up to SHIFT pixels; what comes in is like the edge."""
    N, H, W, _ = pictures.shape
    down, right = rng.integers(-SHIFT, SHIFT + 1, (2, N, 1))
    rows, columns = ((np.arange(size) + by).clip(0, size - 1) for size, by in ((H, down), (W, right)))
    return pictures[np.arange(N)[:, None, None], rows[:, :, None], columns[:, None, :]]


def clip_config(size, tokenizer, preset):
    """config.json of the CLIPModel for such pictures and the tokens of `tokenizer`; the text encoder is a preset's.

    initializer_factor as in Preset.text_config: with CLIP's own, places are slow to count, in pictures as in texts.
    """
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "image_size": size,
        "patch_size": PATCH,
        "initializer_factor": 15.0,
    }
    return {
        "text_config": preset.text_config(tokenizer),
        "vision_config": vision,
        "projection_dim": EMBEDDING,
    }


def train_clip(dataset, output, minutes=None, steps=None, seed=0, device="cpu", size=32):
    """Train a CLIP on the pictures and captions of a data set and write it, with its tokenizer, to the folder `output`.

    minutes or steps say for how long; with neither, 10 minutes. transformers' CLIPModel, CLIPTokenizer and
    CLIPImageProcessor open the folder. Its minild.json says how it was trained and how many of the test pictures find
    their caption among 32. UserError for a folder that holds a model already, or cannot be written, for pictures that
    no whole number of patches makes up, and for a data set with a single caption.
    """
    require_unused(output)
    if size % PATCH:
        raise UserError(f"pictures of {size} pixels are no whole number of patches of {PATCH}: use a multiple")
    get_device(device)
    keep_freed_memory()
    train_set = data.load(dataset, "train", size)
    tell_skipped(train_set)
    pictures, captions = gather(train_set, PICTURES)
    if len({text for several in captions for text in several}) < 2:
        raise UserError(f"{dataset} has a single caption: there is nothing to tell it from")
    tokenizer = fit_tokenizer([text for several in captions for text in several])
    most = max(len(several) for several in captions)
    texts = [text for several in captions for text in (several * most)[:most]]
    objective = ContrastiveObjective(pictures, captions, tokenizer.encode(texts).reshape(len(captions), most, -1))
    model = CLIPModel.from_config(clip_config(size, tokenizer, preset_for(str(dataset))), seed).to(device)
    minutes = MINUTES if minutes is None and steps is None else minutes
    with new_folder(output) as folder:
        budget, _ = train_alone("clip", model, objective, folder, PRESET, minutes, steps, seed, split=False)
        record = {"dataset": str(dataset), "size": size, "seed": seed, "pictures": len(pictures)}
        record |= {"steps": budget.taken, "seconds": round(budget.elapsed, 1)}
        with files_together(folder, last="config.json") as aside:
            model.save_pretrained(aside, "float16")
            tokenizer.save_pretrained(aside)
            preprocessor = PREPROCESSOR | {"size": {"height": size, "width": size}}
            pretrained.write_json(aside / "preprocessor_config.json", preprocessor)
            record |= retrieval_figures(load_clip(aside, device), data.load(dataset, "test", size))
            pretrained.write_json(aside / "minild.json", record)


def retrieval_figures(clip, test_set):
    """How many test pictures are nearest to a caption of their own, among those of CHOICES pictures at a time.

    Of a group no two pictures share a caption, as in training -> {"retrieved": share, "tested": pictures, "among"}.
    """
    pictures, captions = gather(test_set)
    groups = distinct_groups(captions, CHOICES)
    right = [
        retrieve(pictures[rows], [captions[row][0] for row in rows], clip) == np.arange(len(rows)) for rows in groups
    ]
    right = np.concatenate(right)
    return {"retrieved": float(np.mean(right)), "tested": len(right), "among": min(CHOICES, len(groups[0]))}


def distinct_groups(captions, size):
    """Rows in groups of `size` without a common caption, in order; what is left over makes no group but the first."""
    groups, group, taken = [], [], set()
    for row, several in enumerate(captions):
        if taken.isdisjoint(several):
            taken.update(several)
            group.append(row)
        if len(group) == size:
            groups.append(group)
            group, taken = [], set()
    return groups or [group]
