"""The figures of chapter 4: one call each, which draws it, shows it and says in words what there is to see."""

import numpy as np
from matplotlib import pyplot as plt

import figures
from figures.described import RIGHT, WRONG, painted, pictures, show


def lookup(query, keys, scores, weights, values, result):
    """A query compared with keys; the weights; and the mixture of values."""
    axes = figures.diagram(2.35)
    side, bottom = 0.38, 0.35
    figures.cells(axes, query, 0.15, bottom + 0.6, side, "query", form="{:.1f}", signed=True)
    figures.cells(axes, keys, 1.3, bottom, side, "keys", form="{:.1f}", signed=True)
    figures.arrow(axes, (2.15, 1.1), (2.6, 1.1))
    figures.cells(axes, scores, 2.7, bottom, side, "scores", form="{:.1f}", signed=True)
    figures.arrow(axes, (3.15, 1.1), (3.75, 1.1), "softmax")
    figures.cells(axes, weights, 3.85, bottom, side, "weights", form="{:.2f}")
    figures.note(axes, 4.4, 1.1, "×", size=13)
    figures.cells(axes, values, 4.6, bottom, side, "values")
    figures.arrow(axes, (5.8, 1.1), (6.0, 1.1))
    figures.cells(axes, result, 6.03, bottom + 0.6, side, "result", form="{:.1f}")
    figures.note(axes, 2.2, 0.12, "the dot product of the query with each key", size=8)
    figures.note(axes, 5.3, 0.12, "the mean of the values, with these weights", size=8)
    show("A query of two numbers is compared with four keys, which gives four scores, 2.2, 1.2, -1.4 and 0.9. "
         "Softmax makes weights of them: 0.60, 0.22, 0.02 and 0.16. The values, four rows of three numbers, are "
         "added up with these weights and give a result of three numbers.")


def scales(widths, largest, gradients):
    """The largest weight, and the gradient through the softmax, over the width {name: values}."""
    _, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.6))
    for (name, weights), style, colour in zip(largest.items(), ("o-", "s--"), (figures.BLUE, figures.RED)):
        left.semilogx(widths, weights, style, base=2, color=colour, label=name)
        right.loglog(widths, gradients[name], style, base=2, color=colour, label=name)
    left.set(xlabel="width d", title="largest of 16 weights", ylim=(0, 1.05))
    right.set(xlabel="width d", title="mean size of the gradient of the scores")
    right.set_yticks([0.005, 0.01, 0.02, 0.04], ["0.005", "0.01", "0.02", "0.04"])
    right.legend(loc="lower left")
    show("Two curves each over the width d from 4 to 1024. With the division by the root of d, the largest weight "
         "stays near a quarter, and the gradient stays as it is. Without the division, the largest weight rises to "
         "nearly 1, and the gradient falls to a small part.")


