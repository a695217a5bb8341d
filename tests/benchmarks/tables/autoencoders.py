"""(a) Autoencoders over f and regularisation (the paper's table 8); (e) their losses side by side."""

import dataclasses

import numpy as np
from PIL import Image

from minild import checkpoints, data
from minild.data.pictures import gather
from minild.evaluation import rebuild
from minild.models import AutoencoderKL, VQModel
from minild.training import PRESETS, train
from minild.training.presets import StagePreset

SIZE = 64
CHANNELS = {2: (32, 64), 4: (32, 64, 64), 8: (32, 64, 64, 128)}
LATENT_CHANNELS = {2: 3, 4: 4, 8: 8}
LOSSES = {
    "L1 + L2": {},
    "+ LPIPS": {"perceptual_weight": 0.2},
    "+ LPIPS + GAN": {"perceptual_weight": 0.2, "adversarial_weight": 0.05, "adversarial_start": 0.8},
}
STAGE = StagePreset(learning_rate=1.5e-3, batch_size=8, optimizer="muon")


def preset(f, **changes):
    """An autoencoder of that f for the emoji at 64 x 64; all of the time is its own."""
    return dataclasses.replace(
        PRESETS["emoji"], autoencoder_share=1.0, autoencoder=STAGE, size=SIZE,
        channels=CHANNELS[f], latent_channels=LATENT_CHANNELS[f], **changes,
    )  # fmt: skip


def trained(folder, chosen, minutes):
    """The autoencoder of a preset, trained for so many minutes now or earlier."""
    if not (folder / "vae" / "config.json").exists():
        resume = checkpoints.any_in(folder)
        train("emoji", folder, minutes, preset=chosen, resume=resume, autoencoder_only=True)
    kind = VQModel if chosen.regularisation == "vq" else AutoencoderKL
    return kind.from_pretrained(folder / "vae")


def over_f(cells, judge, minutes):
    """Table (a): one row for each f and regularisation."""
    pictures, _ = gather(data.load("emoji", "test", SIZE))
    rows = []
    for f in CHANNELS:
        for regularisation in ("kl", "vq"):
            name = f"{regularisation}-f{f}"

            def compute(name=name, f=f, regularisation=regularisation):
                vae = trained(cells.folder / name, preset(f, regularisation=regularisation), minutes)
                return judge.rebuilt(vae, pictures)

            rows.append({"f": f, "regularisation": regularisation.upper()} | cells.get(name, compute))
    return rows


def over_losses(cells, judge, minutes, sheet):
    """Table (e): one row for each set of losses; `sheet` shows what they rebuild beside the real pictures."""
    pictures, _ = gather(data.load("emoji", "test", SIZE))
    shown = pictures[:: len(pictures) // 12][:12]
    rows, strips = [], [shown / 255]
    for losses, weights in LOSSES.items():
        folder = cells.folder / losses.replace(" ", "").replace("+", "-")

        def compute(folder=folder, weights=weights):
            return judge.rebuilt(trained(folder, preset(8, **weights), minutes), pictures)

        rows.append({"losses": losses} | cells.get(folder.name, compute))
        strips.append(rebuild(AutoencoderKL.from_pretrained(folder / "vae"), shown))
    grid = np.concatenate([np.concatenate(list(strip), axis=1) for strip in strips])
    picture = Image.fromarray((255 * grid).round().astype(np.uint8))
    picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST).save(sheet)
    return rows
