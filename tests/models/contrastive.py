"""A CLIP with its loss as one module, for tests of every parameter; and pictures with texts of unlike length."""

from minild.engine import run
from minild.models import CLIPModel
from minild.nn.module import Module
from minild.ops.contrastive import contrastive


class ContrastiveCLIP(Module):
    """x (N, H, W, 3), token_ids (N, L) -> the contrastive loss."""

    def __init__(self, model):
        self.model = model

    @classmethod
    def from_config(cls, config):
        return cls(CLIPModel.from_config(config))

    def forward(self, x, token_ids):
        embeddings, cache = self.model.forward(x, token_ids)
        loss, loss_cache = run(contrastive, *embeddings, self.model.logit_scale.value)
        return loss, (cache, loss_cache)

    def backward(self, dy, cache):
        embeddings, loss = cache
        *dembeddings, dscale = loss.backward(dy)
        self.model.logit_scale.accumulate(dscale)
        return self.model.backward(tuple(dembeddings), embeddings)


def clip_inputs(rng):
    ids = rng.integers(0, 8, (3, 5))
    ids[0, 2:], ids[1, 4:], ids[2, 1:] = 9, 9, 9  # texts of 2, 4 and 1 tokens, then the end token, which also pads
    return {"x": rng.standard_normal((3, 8, 8, 3)), "token_ids": ids}
