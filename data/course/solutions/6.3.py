"""The model is shown z_t, and its answer is compared with the noise that is in it."""

from minild.diffusion.schedule import add_noise
from minild.ops.loss import mse


def epsilon_loss(model, z, noise, t, levels, context):
    predicted, _ = model.forward(add_noise(z, noise, *levels), t, context)
    return mse(predicted, noise)
