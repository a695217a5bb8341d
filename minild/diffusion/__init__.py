"""Diffusion, on latents or on pictures: the noise schedule, the training loss, guidance, and one file a sampler.

Nothing here knows a model: a sampler is handed `predict(latents, timestep) -> ε`, and yields latents.
"""

from minild.diffusion.ddim import ddim
from minild.diffusion.ddpm import ddpm
from minild.diffusion.schedule import NoiseSchedule

SAMPLERS = {"ddpm": ddpm, "ddim": ddim}

__all__ = ["SAMPLERS", "NoiseSchedule", "ddim", "ddpm"]
