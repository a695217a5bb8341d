"""Diffusion, on latents or on pictures: the noise schedule, the training loss, guidance, and one file a sampler.

Nothing here knows a model. Every sampler is a generator of the one form

    sampler(predict, latents, schedule, steps, generators, mix=None, start=NOISE)

predict      predict(latents, timestep) gives what the schedule's prediction_type says
schedule     a NoiseSchedule; of those in FLOW_SAMPLERS a FlowSchedule
latents      where it begins, (N, h, w, c): unit-variance noise; for ddim-inverse the latents of pictures
generators   the random numbers of each picture
mix          mix(z, ᾱ) -> z changes the latents after a step, before they are yielded and the next step takes them up:
             inpainting puts the picture that is given back outside its mask, √ᾱ z_0 + √(1 - ᾱ) ε
start        a Start: a picture's latents, noised by `latents`, stand for the steps that are left out; image to image

It yields the latents after each of the `steps` steps that it takes. In whatever variable it computes, they are of one
scale, z = √ᾱ z_0 + √(1 - ᾱ) ε, so that any of them can be decoded. The last are the sample, just as the reference
returns it.
"""

from minild.diffusion.ddim import ddim
from minild.diffusion.ddim_inverse import ddim_inverse
from minild.diffusion.ddpm import ddpm
from minild.diffusion.deis import deis
from minild.diffusion.dpm2 import dpm2
from minild.diffusion.dpm2_ancestral import dpm2_ancestral
from minild.diffusion.dpm_singlestep import dpm_singlestep
from minild.diffusion.dpm_solver import (
    dpm_multistep,
    dpm_solver,
    dpm_solver_sde,
    dpmpp_2m_karras,
    dpmpp_2m_sde,
    dpmpp_3m,
    dpmpp_3m_sde,
)
from minild.diffusion.euler import euler
from minild.diffusion.euler_ancestral import euler_ancestral
from minild.diffusion.flow import FLOW_CLASS, FlowSchedule, schedule_of
from minild.diffusion.flow_euler import flow_euler
from minild.diffusion.guidance import classifier_guided, guided
from minild.diffusion.heun import heun
from minild.diffusion.lcm import lcm
from minild.diffusion.lms import lms
from minild.diffusion.loss import (
    denoising_loss,
    denoising_loss_backward,
    epsilon_loss,
    epsilon_loss_backward,
)
from minild.diffusion.pndm import pndm
from minild.diffusion.schedule import NoiseSchedule, add_noise, predict_clean
from minild.diffusion.start import NOISE, Start
from minild.diffusion.unipc import unipc

DIFFUSION_SAMPLERS = {  # of a NoiseSchedule
    "ddpm": ddpm,
    "ddim": ddim,
    "ddim-inverse": ddim_inverse,
    "pndm": pndm,
    "lms": lms,
    "euler": euler,
    "euler-a": euler_ancestral,
    "heun": heun,
    "dpm2": dpm2,
    "dpm2-a": dpm2_ancestral,
    "dpmpp-2m": dpm_multistep,
    "dpmpp-2m-karras": dpmpp_2m_karras,
    "dpmpp-2m-sde": dpmpp_2m_sde,
    "dpmpp-3m": dpmpp_3m,
    "dpmpp-3m-sde": dpmpp_3m_sde,
    "dpm-solver": dpm_solver,
    "dpm-solver-sde": dpm_solver_sde,
    "dpm-singlestep": dpm_singlestep,
    "deis": deis,
    "unipc": unipc,
    "lcm": lcm,
}
FLOW_SAMPLERS = {"flow-euler": flow_euler}  # of a FlowSchedule
SAMPLERS = DIFFUSION_SAMPLERS | FLOW_SAMPLERS

__all__ = [
    "DIFFUSION_SAMPLERS", "FLOW_CLASS", "FLOW_SAMPLERS", "NOISE", "SAMPLERS", "FlowSchedule", "NoiseSchedule", "Start",
    "add_noise", "classifier_guided", "denoising_loss", "denoising_loss_backward", "epsilon_loss",
    "epsilon_loss_backward", "guided", "predict_clean", "schedule_of",
]  # fmt: skip
