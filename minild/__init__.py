"""minild: latent diffusion written with nothing but arrays.

ops        the textbook: every op and its backward, as formulas         nn         layers and blocks
engine     the same ops, fast; minild.using puts others in force        models     UNet2DConditionModel, ...
diffusion  noise schedule, loss, guidance, samplers                     training   AdamW, the loop, whole trainings
pipelines  load("emoji").text_to_image("red apple")                     gradcheck  a backward against its forward
"""

__all__ = ["__version__", "using"]
__version__ = "0.1.0"


def __getattr__(name):
    if name == "using":  # at its first use: `minild --help` is to come before NumPy has loaded
        from minild.engine import using

        return using
    raise AttributeError(f"module 'minild' has no attribute {name!r}")
