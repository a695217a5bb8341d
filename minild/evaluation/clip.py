"""What a CLIP says of pictures and captions: their likeness, and which caption a picture is nearest to."""

from pathlib import Path

import numpy as np

from minild import pretrained
from minild.backend import to_device, to_host
from minild.data.location import data_path
from minild.errors import UserError
from minild.evaluation.pictures import batches, to_unit
from minild.models import CLIPModel
from minild.tokenizer import CLIPTokenizer

# preprocessor_config.json of a CLIP that minild trains: pictures in [-1, 1]
PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "do_center_crop": False,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
TEXTS = 256  # embedded at once


class CLIP:
    """A models.CLIPModel, its tokenizer, what its pictures are normalised by, and the record of its training."""

    def __init__(self, model, tokenizer, mean, deviation, record):
        self.model, self.tokenizer, self.record = model, tokenizer, record
        self.mean, self.deviation = np.array(mean, np.float64), np.array(deviation, np.float64)

    @property
    def size(self):
        """The height and width of its pictures."""
        return self.model.vision_model.config["image_size"]

    def embed_pictures(self, pictures):
        """(N, size, size, 3), float in [0, 1] or uint8 -> (N, P) of length one, float32 on the host."""
        x = to_unit("pictures", pictures)
        if x.shape[1:] != (self.size, self.size, 3):
            raise ValueError(f"pictures: expected shape (N, {self.size}, {self.size}, 3), got {pictures.shape}")
        normalised = (x - self.mean) / self.deviation
        parts = [self.model.embed_pictures(part) for part in batches(normalised, self.model.device)]
        return np.concatenate([to_host(part) for part in parts])

    def embed_captions(self, captions):
        """A list of N strings -> (N, P) of length one, float32 on the host."""
        ids = self.tokenizer.encode(list(captions))
        parts = [ids[start : start + TEXTS] for start in range(0, len(ids), TEXTS)]
        return np.concatenate([to_host(self.model.embed_texts(to_device(part, self.model.device))) for part in parts])


def load_clip(folder, device="cpu"):
    """The CLIP in a folder: config.json and weights, a tokenizer, and, if there is one, preprocessor_config.json.

    UserError names what is missing or does not fit: a tokenizer with more ids, or longer texts, than the text encoder.
    """
    folder = Path(folder)
    model = CLIPModel.from_pretrained(folder, device=device)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    text = model.text_model.config
    if max(tokenizer.vocabulary.values()) >= text["vocab_size"]:
        raise UserError(f"{folder}: the tokenizer has ids beyond the text encoder's {text['vocab_size']} tokens")
    if tokenizer.max_length > text["max_position_embeddings"]:
        longest = text["max_position_embeddings"]
        raise UserError(f"{folder}: the tokenizer's texts have {tokenizer.max_length} tokens, the encoder's {longest}")
    settings = folder / "preprocessor_config.json"
    settings = PREPROCESSOR | (pretrained.read_json(settings) if settings.is_file() else {})
    record = folder / "minild.json"
    record = pretrained.read_json(record) if record.is_file() else {}
    return CLIP(model, tokenizer, settings["image_mean"], settings["image_std"], record)


def load_clip_for(dataset, size, device="cpu"):
    """The CLIP that comes with minild where it was trained on the data set of that name, at that size; else None."""
    folder = data_path("pretrained", "clip")
    if not folder.is_dir():
        return None
    record = pretrained.read_json(folder / "minild.json")
    return load_clip(folder, device) if (record["dataset"], record["size"]) == (dataset, size) else None


def clip_scores(pictures, captions, clip):
    """100 · max(cos(picture, caption), 0) of each picture and its caption, by a CLIP -> (N,) float64.

    (Hessel et al. 2021, arXiv 2104.08718, equation 1, with a weight of 100 instead of the paper's 2.5: per cent, as is
    usual now.) Only scores by the same CLIP can be compared.
    """
    if len(pictures) != len(captions):
        raise ValueError(f"captions: expected one for each of {len(pictures)} pictures, got {len(captions)}")
    images, texts = clip.embed_pictures(pictures).astype(float), clip.embed_captions(captions).astype(float)
    return 100 * (images * texts).sum(axis=1).clip(0)


def retrieve(pictures, captions, clip):
    """The index of the caption that is most like each picture, by a CLIP: N pictures, M captions -> (N,)."""
    return (clip.embed_pictures(pictures) @ clip.embed_captions(captions).T).argmax(axis=1)
