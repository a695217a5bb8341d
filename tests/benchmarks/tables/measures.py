"""What the tables measure pictures with: a feature network that no model of theirs was trained with."""

import numpy as np

from minild.evaluation import features, frechet_distance, lpips, psnr, rebuild
from minild.models import LPIPS
from minild.training import train_perceptual

JUDGE_SEED, JUDGE_MINUTES = 1, 6


class Judge:
    """LPIPS and Fréchet distance by a network trained like minild's own, from another seed.

    The autoencoders learn from the one in data/pretrained, and would please it more than they please anyone else.
    """

    def __init__(self, folder):
        if not (folder / "config.json").exists():
            train_perceptual(folder, minutes=JUDGE_MINUTES, seed=JUDGE_SEED)
        self.model = LPIPS.from_pretrained(folder)
        self._known = {}

    def rebuilt(self, vae, pictures):
        """How well an autoencoder gives pictures (N, H, W, 3) uint8 back -> {"psnr" in dB, "lpips", "frechet"}."""
        given_back = rebuild(vae, pictures)
        return {
            "psnr": float(np.mean(psnr(given_back, pictures))),
            "lpips": float(lpips(given_back, pictures, self.model).mean()),
            "frechet": self.frechet(given_back, pictures),
        }

    def frechet(self, drawn, real):
        """The Fréchet distance of drawn pictures, float in [0, 1], to real ones in uint8."""
        return frechet_distance(features(drawn, self.model), self.features(real))

    def features(self, pictures):
        """evaluation.features, computed once for each array."""
        if id(pictures) not in self._known:
            self._known[id(pictures)] = pictures, features(pictures, self.model)
        return self._known[id(pictures)][1]
