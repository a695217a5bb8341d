"""Training: optimiser, moving average, the two stages, and the run that puts them together."""

from minild.training.run import train

__all__ = ["train"]