def heads(tokens, split, torn):
    """Tokens, split into two heads rightly and wrongly."""
    axes = figures.diagram(2.0)
    side, bottom = 0.34, 0.55

    def coloured(array, x, title):
        colours = [[(figures.SKY, figures.ORANGE)[value % 10 // 2] for value in row] for row in array]
        painted(axes, array, x, bottom, side, title, colours, form="{:02d}")

    coloured(tokens, 0.2, "3 tokens of width 4")
    for x, array, title in ((2.35, split[0], "head 0"), (3.25, split[1], "head 1"), (5.0, torn[0], "head 0?"),
                            (5.9, torn[1], "head 1?")):
        coloured(array, x, title)
    figures.note(axes, 3.1, 0.3, f"{RIGHT} each token is in both heads", figures.FORWARD, 8)
    figures.note(axes, 5.8, 0.3, f"{WRONG} reshape(2, 3, 2): tokens torn apart", figures.BACKWARD, 8)
    show("Three tokens of four numbers each. Split rightly, head 0 holds the first two numbers of each token and "
         "head 1 the last two. Split by a single reshape, head 0 holds all of token 0 and half of token 1.")


def mask(scores, mask, weights):
    """Scores, the causal mask, and the weights that come out."""
    _, grid = plt.subplots(1, 3, figsize=(figures.WIDTH, 2.4))
    figures.heat(grid[0], scores, "scores", signed=True)
    masked = np.where(mask == 0, 0.0, 1.0)
    figures.heat(grid[1], masked, "mask: 0 (white), -∞ (dark)", bar=False, cmap="Greys", vmax=1.4)
    figures.heat(grid[2], weights, "weights", cmap="Blues", vmin=0, vmax=1)
    for axes in grid:
        axes.set(xlabel="key", xticks=range(6), yticks=range(6))
    grid[0].set_ylabel("query")
    show("Three maps of 6 queries by 6 keys. Scores of both signs everywhere. The mask: zero on and below the "
         "diagonal, minus infinity above it. The weights: zero above the diagonal; query 0 gives all its weight to "
         "key 0, and each later query spreads its weight over the keys up to itself.")


def kinds():
    """Where queries, keys and values come from, in self- and in cross-attention; and W_O behind both."""
    axes = figures.diagram(2.75)
    for left, title, source in ((0.05, "self-attention", "x"), (3.7, "cross-attention", "context")):
        figures.note(axes, left + 1.7, 2.6, title)
        figures.box(axes, left + 0.4, 1.8, "$x$", 0.6, 0.4, figures.GREY)
        if source == "context":
            figures.box(axes, left + 0.4, 0.8, "context", 0.75, 0.4, figures.GREY)
        for i, (name, y) in enumerate((("Q", 2.1), ("K", 1.35), ("V", 0.65))):
            figures.box(axes, left + 1.6, y, f"${name}$", 0.45, 0.4)
            start = (left + 0.7, 1.8) if source == "x" or i == 0 else (left + 0.78, 0.8)
            figures.arrow(axes, start, (left + 1.37, y), "", figures.FORWARD)
            figures.note(axes, left + 1.6, y + 0.29, f"$W_{name}$", size=8)
            figures.arrow(axes, (left + 1.83, y), (left + 2.1, 1.4), "", figures.FORWARD)
        figures.box(axes, left + 2.4, 1.4, "attend", 0.6, 0.45, size=8)
        figures.arrow(axes, (left + 2.7, 1.4), (left + 2.95, 1.4), "$h$", figures.FORWARD, size=9)
        figures.box(axes, left + 3.2, 1.4, "$W_O$", 0.5, 0.45)
        words = {"x": "dx is the sum of three gradients", "context": "dx has one part, the gradient of the context two"}
        figures.note(axes, left + 1.7, 0.15, words[source], figures.BACKWARD, 8)
    show("Two diagrams. In self-attention, x goes through the matrices W_Q, W_K and W_V to the queries, keys and "
         "values. In cross-attention, x goes to the queries, and the context to the keys and values. In both, "
         "attention gives h, and h goes through the matrix W_O to the output.")


def word_maps(picture, tokens, maps):
    """A drawn picture, and for each token a map (h, w) of where it was looked at, all on one scale."""
    figure, grid = plt.subplots(2, 8, figsize=(figures.WIDTH, 2.5))
    grid.flat[0].imshow(np.clip(picture, 0, 1))
    grid.flat[0].set_title("drawn", fontsize=8)
    shares = [f"{token} {map_.mean():.0%}" for token, map_ in zip(tokens, maps)]
    for axes, map_, share in zip(grid.flat[1:], maps, shares):
        image = figures.heat(axes, map_, "", bar=False, cmap="Blues", vmin=0, vmax=np.max(maps))
        axes.set_title(share.replace(" ", "\n"), fontsize=8, pad=2)
    for axes in grid.flat:
        axes.axis("off")
    figure.colorbar(image, ax=list(grid.flat), fraction=0.02, ticks=(0, 0.1, 0.2, 0.3))
    show("A drawn picture, a red circle above a blue square, and a map of 4 by 4 places for each token of its "
         f"caption, all on one scale. The share of all weight that each token gets: {', '.join(shares)}.")


def looking(before, after, asked, right, chance):
    """Where each question looks, before and after training; and the share of right answers over the steps."""
    _, grid = plt.subplots(1, 3, figsize=(figures.WIDTH, 2.7), width_ratios=(1, 1.15, 1.3))
    for axes, weights, title in zip(grid, (before, after), ("before", "after")):
        figures.heat(axes, weights, f"weights, {title}", bar=title == "after", cmap="Blues", vmin=0, vmax=1)
        axes.plot(asked, range(len(asked)), "s", markerfacecolor="none", markeredgecolor=figures.RED, markersize=8)
        axes.set(xlabel="thing", ylabel="question", xticks=range(0, 8, 2), yticks=range(0, len(asked), 2))
    smooth = np.convolve(right, np.ones(10) / 10, "valid")
    grid[2].plot(np.arange(len(smooth)) + 10, smooth)
    grid[2].axhline(chance, linestyle="--", color=figures.GREY)
    grid[2].text(len(right) - 5, chance + 0.02, "chance", ha="right", fontsize=8, color=figures.GREY)
    grid[2].set(xlabel="step", title="share of right answers", ylim=(0, 1.05))
    show("Left, weights of twelve questions over eight things before the training: pale everywhere. Middle, after "
         "it: each question has one dark square, inside the red frame that marks the thing it asks for. Right, the "
         "share of right answers rises from chance, one in eight, to all.")


def losses(runs, guessing):
    """The loss of every step, with scores of different size: {name: several runs, each its losses}."""
    _, axes = plt.subplots(figsize=(figures.WIDTH, 2.5))
    colours = figures.BLUE, figures.RED, figures.GREEN
    for (name, several), style, colour in zip(runs.items(), ("-", "--", ":"), colours):
        for k, run in enumerate(several):
            axes.plot(run, style, color=colour, linewidth=1, label=None if k else name)
    axes.axhline(guessing, color=figures.GREY, linewidth=0.8)
    axes.text(len(run) - 5, guessing + 0.1, "guessing", ha="right", fontsize=8, color=figures.GREY)
    axes.set(xlabel="step", ylabel="loss L", ylim=(0, None))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    show("Curves of the loss, three for each size of the scores. With scores divided by the root of d, and with "
         "scores that are not divided, the loss falls to nearly zero within the first hundred steps or so. With "
         "scores 16 times as large again it falls slowly and unevenly, and stays far from zero.")


def drawings(images, titles, right):
    """Pictures drawn with the library's attention and with another, marked ✓ where they are the library's."""
    marks = [RIGHT if one else WRONG for one in right]
    pictures(images, [f"{mark} {title}" for mark, title in zip(marks, titles)], "The same red apple twice, drawn "
             "with the library's attention and with this chapter's; there is no difference to see.", side=1.5)
