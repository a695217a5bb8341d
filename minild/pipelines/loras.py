"""The LoRAs of a pipeline: low-rank updates of its U-Net and text encoder, several at once, each with a scale."""

import math
from numbers import Real
from pathlib import Path

from minild.errors import UserError
from minild.models.lora import attach, detach, fit, read_lora, updated_layers


class Loras:
    """pipe.loras: what `pipe.load_lora(file, scale)` has added.

    scales  {name: scale}
    merged  whether they are added to the weights, rather than computed beside them: the same picture, but for
            rounding, at no cost. What is saved of the pipeline is its weights as they then are.
    """

    def __init__(self, pipe):
        self._pipe, self.scales, self.merged = pipe, {}, False

    def load(self, path, scale=1.0, name=None):
        """Add the LoRA in a file, in any layout that models.lora reads -> its name, the file's unless one is given.

        UserError for a file that is none, or does not fit the models; nothing is then changed.
        """
        path, parts = Path(path), self._models()
        name = path.stem if name is None else name
        _require_scale(scale)
        if name in self.scales:
            raise UserError(f"a LoRA {name!r} is loaded already: give this one another name, or remove that one")
        found = read_lora(path)
        for part in found:
            if part not in parts:
                raise UserError(f"{path} does not fit the model, which has no {part}")
        placed = [one for part, updates in found.items() for one in fit(path, parts[part], part, updates)]
        with _Unmerged(self):
            for layer, put, update in placed:
                attach(layer, put, name, update, scale)
            self.scales[name] = scale
        return name

    def set_scale(self, name, scale):
        """Give one of them another scale; at 0 it does nothing."""
        self._require(name)
        _require_scale(scale)
        with _Unmerged(self):
            for layer in self._layers():
                if name in layer.updates:
                    layer.updates[name][1] = scale
            self.scales[name] = scale

    def remove(self, name):
        """Take one of them away; without any, the models are what they were."""
        self._require(name)
        with _Unmerged(self):
            for model in self._models().values():
                detach(model, name)
            del self.scales[name]

    def merge(self):
        """Add all of them to the weights. Those before are kept: `unmerge` gives them back, bit for bit."""
        for layer in self._layers():
            layer.merge()
        self.merged = True

    def unmerge(self):
        """Compute them beside the weights again, which are as before `merge`."""
        for layer in self._layers():
            layer.unmerge()
        self.merged = False

    def _models(self):
        parts = {"unet": self._pipe.unet, "text_encoder": self._pipe.text_encoder}
        return {part: model for part, model in parts.items() if model}

    def _layers(self):
        return [layer for model in self._models().values() for _, layer, _ in updated_layers(model)]

    def _require(self, name):
        if name not in self.scales:
            raise UserError(f"no LoRA {name!r} is loaded, only {', '.join(self.scales) or 'none at all'}")


class _Unmerged:
    """Within it, nothing is merged; at its end all is again, if it was."""

    def __init__(self, loras):
        self.loras = loras

    def __enter__(self):
        self.merged = self.loras.merged
        self.loras.unmerge()

    def __exit__(self, *exception):
        if self.merged:
            self.loras.merge()


def _require_scale(scale):
    if not isinstance(scale, Real) or not math.isfinite(scale):
        raise UserError(f"the scale of a LoRA must be a finite number, got {scale!r}")
