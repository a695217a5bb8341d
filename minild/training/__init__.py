"""Training: optimiser and moving average, the loop on one page (loop.py), the two stages, and the run of a whole."""

from minild.training.adversarial import AdversarialObjective, AdversarialPair
from minild.training.autoencoder import AutoencoderObjective
from minild.training.budget import Budget
from minild.training.classifier import train_classifier
from minild.training.clip import ContrastiveObjective, train_clip
from minild.training.codebook import CodebookTracker, VQObjective
from minild.training.controlnet import train_controlnet
from minild.training.decoder import train_decoder
from minild.training.diverged import replay
from minild.training.dreambooth import train_dreambooth
from minild.training.finetune import train_finetune
from minild.training.latent_diffusion import Denoiser, DiffusionObjective
from minild.training.loop import training_steps
from minild.training.lora import train_lora
from minild.training.muon import Muon
from minild.training.optimizer import AdamW, ExponentialMovingAverage, clip_by_global_norm, learning_rate_at
from minild.training.perceptual import train_perceptual
from minild.training.presets import PRESETS, Preset, StagePreset
from minild.training.replicas import Replicas
from minild.training.run import train
from minild.training.textual_inversion import train_textual_inversion

__all__ = [
    "PRESETS", "AdamW", "AdversarialObjective", "AdversarialPair", "AutoencoderObjective", "Budget",
    "CodebookTracker", "ContrastiveObjective", "Denoiser", "DiffusionObjective", "ExponentialMovingAverage", "Muon",
    "Preset", "Replicas", "StagePreset", "VQObjective", "clip_by_global_norm", "learning_rate_at", "replay",
    "train", "train_classifier", "train_clip", "train_controlnet", "train_decoder", "train_dreambooth",
    "train_finetune", "train_lora", "train_perceptual", "train_textual_inversion", "training_steps",
]  # fmt: skip
