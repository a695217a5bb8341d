"""A preset whose training takes a moment: what the tests of whole trainings begin with."""

import dataclasses

from minild.training.presets import PRESETS, StagePreset

SMALL = StagePreset(learning_rate=3e-3, batch_size=4)
TINY = dataclasses.replace(
    PRESETS["shapes"],
    autoencoder=SMALL,
    diffusion=SMALL,
    channels=(8, 8, 8),
    unet_channels=(8, 8),
    text_width=16,
    text_layers=1,
    pictures=16,
)
