"""Layers (an op plus its parameters) and the blocks that Stable Diffusion is built of."""
