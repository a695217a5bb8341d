"""minild: latent diffusion written with nothing but arrays."""

__version__ = "0.1.0"
