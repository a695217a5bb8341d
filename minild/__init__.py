"""minild: latent diffusion written with nothing but arrays."""

from minild.engine import using

__all__ = ["__version__", "using"]
__version__ = "0.1.0"
