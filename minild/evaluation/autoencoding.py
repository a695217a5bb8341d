"""What an autoencoder makes of pictures: the rebuilt ones, and which codes of a codebook it uses."""

import numpy as np
from tqdm import tqdm

from minild.backend import to_device, to_host
from minild.data.pictures import to_signed
from minild.errors import UserError
from minild.evaluation.pictures import at_once
from minild.models import VQModel
from minild.ops.quantize import nearest_code


def rebuild(vae, pictures, progress=False):
    """Pictures (N, H, W, 3) uint8, encoded without noise and decoded -> (N, H, W, 3) float32 in [0, 1].

    UserError where the autoencoder gives values that are no numbers.
    """
    step, rebuilt = at_once(pictures), []
    with tqdm(total=len(pictures), desc="rebuild", unit="picture", delay=1, disable=not progress) as bar:
        for start in range(0, len(pictures), step):
            x = to_signed(pictures[start : start + step]).astype(vae.dtype)
            y = vae.decode(vae.mean_latent(to_device(x, vae.device)))
            rebuilt.append(np.clip(to_host(y).astype(np.float32) / 2 + 0.5, 0, 1))
            bar.update(len(x))
    rebuilt = np.concatenate(rebuilt)
    if not np.isfinite(rebuilt).all():
        raise UserError(f"the autoencoder gave values that are no numbers in {vae.dtype}: its weights cannot be used")
    return rebuilt


def codes(vae, pictures):
    """The index of the code at each place of the latents of pictures (N, H, W, 3) uint8, by a VQModel -> (N, h, w)."""
    if not isinstance(vae, VQModel):
        raise ValueError(f"vae: expected a VQModel, got {type(vae).__name__}")
    step, codebook, found = at_once(pictures), vae.quantize.embedding.weight.value, []
    for start in range(0, len(pictures), step):
        x = to_signed(pictures[start : start + step]).astype(vae.dtype)
        found.append(to_host(nearest_code(vae.mean_latent(to_device(x, vae.device)), codebook)))
    return np.concatenate(found)
