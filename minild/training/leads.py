"""What leads a pipeline that is trained: captions, classes or pictures of a data set, and all that goes with them."""

from pathlib import Path

import numpy as np

from minild.data.classes import class_names
from minild.data.pictures import spread
from minild.errors import UserError
from minild.evaluation import load_clip
from minild.models import CLIPTextModel
from minild.pipelines import load
from minild.pipelines.conditions import FIELDS, given, nothing_like, unet_fields
from minild.pipelines.folder import INDEX
from minild.pipelines.inputs import draw_from, inputs, require_maps
from minild.pipelines.low_resolution import usual_augmentation
from minild.tokenizer import CLIPTokenizer
from minild.training.conditioning import Augmented, Choices, Conditioning, Frozen

VOCABULARY = 4096  # tokens at most

MASKED_PICTURES = 8192  # of a training on masked pictures, at least: a small set is masked several times
LARGEST_SHARE = 0.5  # of the pictures that may have a class of their own


def classes_of(kinds, dataset, rows):
    """The names of the classes of a data set, or of what its semantic maps show; [] for kinds without.

    UserError for a data set without semantic maps, or where nearly every picture would be a class of its own.
    """
    if "semantic map" in kinds:
        require_maps(dataset)
        return list(dataset.semantic_classes)
    if "class" not in kinds:
        return []
    names = sorted(set(class_names(dataset, rows)))
    if len(names) > LARGEST_SHARE * len(rows) or len(names) < 2:
        what = f"{len(names)} classes for {len(rows)} pictures"
        raise UserError(f"{dataset.name} has {what}: put the pictures of a class into one folder, named after it")
    return names


def fit_tokenizer(captions):
    """A tokenizer for these captions, its context no longer than they need (in eights, CLIP's 77 at most)."""
    tokenizer = CLIPTokenizer.train(captions, VOCABULARY)
    longest = max(len(tokenizer.tokens(text)) for text in set(captions)) + 2  # with BOS and EOS
    tokenizer.max_length = min(tokenizer.max_length, -(-longest // 8) * 8)
    return tokenizer


def frozen_text(folder, device):
    """The tokenizer and the text encoder of a pipeline, or of a CLIP. UserError where words do not lead it."""
    if not (Path(folder) / INDEX).is_file():
        clip = load_clip(folder)
        return clip.tokenizer, clip.model.text_model.to(device)
    pipeline = load(folder, device=device)
    if pipeline.text_encoder is None:
        raise UserError(f"{folder} has no text encoder: name a pipeline that words lead")
    return pipeline.tokenizer, pipeline.text_encoder


class Lead:
    """All that leads one training, and how.

    kinds     keys of pipelines.conditions.FIELDS
    dataset, rows, captions   of the pictures that are trained on: their numbers, and the true captions of each
    preset    a presets.Preset
    """

    def __init__(self, kinds, dataset, rows, captions, preset, device="cpu"):
        self.kinds, self.dataset, self.rows, self.captions, self.preset = kinds, dataset, rows, captions, preset
        self.classes = classes_of(kinds, dataset, rows)
        self.augmentation = usual_augmentation() if "low resolution" in kinds else None
        self.tokenizer = self.frozen = None
        if "text" in kinds and preset.text_encoder:
            self.tokenizer, self.frozen = frozen_text(preset.text_encoder, device)
        elif "text" in kinds:
            self.tokenizer = fit_tokenizer([text for several in captions for text in several])

    def record(self):
        """What minild.json says of the condition; words alone go without saying."""
        classes = {"classes": self.classes} if self.classes else {}
        return {} if self.kinds == ("text",) else {"condition": "+".join(self.kinds), **classes}

    def text_encoder(self, seed):
        """The text encoder that learns with the U-Net, or the frozen one; None where words do not lead."""
        if self.frozen or not self.tokenizer:
            return self.frozen
        return CLIPTextModel.from_config(self.preset.text_config(self.tokenizer), seed)

    def trained(self, text_encoder):
        """The text encoder as the Denoiser takes it."""
        return Frozen(text_encoder) if self.frozen else text_encoder

    def unet_fields(self, latent_channels):
        """The fields of the U-Net's config that the condition decides."""
        fields = unet_fields(self.kinds, latent_channels, len(self.classes))
        return fields | ({"cross_attention_dim": self.frozen.config["hidden_size"]} if self.frozen else {})

    def conditioning(self, pipe, pictures, seed=0, dropout=0.1):
        """The Conditioning of the training's pictures. With words, these alone are left out now and then."""
        parts = [self._captions()] if self.tokenizer else []
        kind = self.kinds[-1]
        if kind != "text":
            rng = np.random.default_rng((seed, 2))
            times = -(-MASKED_PICTURES // len(pictures)) if kind == "masked" else 1
            several = [given(pipe, **inputs(pipe, self.dataset, self.rows, pictures, rng))[0] for _ in range(times)]
            field = FIELDS[kind]
            values = np.stack([getattr(condition, field) for condition in several], axis=1)
            nothing = getattr(nothing_like(pipe, several[0].of(slice(0, 1))), field)[0]
            parts.append(Choices(field, values, None if parts else nothing))
        return Augmented(parts, pipe.augmentation, dropout) if self.augmentation else Conditioning(parts, dropout)

    def _captions(self):
        """The token ids of all captions, as many of each picture."""
        most = max(len(several) for several in self.captions)
        texts = [text for several in self.captions for text in (several * most)[:most]]
        ids = self.tokenizer.encode(texts).reshape(len(self.captions), most, -1)
        return Choices("context", ids, self.tokenizer.encode([""])[0], self.preset.first_caption)

    def draw(self, pipe, dataset, samples, captions, settings):
        """What the pipeline makes of the samples, pictures of `dataset` -> pictures, what to write under each."""
        if self.kinds == ("text",):
            return pipe.text_to_image(captions, **settings), captions
        if "class" in self.kinds:
            labels = [self.classes[i * len(self.classes) // len(samples)] for i in range(len(samples))]
            return draw_from(pipe, {"labels": labels}, captions, **settings), labels
        asked = inputs(pipe, dataset, spread(dataset, len(samples)), samples, np.random.default_rng(1))
        return draw_from(pipe, asked, captions, **settings), captions
