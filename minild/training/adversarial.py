"""The patch-adversarial loss of stage one (latent diffusion paper, section 3.1), as in VQGAN (arXiv 2012.09841)."""

import contextlib
from typing import Any, NamedTuple

import numpy as np

from minild.backend import get_array_module
from minild.engine import run, using
from minild.nn.module import Module
from minild.ops.loss import hinge, logistic
from minild.training.ranks import ALONE
from minild.training.whole_batch import shared_batch_norm

LARGEST_ADAPTIVE = 1e4
LOSSES = {"hinge": hinge, "vanilla": logistic}


class AdversarialPair(Module):
    """An autoencoder and the discriminator that it is trained against: one model to the training loop."""

    def __init__(self, autoencoder, discriminator):
        self.autoencoder, self.discriminator = autoencoder, discriminator

    @property
    def device(self):
        """The name of the device that holds both."""
        return self.autoencoder.device


class AdversarialCache(NamedTuple):
    autoencoder: Any  # of the RebuildingObjective
    pair: Any
    weight: float  # of the adversarial loss; 0 before the start, and then there is nothing below
    logits: Any = None  # of x̂
    generated: Any = None  # of the discriminator on x̂
    generated_loss: Any = None
    real: Any = None  # of the discriminator on x
    real_loss: Any = None


def adaptive_weight(rebuilding, adversarial):
    """λ = ‖∇ rebuilding‖ / (‖∇ adversarial‖ + 1e-4), at most 1e4, of the gradients of the decoder's last weight.

    (Equation 7 of VQGAN.) With it neither loss drowns the other. A number on the device.
    """
    xp = get_array_module(rebuilding)
    first, second = (xp.sqrt((gradient * gradient).sum()) for gradient in (rebuilding, adversarial))
    return xp.minimum(first / (second + 1e-4), LARGEST_ADAPTIVE)


class AdversarialObjective:
    """What `rebuilding`, a RebuildingObjective, says, and weight · λ · L_adv for the autoencoder, L_adv = -mean D(x̂);
    (L(D(x), real) + L(D(x̂), generated)) / 2 for the discriminator, L being "hinge" or "vanilla".

    Both from one forward, and both steps are taken at once: the gradient of the one never reaches the other's weights.
    λ is adaptive_weight. Until the share `start` of the training is over there is no discriminator. Where the replicas
    of one process share a batch, each has its own λ, and its batch norm sees its own part alone: so the numbers depend
    on how many there are. Where `ranks` share it, both are of the whole batch.

    The metrics tell of a collapse: `real` and `generated` are the mean logits. Where the discriminator cannot tell the
    pictures apart they are one; where it always can, they are beyond ±1 and its loss is 0.
    """

    def __init__(self, rebuilding, weight=0.5, start=0.25, loss="hinge"):
        self.rebuilding, self.weight, self.start, self.judge = rebuilding, weight, start, LOSSES[loss]
        self.ranks = ALONE  # training.ranks; others than ALONE have one replica each

    def rows(self, rng, size):
        """Those of `rebuilding`."""
        return self.rebuilding.rows(rng, size)

    def batch(self, rng, size, progress):
        """Beside what `rebuilding` asks for, the weight of the adversarial loss, (size,)."""
        weights = np.full(size, self.weight if progress >= self.start else 0, np.float32)
        return *self.rebuilding.batch(rng, size, progress), weights

    @property
    def tracker(self):
        """The CodebookTracker of `rebuilding`, or None."""
        return self.rebuilding.tracker

    def after_step(self, pair, losses, rng, progress):
        """That of `rebuilding`."""
        return self.rebuilding.after_step(pair.autoencoder, losses, rng, progress)

    def forward(self, pair, batch):
        """-> {name: loss} on the device, cache. `loss` is the autoencoder's without the adversarial term."""
        *batch, weights = batch
        losses, own = self.rebuilding.forward(pair.autoencoder, batch)
        weight = float(weights[0])
        if not weight:
            return losses | dict.fromkeys(("discriminator", "real", "generated"), 0.0), AdversarialCache(own, pair, 0.0)
        with self._whole_batch():
            logits, generated = pair.discriminator.forward(own.rebuilt)
            real_logits, real = pair.discriminator.forward(own.x)
        generated_loss, generated_call = run(self.judge, logits, -1)
        real_loss, real_call = run(self.judge, real_logits, 1)
        losses["discriminator"] = (real_loss + generated_loss) / 2
        losses |= {"real": real_logits.mean(), "generated": logits.mean()}
        return losses, AdversarialCache(own, pair, weight, logits, generated, generated_call, real, real_call)

    def backward(self, dloss, cache):
        """Adds dloss times each loss's gradient into the gradients of its own model."""
        pair, own = cache.pair, cache.autoencoder
        dy = self.rebuilding.rebuilt_gradient(dloss, own)
        if cache.weight:
            adversarial = self._adversarial_gradient(dloss, cache)
            last = pair.autoencoder.last_weight_gradient
            both = [last(gradient, own.autoencoder) for gradient in (dy, adversarial)]
            for gradient in both:
                self.ranks.sum(gradient)
            scale = adaptive_weight(*both)
            dy = dy + cache.weight * scale * adversarial
            pair.discriminator.backward(cache.generated_loss.backward(dloss / 2), cache.generated)
            pair.discriminator.backward(cache.real_loss.backward(dloss / 2), cache.real)
        self.rebuilding.backward_from(dy, dloss, own)

    def _whole_batch(self):
        """Within it, batch norm is over all ranks; its backward then is, too."""
        return contextlib.nullcontext() if self.ranks is ALONE else using(batch_norm=shared_batch_norm(self.ranks))

    def _adversarial_gradient(self, dloss, cache):
        """dloss times the gradient of L_adv in x̂, which leaves the discriminator's own gradients as they are."""
        logits, watching = cache.logits, cache.pair.discriminator.replica()
        dlogits = get_array_module(logits).full(logits.shape, -dloss / logits.size, logits.dtype)
        return watching.backward(dlogits, cache.generated)
