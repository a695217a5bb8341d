"""Modules that stand around another, in its place and under its names."""

from minild.nn.module import Module


class Around(Module):
    """A module that does something about another, whose place and names in a model it takes."""

    def __init__(self, module):
        self.module = module

    def own_parameters(self):
        """Those of the module."""
        return self.module.own_parameters()

    def children(self):
        """Those of the module."""
        return self.module.children()


class Recomputed(Around):
    """A module whose forward keeps nothing but its inputs, and whose backward begins with the forward once more.

    Less memory for more time (gradient checkpointing; Chen et al. 2016, arXiv 1604.06174).
    """

    def forward(self, *inputs):
        """inputs -> y, as the module has it."""
        return self.module(*inputs), inputs

    def backward(self, dy, inputs):
        """dy like y -> the gradients of the inputs."""
        _, cache = self.module.forward(*inputs)
        return self.module.backward(dy, cache)
