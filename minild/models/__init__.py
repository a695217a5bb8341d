"""The models of latent diffusion, built from the same configs and with the same weight names as the reference.

Beside them the two networks that train the autoencoder: LPIPS, the perceptual distance, and the patch discriminator;
and CLIP, which trains the text encoder together with one for pictures.
"""

from minild.models.autoencoder_kl import AutoencoderKL
from minild.models.clip import CLIPModel, CLIPVisionModel
from minild.models.clip_text import CLIPTextModel
from minild.models.condition import Condition, Conditioned
from minild.models.controlnet import ControlNetModel
from minild.models.discriminator import PatchDiscriminator
from minild.models.latent_classifier import LatentClassifier
from minild.models.lpips import LPIPS
from minild.models.unet import UNet2DConditionModel
from minild.models.vgg import VGG
from minild.models.vq_model import VQModel

__all__ = [
    "LPIPS", "VGG", "AutoencoderKL", "CLIPModel", "CLIPTextModel", "CLIPVisionModel", "Condition", "Conditioned",
    "ControlNetModel", "LatentClassifier", "PatchDiscriminator", "UNet2DConditionModel", "VQModel",
]  # fmt: skip
