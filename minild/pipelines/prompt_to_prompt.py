"""Prompt-to-prompt: a picture drawn from a changed prompt, with the attention of the first (Hertz et al. 2022).

Source and target are drawn together, from the same noise: rows 0 and 1 of one batch. At each layer and step the target
takes over what the source's places attend to, so that things stay where they are (arXiv 2208.01626, section 3.2):

    control = prompt_to_prompt(pipe.tokenizer, source, target)
    request = requested(pipe, [source, target], seed=[seed, seed])
    with watch_drawings(pipe.unet, control):
        before, after = draw_pictures(pipe, request, at_once=2)

Latents that an inversion gave, twice, do in the noise's place: editing.py has both. (Rows that are drawn one by one can
carry nothing over: ValueError.)
"""

import math
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from minild.backend import device_of, get_array_module, to_device
from minild.errors import UserError
from minild.pipelines.attention_maps import word_number
from minild.pipelines.watching import Watcher

LARGEST_SELF = 16 * 16  # places of a feature map up to which self-attention, too, is carried over


class Alignment(NamedTuple):
    """What the target's tokens take of the source's: P_target <- P_source matrix + P_target · own."""

    matrix: Any  # (L, L): how much of each source token's probability, a row, each target token takes, a column
    own: Any  # (L,): 1 for the target tokens that keep their own probability, 0 for others


def word_swap(tokenizer, source, target):
    """The Alignment of two prompts of as many words, each of which takes the place of the one at its place.

    A word of another number of tokens shares out equally what the first had: nothing is lost. UserError for prompts of
    different numbers of words.
    """
    words, others = _words(tokenizer, source), _words(tokenizer, target)
    if len(words) != len(others):
        raise UserError(
            f"a word swap needs as many words before and after, got {len(words)} and {len(others)}: use refine"
        )
    matrix = _ends(tokenizer, words, others)
    for (_, before), (_, after) in zip(words, others):
        alike = len(before) == len(after)
        matrix[before.start : before.stop, after.start : after.stop] = np.eye(len(before)) if alike else 1 / len(after)
    lost = matrix.sum(axis=1) == 0  # what pads the source beyond the target's length
    matrix[lost, -1] = 1
    return Alignment(matrix, np.zeros(tokenizer.max_length, np.float32))


def refine(tokenizer, source, target):
    """The Alignment of a prompt with one to which words were added, or of which some were changed or left out.

    The words of their longest common subsequence keep the source's probabilities, the others their own. The sum over
    all tokens is then no longer 1, as in the paper.
    """
    words, others = _words(tokenizer, source), _words(tokenizer, target)
    matrix = _ends(tokenizer, words, others)
    for i, j in common_subsequence([word for word, _ in words], [word for word, _ in others]):
        for s, t in zip(words[i][1], others[j][1]):
            matrix[s, t] = 1
    return Alignment(matrix, (matrix.sum(axis=0) == 0).astype(np.float32))


def reweight(tokenizer, prompt, scales):
    """What each token's probability is multiplied by, (L,): scales is {word: factor}, all others 1.

    A word goes by its spelling or by its number from 0; a factor may be negative (the paper, section 3.2, has -2 to 2).
    UserError for a word that is not there or stands twice, and for a factor that is no finite number.
    """
    words, factors = _words(tokenizer, prompt), np.ones(tokenizer.max_length, np.float32)
    for word, factor in scales.items():
        if not isinstance(factor, Real) or not math.isfinite(factor):
            raise UserError(f"the scale of {word!r} must be a finite number, got {factor!r}")
        positions = words[word_number([each for each, _ in words], word)][1]
        factors[positions.start : positions.stop] = factor
    return factors


def changed_words(tokenizer, source, target):
    """The token positions of the words in which two prompts differ -> (L,) booleans of the source, and of the target.

    They are those that are not in the longest common subsequence of the words.
    """
    words, others = _words(tokenizer, source), _words(tokenizer, target)
    kept = common_subsequence([word for word, _ in words], [word for word, _ in others])
    changed = np.zeros((2, tokenizer.max_length), bool)
    for row, of_prompt, same in zip(changed, (words, others), zip(*kept) if kept else ((), ())):
        for number, (_, positions) in enumerate(of_prompt):
            row[positions.start : positions.stop] = number not in same
    return changed


