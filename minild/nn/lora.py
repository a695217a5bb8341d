"""Low-rank updates of a layer (LoRA; Hu et al. 2021, arXiv 2106.09685)."""

from minild.nn.around import Around
from minild.nn.layers import Conv2d, Linear
from minild.nn.module import Module


class LowRank(Module):
    """factor · up(down(x)): what is added to a layer, through `rank` channels. factor = alpha / rank.

    Of a linear layer down is A (Cin, rank) and up is B (rank, Cout); of a convolution down has its kernel, and up is
    1 x 1. B begins as zeros, and so does the update. The names are those of the reference's files.
    """

    def __init__(self, layer, rank, alpha=None):
        if isinstance(layer, Conv2d):
            k, _, inputs, outputs = layer.weight.shape
            self.lora_A = Conv2d(inputs, rank, k, layer.stride, layer.padding, bias=False)
            self.lora_B = Conv2d(rank, outputs, 1, padding=0, bias=False, init=0.0)
        else:
            inputs, outputs = layer.weight.shape
            self.lora_A = Linear(inputs, rank, bias=False)
            self.lora_B = Linear(rank, outputs, bias=False, init=0.0)
        self.rank, self.alpha = rank, rank if alpha is None else alpha

    @property
    def factor(self):
        """alpha / rank."""
        return self.alpha / self.rank

    def forward(self, x):
        """x -> y, of the layer's own shapes."""
        h, down = self.lora_A.forward(x)
        y, up = self.lora_B.forward(h)
        return self.factor * y, (down, up)

    def backward(self, dy, cache):
        """dy like y -> dx like x."""
        down, up = cache
        return self.lora_A.backward(self.lora_B.backward(self.factor * dy, up), down)

    def difference(self):
        """ΔW = factor · A B, of the shape of the layer's weight."""
        a, b = self.lora_A.weight.value, self.lora_B.weight.value
        rank, outputs = b.shape[-2:]
        return self.factor * (a @ b.reshape(rank, outputs))


class Updated(Around):
    """y = layer(x) + Σ weight · update(x): a Linear or Conv2d with low-rank updates beside it, or in it.

    updates  {name: [LowRank, weight]}. They are no parameters of the model, whose weights stay what they are.
    """

    def __init__(self, layer):
        super().__init__(layer)
        self.updates, self.original = {}, None

    @property
    def weight(self):
        """The layer's own Parameter."""
        return self.module.weight

    def forward(self, x):
        """x -> y of the layer's own shapes."""
        y, cache = self.module.forward(x)
        updates = []
        for update, weight in self.updates.values() if self.original is None else ():
            dy, of_update = update.forward(x)
            y = y + weight * dy
            updates.append(of_update)
        return y, (cache, updates)

    def backward(self, dy, cache):
        """dy like y -> dx like x."""
        cache, updates = cache
        dx = self.module.backward(dy, cache)
        for (update, weight), of_update in zip(self.updates.values(), updates):
            dx = dx + update.backward(weight * dy, of_update)
        return dx

    def merge(self):
        """Add the updates to the layer's weight: it then costs nothing more to have them. The weight before is kept."""
        if self.original is None:
            parameter = self.weight
            self.original = parameter.data
            merged = parameter.value
            for update, weight in self.updates.values():
                merged = merged + (weight * update.difference()).astype(merged.dtype, copy=False)
            parameter.data = merged.astype(self.original.dtype, copy=False)

    def unmerge(self):
        """Give the weight back, bit for bit."""
        if self.original is not None:
            self.weight.data, self.original = self.original, None

    def replica(self):
        """As of every Module; the updates are in it, too."""
        twin = super().replica()
        twin.updates = {name: [update.replica(), weight] for name, (update, weight) in self.updates.items()}
        return twin
