"""Stage one with a codebook: the loss of a VQModel, and what is kept of its codes from step to step.

A code that no latent takes has no gradient, and stays where it is: a codebook can collapse to a few codes. So the
tracker counts which are taken; and it may move the codes itself, by moving averages, and put dead ones to use.
"""

import numpy as np

from minild.backend import device_of, get_array_module, to_device, to_host
from minild.data.pictures import to_signed
from minild.engine.cpu.quantize import nearest_code  # in bounded memory, on either device
from minild.training.autoencoder import RebuildingCache, RebuildingObjective

DECAY = 0.99  # of moving averages, a step
WINDOW = 100  # steps: a code is in use if a latent took it within them
COLLAPSED = 0.05  # the share of codes in use below which a codebook is said to have collapsed
DEAD = 0.02  # of an equal share of the latents: a code with less is dead
LAST_REVIVAL = 0.8  # the share of a training after which none is revived, for the weights' average to follow


class VQObjective(RebuildingObjective):
    """The loss of a RebuildingObjective + codebook_weight · (‖sg[z] - e‖² + β ‖z - sg[e]‖²), each term a mean over the
    elements of z (paper, section 3.1, VQ-reg.; van den Oord et al. 2017, arXiv 1711.00937, equation 3).

    β stands on the commitment, as published; the reference's "legacy" puts it on the codebook's term. With a `tracker`
    that moves the codes itself, the codebook's term is left out.
    """

    def __init__(self, pictures, tracker, beta=0.25, codebook_weight=1.0, perceptual=None, perceptual_weight=1.0):
        super().__init__(pictures, perceptual, perceptual_weight)
        self.tracker, self.beta, self.codebook_weight = tracker, beta, codebook_weight

    def forward(self, autoencoder, batch):
        """-> {name: loss} on the device, cache. Its "rows" are the codes (N, h, w) and latents z (N, h, w, D)."""
        x = to_device(to_signed(batch[0]), autoencoder.device)
        (y, quantizer), cache = autoencoder.forward(x, self.beta)
        losses, comparison = self.compare(y, x)
        if self.tracker.moves:
            quantizer = quantizer * (self.beta / (1 + self.beta))  # both terms are one number in the forward
        losses |= {"loss": losses["loss"] + self.codebook_weight * quantizer, "quantizer": quantizer}
        codes = nearest_code(cache.z, autoencoder.quantize.embedding.weight.value)
        losses["rows"] = {"codes": codes, "latents": cache.z}
        return losses, RebuildingCache(autoencoder, cache, y, x, comparison)

    def backward_from(self, dy, dloss, cache):
        """The rest of backward, from dy = dx̂ on; the quantiser's own gradient joins it at the latent."""
        cache.model.backward((dy, dloss * self.codebook_weight), cache.autoencoder)
        if self.tracker.moves:
            cache.model.quantize.embedding.weight.zero_grad()

    def after_step(self, autoencoder, losses, rng, progress):
        """Let the tracker follow, and move the codes -> the losses and its metrics."""
        losses = dict(losses)
        rows, codebook = losses.pop("rows"), autoencoder.quantize.embedding.weight.data
        revives = self.tracker.moves and (progress < LAST_REVIVAL or not self.tracker.steps)
        order = rng.permutation(rows["codes"].size) if revives else None
        return losses | self.tracker.follow(codebook, rows["codes"], rows["latents"], order)


def code_sums(codes, latents, count):
    """How many latents (n, D) each of `count` codes has by their indices (n,), and their sums -> (K,), (K, D)."""
    xp = get_array_module(latents)
    taken, sums = xp.zeros(count, latents.dtype), xp.zeros((count, latents.shape[-1]), latents.dtype)
    xp.add.at(taken, codes, xp.ones(len(codes), latents.dtype))
    xp.add.at(sums, codes, latents)
    return taken, sums


def centres(counts, sums, eps=1e-5):
    """e_k = m_k / N̂_k with N̂_k = n (N_k + ε) / (n + K ε), n = Σ N_k: counts (K,), sums (K, D) -> codebook (K, D).

    (van den Oord et al. 2017, appendix A.1.) Laplace's smoothing of the counts keeps a code that nobody takes finite.
    """
    total = counts.sum()
    smooth = total * (counts + eps) / (total + len(counts) * eps)
    return sums / smooth[:, None]