def _words(tokenizer, prompt):
    return tokenizer.words(tokenizer.expand(prompt))


def _ends(tokenizer, words, others):
    """(L, L) in which the begin takes of the begin, and the end and its padding, in order, of these."""
    L = tokenizer.max_length
    matrix = np.zeros((L, L), np.float32)
    matrix[0, 0] = 1
    end, other_end = (1 + sum(len(positions) for _, positions in each) for each in (words, others))
    for s, t in zip(range(end, L), range(other_end, L)):
        matrix[s, t] = 1
    return matrix


def common_subsequence(first, second):
    """The longest common subsequence of two lists: [(i, j), ...] with first[i] == second[j], both rising.

    Of several as long, the one whose next pair stands earliest in `first`.
    """
    longest = np.zeros((len(first) + 1, len(second) + 1), int)  # of first[i:] and second[j:]
    for i in reversed(range(len(first))):
        for j in reversed(range(len(second))):
            skipping = max(longest[i + 1, j], longest[i, j + 1])
            longest[i, j] = 1 + longest[i + 1, j + 1] if first[i] == second[j] else skipping
    pairs, i, j = [], 0, 0
    while longest[i, j]:
        if first[i] == second[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif longest[i, j + 1] == longest[i, j]:
            j += 1
        else:
            i += 1
    return pairs


class PromptToPrompt(Watcher):
    """Carries attention from row 0 of what is drawn, the source, over to all rows after it.

    alignment            how cross-attention is carried over
    scales               (L,) by `reweight`, multiplied after that; None for none
    cross_replace_steps  the share of the steps, the first, in which cross-attention is carried over, 0 to 1
    self_replace_steps   that of self-attention, of feature maps of at most LARGEST_SELF places

    More of either keeps more of the source's layout, and follows the target's words less. UserError for other shares.
    """

    def __init__(self, alignment, scales=None, cross_replace_steps=0.8, self_replace_steps=0.4):
        shares = {"cross_replace_steps": cross_replace_steps, "self_replace_steps": self_replace_steps}
        for name, share in shares.items():
            if not isinstance(share, Real) or not 0 <= share <= 1:
                raise UserError(f"{name} must be a share of the steps, from 0 to 1, got {share!r}")
        self.alignment, self.scales = alignment, scales
        self.cross_replace_steps, self.self_replace_steps = cross_replace_steps, self_replace_steps

    def wants(self, place):
        """Cross-attention, and self-attention of few places."""
        return place.cross or place.queries <= LARGEST_SELF

    def see(self, place, weights, now):
        """What the rows take over of the first."""
        if len(now.pictures) < 2:
            raise ValueError("prompt-to-prompt: source and target must be drawn together, at_once=2")
        share = self.cross_replace_steps if place.cross else self.self_replace_steps
        if now.step >= round(share * now.request.steps):
            return None
        xp = get_array_module(weights)
        source, target = weights[:1], weights[1:]
        carried = self._carried(source, target) if place.cross else xp.broadcast_to(source, target.shape)
        return xp.concatenate([source, carried])

    def _carried(self, source, target):
        """(1, heads, Lq, L) and (n, heads, Lq, L) -> the target's, (n, heads, Lq, L)."""
        matrix, own, *scales = (
            to_device(part.astype(target.dtype), device_of(target))
            for part in (*self.alignment, self.scales)
            if part is not None
        )
        carried = source @ matrix + target * own
        return carried * scales[0] if scales else carried


def prompt_to_prompt(
    tokenizer, source, target, way=None, scales=None, cross_replace_steps=0.8, self_replace_steps=0.4
):
    """The PromptToPrompt of two prompts, to draw within `watch_drawings`.

    way      "swap" or "refine"; None for a swap where they have as many words, else refine
    scales   {word of the target: factor}, see `reweight`; with source and target alike, the paper's re-weighting

    UserError for what cannot be used.
    """
    ways = {"swap": word_swap, "refine": refine}
    if way is None:
        way = "swap" if len(_words(tokenizer, source)) == len(_words(tokenizer, target)) else "refine"
    if way not in ways:
        raise UserError(f"unknown way {way!r} to carry attention over: use one of {', '.join(ways)}")
    factors = reweight(tokenizer, target, scales) if scales else None
    return PromptToPrompt(ways[way](tokenizer, source, target), factors, cross_replace_steps, self_replace_steps)
