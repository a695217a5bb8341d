"""Diffusion, on latents or on pictures: the noise schedule, the training loss, guidance, and one file a sampler.

Nothing here knows a model: a sampler is handed `predict(latents, timestep)`, which gives what the schedule's
prediction_type says, and yields latents.
"""

from minild.diffusion.ddim import ddim
from minild.diffusion.ddim_inverse import ddim_inverse
from minild.diffusion.ddpm import ddpm
from minild.diffusion.dpm_solver import dpmpp_2m, dpmpp_2m_karras
from minild.diffusion.dpm_solver_sde import dpmpp_2m_sde
from minild.diffusion.euler import euler
from minild.diffusion.euler_ancestral import euler_ancestral
from minild.diffusion.heun import heun
from minild.diffusion.lcm import lcm
from minild.diffusion.lms import lms
from minild.diffusion.pndm import pndm
from minild.diffusion.schedule import NoiseSchedule
from minild.diffusion.unipc import unipc

SAMPLERS = {
    "ddpm": ddpm,
    "ddim": ddim,
    "ddim-inverse": ddim_inverse,
    "pndm": pndm,
    "lms": lms,
    "euler": euler,
    "euler-a": euler_ancestral,
    "heun": heun,
    "dpmpp-2m": dpmpp_2m,
    "dpmpp-2m-karras": dpmpp_2m_karras,
    "dpmpp-2m-sde": dpmpp_2m_sde,
    "unipc": unipc,
    "lcm": lcm,
}

__all__ = ["SAMPLERS", "NoiseSchedule", "ddim", "ddpm"]
