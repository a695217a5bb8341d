"""The models of latent diffusion, built from the same configs and with the same weight names as the reference."""

from minild.models.autoencoder_kl import AutoencoderKL
from minild.models.clip_text import CLIPTextModel
from minild.models.unet import UNet2DConditionModel
from minild.models.vq_model import VQModel

__all__ = ["AutoencoderKL", "CLIPTextModel", "UNet2DConditionModel", "VQModel"]
