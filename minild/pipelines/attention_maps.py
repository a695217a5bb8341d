"""Attention maps: which word each place of a picture looked at while it was drawn.

Cross-attention gives every query, a place of a feature map, a probability for each token of the prompt. Averaged over
heads, layers and steps, and scaled up to the picture, that is a map of each word. (Hertz et al. 2022, arXiv 2208.01626,
figure 4; Tang et al. 2022, arXiv 2210.04885, section 3.1.)
"""

import contextlib
import threading

import numpy as np
from PIL import Image

from minild.backend import to_host
from minild.errors import UserError
from minild.pipelines.watching import Watcher, watch_drawings


class AttentionMaps(Watcher):
    """What `watch_attention` has seen of the last drawing; of guidance, the half that the prompts lead.

    A value of a map is a probability, from 0 to 1: how much of its attention a place pays the word, all its tokens
    together. The maps of all words and those of the tokens that are none (begin, end, padding) add up to 1. Kept is the
    mean over heads, for each step and each size of feature map: steps · tokens · places numbers a picture.
    """

    def __init__(self, pipe):
        self.pipe, self.request, self.lock = pipe, None, threading.Lock()
        self.spelt, self.seen, self.shape = [], {}, None

    def see(self, place, weights, now):
        """Add what a layer attends to."""
        means = to_host(weights.mean(1)).astype(np.float32)  # n,Lq,Lk
        grid = now.grid(place.queries)
        with self.lock:
            if self.request is not now.request:
                self._begin(now)
            for picture, mean in zip(now.pictures, means):
                tokens = sum(len(positions) for _, positions in self.spelt[picture])
                sums = self.seen.setdefault((picture, now.step), {})
                total, count = sums.get(grid, (0, 0))
                sums[grid] = total + mean[:, 1 : 1 + tokens], count + 1

    def _begin(self, now):
        tokenizer = self.pipe.tokenizer
        self.spelt = [tokenizer.words(tokenizer.expand(prompt)) for prompt in now.request.prompts]
        self.request, self.seen, self.shape = now.request, {}, now.shape

    def words(self, picture=0):
        """The words of a picture's prompt, in their order, as the tokenizer splits them (CLIPTokenizer.words)."""
        self._require(picture)
        return [word for word, _ in self.spelt[picture]]

    @property
    def grids(self):
        """(height, width) of each size of feature map that attends to the words, the smallest first."""
        return sorted({grid for sums in self.seen.values() for grid in sums})

    def maps(self, picture=0, step=None, grids=None):
        """The map of every word of a picture's prompt -> (words, H, W) float32, H x W the picture's pixels.

        step    one step of the sampler, from 0; None for the mean of all
        grids   a list of those of `grids` to take; None for all. Each layer counts alike, scaled up bilinearly.

        UserError for a picture, a step or a grid that was not drawn.
        """
        self._require(picture)
        steps = {number: sums for (drawn, number), sums in self.seen.items() if drawn == picture}
        if step is not None and step not in steps:
            raise UserError(f"step {step}: {len(steps)} were taken, counted from 0")
        for grid in grids or ():
            if tuple(grid) not in self.grids:
                raise UserError(f"no feature map of {tuple(grid)} attends to words: there are {self.grids}")
        f = self.pipe.vae.downsampling
        total, layers = 0, 0
        for grid in self.grids if grids is None else map(tuple, grids):
            taken = [sums[grid] for number, sums in steps.items() if step in (None, number)]
            tokens = sum(one for one, _ in taken).T.reshape(-1, *grid)
            words = [tokens[positions.start - 1 : positions.stop - 1].sum(0) for _, positions in self.spelt[picture]]
            total = total + scaled_up(words, (self.shape[0] * f, self.shape[1] * f))
            layers += sum(count for _, count in taken)
        return total / max(1, layers)

    def map(self, word, picture=0, step=None, grids=None):
        """The map of a word, by its number in `words` or as it is spelt there -> (H, W) float32. Else as `maps`."""
        return self.maps(picture, step, grids)[word_number(self.words(picture), word)]

    def _require(self, picture):
        if self.request is None:
            raise UserError("no attention was seen: draw within `with watch_attention(pipe) as seen`")
        if not -1 < picture < len(self.spelt):
            raise UserError(f"picture {picture}: {len(self.spelt)} were drawn, counted from 0")


def word_number(words, word):
    """The number, from 0, of a word among others: by that number, or as it is spelt. UserError unless it is one."""
    if isinstance(word, str):
        found = [number for number, each in enumerate(words) if each == word]
        if len(found) != 1:
            raise UserError(f"{word!r} stands {len(found)} times among {words}: give the number of a word, from 0")
        word = found[0]
    if not -1 < word < len(words):
        raise UserError(f"word {word}: there are {len(words)}, counted from 0")
    return word


def scaled_up(maps, size):
    """Maps (h, w) -> (words, H, W), bilinearly."""
    height, width = size
    scaled = [np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.BILINEAR)) for one in maps]
    return np.stack(scaled) if scaled else np.zeros((0, height, width), np.float32)


@contextlib.contextmanager
def watch_attention(pipe):
    """Within it, what the pipeline draws is watched: `with watch_attention(pipe) as seen` gives AttentionMaps.

    It changes no bit of the pictures. They take longer, by the probabilities of each layer of cross-attention and step.
    Drawings of several pictures, by whatever sampler, will do; of several drawings the last one's maps are kept.
    UserError for a model that words do not lead.
    """
    if "text" not in pipe.kinds:
        raise UserError(f"attention maps are of words, and what leads the model is {'+'.join(pipe.kinds)}")
    with watch_drawings(pipe.unet, AttentionMaps(pipe)) as seen:
        yield seen