def revive(counts, sums, latents, order):
    """Give every dead code, N_k < DEAD · n / K, a latent of the batch to begin at, and an equal share as its count.

    counts (K,), sums (K, D), latents (n, D), order: a permutation of 0..n-1 that says which latents come first ->
    counts, sums. With more dead codes than latents, some get the same.
    """
    xp = get_array_module(counts)
    equal = counts.sum() / len(counts)
    dead = counts < DEAD * equal
    rank = xp.maximum(xp.cumsum(dead.astype(order.dtype)) - 1, 0) % len(order)  # the first dead code, the second, ...
    begin = latents[order[rank]]
    return xp.where(dead, equal, counts), xp.where(dead[:, None], equal * begin, sums)


class CodebookTracker:
    """What is kept of a codebook of K codes of width D, in the process that holds the model:

    shares (K,)   the moving average of the share of latents that take each code
    idle (K,)     steps since a latent took it, WINDOW at most
    counts (K,), sums (K, D)   with `moves`: the moving averages of how many latents take it, and of their sum

    With `moves` the codes are the centres of their latents instead of learning by gradient: N ← γ N + (1 - γ) n,
    m ← γ m + (1 - γ) Σ z, e = m / N (van den Oord et al. 2017, appendix A.1). At first every code is dead, and so
    begins as a latent; later, one that is hardly taken any more begins anew as another.
    """

    def __init__(self, count, width, moves=False, decay=DECAY, dtype="float32"):
        self.moves, self.decay, self.steps = moves, decay, 0
        self.shares, self.idle = np.zeros(count, dtype), np.full(count, WINDOW, dtype)
        self.kept = ["shares", "idle"]
        if moves:
            self.counts, self.sums = np.zeros(count, dtype), np.zeros((count, width), dtype)
            self.kept += ["counts", "sums"]

    def follow(self, codebook, codes, latents, order=None):
        """Follow a batch's codes (N, h, w) and latents (N, h, w, D); with `moves`, change `codebook` (K, D) in place.

        order: a host permutation of the N h w latents by which dead codes are revived; None revives none. The first
        batch needs it where codes move: a code that begins as no latent would begin at 0.
        -> {name: number on the device}:
        codebook_use        the share of codes that a latent took within the last WINDOW steps
        perplexity          exp of the entropy of `shares`: K where all are taken alike, 1 where one is always taken
        codebook_collapsed  1 if codebook_use is below COLLAPSED, once WINDOW steps are over; else 0
        """
        self._move_to(device_of(codebook))
        xp, codes, latents = get_array_module(codebook), codes.reshape(-1), latents.reshape(-1, latents.shape[-1])
        self.steps += 1
        taken, sums = code_sums(codes, latents, len(codebook))
        self.shares = self.decay * self.shares + (1 - self.decay) * (taken / len(codes))
        self.idle = xp.where(taken > 0, 0, xp.minimum(self.idle + 1, WINDOW)).astype(self.idle.dtype)
        if self.moves:
            self.counts = self.decay * self.counts + (1 - self.decay) * taken
            self.sums = self.decay * self.sums + (1 - self.decay) * sums
            if order is not None:
                order = to_device(order, device_of(codebook))
                self.counts, self.sums = revive(self.counts, self.sums, latents, order)
            codebook[...] = centres(self.counts, self.sums)
        return self._metrics(xp)

    def _metrics(self, xp):
        p = self.shares / self.shares.sum()
        entropy = -(p * xp.log(xp.maximum(p, 1e-30))).sum()
        use = (self.idle < WINDOW).mean()
        collapsed = 1.0 * (use < COLLAPSED) if self.steps >= WINDOW else 0.0
        return {"codebook_use": use, "perplexity": xp.exp(entropy), "codebook_collapsed": collapsed}

    def _move_to(self, device):
        for name in self.kept:
            if device_of(getattr(self, name)) != device:
                setattr(self, name, to_device(to_host(getattr(self, name)), device))

    def state_dict(self):
        """What a resumed training needs, as host arrays."""
        return {name: to_host(getattr(self, name)) for name in self.kept} | {"steps": np.array(self.steps)}

    def load_state_dict(self, state):
        """Go on from such a state, wherever the codebook is."""
        for name in self.kept:
            setattr(self, name, state[name].copy())
        self.steps = int(state["steps"])
