"""(b) Pixel against latent diffusion over f, all with the same time (the paper's figures 6 and 7, table 6)."""

import time

import numpy as np

from minild import data
from minild.backend import to_host
from minild.data.pictures import gather, to_signed
from minild.diffusion import SAMPLERS, NoiseSchedule, guided
from minild.engine.cores import core_count
from minild.engine.memory import keep_freed_memory
from minild.models import CLIPTextModel, UNet2DConditionModel
from minild.random import image_generators, standard_normal
from minild.training import PRESETS
from minild.training.autoencoder import encode_pictures
from minild.training.budget import Budget
from minild.training.latent_diffusion import Denoiser, DiffusionObjective
from minild.training.leads import fit_tokenizer
from minild.training.loop import training_steps
from minild.training.optimizer import AdamW, ExponentialMovingAverage
from minild.training.replicas import Replicas

from . import autoencoders

# Each U-Net begins with 64 channels and goes down to 8 x 8 (f = 8: 4 x 4), where 128 channels attend to the caption.
WIDTHS = {1: (64, 64, 64, 128), 2: (64, 64, 128), 4: (64, 128), 8: (64, 128)}
LOOKS = 3  # how often the pictures are judged on the way
STEPS, AT_ONCE = 20, 16  # of DDIM; pictures drawn at once


class Diffusion:
    """Diffusion on pictures (f = 1) or on the latents of an autoencoder: the models, the objective, the pictures."""

    def __init__(self, f, vae, pictures, names):
        self.vae, self.schedule = vae, NoiseSchedule()
        if vae is None:
            means, deviations = to_signed(pictures), np.zeros((len(pictures), 1, 1, 1), np.float32)
        else:
            means, deviations = encode_pictures(vae, pictures)
        self.scale = float(1 / means.std())
        self.shape = means.shape[1:]
        self.tokenizer = fit_tokenizer(names)
        widths, preset = WIDTHS[f], PRESETS["emoji"]
        kinds = ["DownBlock2D"] * (len(widths) - 1) + ["CrossAttnDownBlock2D"]
        config = {
            "sample_size": self.shape[0],
            "in_channels": self.shape[2],
            "out_channels": self.shape[2],
            "block_out_channels": list(widths),
            "down_block_types": kinds,
            "up_block_types": [kind.replace("Down", "Up") for kind in reversed(kinds)],
            "layers_per_block": 1,
            "cross_attention_dim": preset.text_width,
            "attention_head_dim": preset.heads,
            "norm_num_groups": 8,
        }
        text_encoder = CLIPTextModel.from_config(preset.text_config(self.tokenizer), 2)
        self.denoiser = Denoiser(UNet2DConditionModel.from_config(config, 1), text_encoder)
        ids = self.tokenizer.encode(names)[:, None]
        unconditional = self.tokenizer.encode([""])[0]
        self.objective = DiffusionObjective(means, deviations, self.scale, ids, unconditional, self.schedule)

    def draw(self, names, seed=0):
        """Pictures for these names, by DDIM without guidance -> (N, H, W, 3) float32 in [0, 1]."""
        return np.concatenate([self._draw(names[i : i + AT_ONCE], seed + i) for i in range(0, len(names), AT_ONCE)])

    def _draw(self, names, seed):
        generators = image_generators(seed, len(names))
        predict = guided(self.denoiser.unet, self.denoiser.text_encoder(self.tokenizer.encode(names)), None, 1)
        *_, z = SAMPLERS["ddim"](predict, standard_normal(generators, self.shape), self.schedule, STEPS, generators)
        x = z / self.scale if self.vae is None else self.vae.decode(z / self.scale)
        return np.clip(to_host(x) / 2 + 0.5, 0, 1)


def over_f(cells, first_stages, judge, minutes, count):
    """Table (b): a row for each f, its autoencoder from the cells of table (a)."""
    keep_freed_memory()
    dataset = data.load("emoji", "train", autoencoders.SIZE)
    pictures, captions = gather(dataset)
    names = [several[0] for several in captions]
    asked = [names[i] for i in np.random.default_rng(0).choice(len(names), count, replace=False)]

    def compute(f):
        vae = None
        if f > 1:
            vae = autoencoders.trained(first_stages.folder / f"kl-f{f}", autoencoders.preset(f), minutes)
        return _train(Diffusion(f, vae, pictures, names), 60 * minutes, lambda x: judge.frechet(x, pictures), asked)

    return [{"f": f} | cells.get(f"pixels-f{f}", lambda f=f: compute(f)) for f in WIDTHS]


def _train(diffusion, seconds, frechet, asked):
    """Train for so many seconds, judged LOOKS times on the way; the judging is not counted."""
    preset, denoiser = PRESETS["emoji"].diffusion, diffusion.denoiser
    rng, optimizer = np.random.default_rng(0), AdamW(denoiser, weight_decay=preset.weight_decay)
    ema, budget, curve = ExponentialMovingAverage(denoiser), Budget(seconds), []
    with Replicas(denoiser, diffusion.objective, core_count()) as replicas:
        steps = training_steps(
            denoiser, diffusion.objective, preset, budget, rng, optimizer, ema, replicas.gradient
        )
        for step, _ in steps:
            if budget.progress < (len(curve) + 1) / LOOKS:
                continue
            trained_for = budget.elapsed
            with budget.paused(), ema.averaged():
                began = time.monotonic()
                drawn = diffusion.draw(asked)
                drawing = time.monotonic() - began
                curve.append({"seconds": round(trained_for, 1), "steps": step, "frechet": frechet(drawn)})
    return {
        "parameters": sum(parameter.data.size for parameter in denoiser.unet.parameters()),
        "steps": budget.taken,
        "trained_images_per_second": preset.batch_size * budget.taken / trained_for,
        "drawn_images_per_second": len(asked) / drawing,
        "frechet": curve[-1]["frechet"],
        "curve": curve,
    }
