"""Local blend: an edit changes only the places that look at the changed words.

Prompt-to-prompt's authors have it in their code (Hertz et al. 2022, github.com/google/prompt-to-prompt, LocalBlend):
where cross-attention to the changed words is high, in the source or in the target, is a mask; outside of it each step
puts the source's latents into the target's.
"""

import numpy as np

from minild.backend import device_of, to_device, to_host
from minild.errors import UserError
from minild.pipelines.attention_maps import scaled_up
from minild.pipelines.prompt_to_prompt import changed_words, reweight
from minild.pipelines.watching import Watcher

LARGEST_MAP = 32 * 32  # places of a feature map up to which its attention is taken: finer maps are noisier
THRESHOLD = 0.3  # of the strongest attention, above which a place may change
BEGINS = 0.2  # the share of the steps after which the mask holds: the first maps say little


class LocalBlend(Watcher):
    """What it sees of a source and a target that are drawn together makes the mask of what it mixes.

    words (2, L): true for the tokens that differ, of the source and of the target.
    """

    def __init__(self, words):
        self.words, self.seen, self.holds = words, 0, False

    def wants(self, place):
        """Cross-attention of few places."""
        return place.cross and place.queries <= LARGEST_MAP

    def see(self, place, weights, now):
        """Add what a layer attends to, (2, heads, Lq, L), at the places of the latents. It replaces nothing."""
        looked = (to_host(weights.mean(1)).astype(np.float32) * self.words[:, None]).sum(-1)  # 2,Lq
        self.seen = self.seen + scaled_up(looked.reshape(2, *now.grid(place.queries)), now.shape)
        self.holds = now.step + 1 > BEGINS * now.request.steps

    def mask(self):
        """Where the target may change, (h, w) booleans; all of it where nothing attends to few places."""
        if np.ndim(self.seen) == 0:
            return np.True_
        strongest = self.seen.max(axis=(1, 2), keepdims=True)
        return ((self.seen > THRESHOLD * strongest) & (strongest > 0)).any(axis=0)

    def mix(self, z, alpha_bar):
        """drawing.draw_latents' `mix`: z (2, h, w, c), the target's as the source's but for the mask."""
        if not self.holds:
            return z
        z = z.copy()
        keep = to_device(np.asarray(self.mask(), z.dtype)[..., None], device_of(z))
        z[1] = keep * z[1] + (1 - keep) * z[0]
        return z


def local_blend(tokenizer, source, target, scales=None):
    """The LocalBlend of two prompts. The words that differ count, and those of `scales`, see prompt_to_prompt.

    UserError where nothing does.
    """
    words = changed_words(tokenizer, source, target)
    if scales:
        words[1] |= reweight(tokenizer, target, scales) != 1
    if not words.any():
        raise UserError("local blend: no word of the two prompts differs, so there is no place to change")
    return LocalBlend(words)
