"""minild: latent diffusion written with nothing but arrays.

ops        the textbook: every op and its backward, as formulas         nn         layers and blocks
engine     the same ops, fast; minild.using puts others in force        models     UNet2DConditionModel, ...
diffusion  noise schedule, loss, guidance, samplers                     training   AdamW, the loop, whole trainings
pipelines  load("emoji").text_to_image("red apple")                     gradcheck  a backward against its forward
"""

from minild.engine import using

__all__ = ["__version__", "using"]
__version__ = "0.1.0"
