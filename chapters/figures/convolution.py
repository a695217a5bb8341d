"""The figures of chapter 3: one call each, which draws it, shows it and says in words what there is to see."""

import numpy as np
from matplotlib import pyplot as plt

import figures
from figures.described import RIGHT, WRONG, painted, pictures, show, tinted

TAPS = (figures.BLUE, figures.SKY, figures.ORANGE)  # of three, in one dimension


def window(x, kernel, y):
    """A kernel, the part of the input under it, and the output that it gives there."""
    axes = figures.diagram(2.4)
    framed = [(i, j) for i in range(1, 4) for j in range(2, 5)]
    figures.cells(axes, x, 0.1, 0.1, 0.4, "input, 5 × 5", marked=framed)
    figures.note(axes, 2.4, 1.1, "⋆", size=28)
    figures.cells(axes, kernel, 2.75, 0.5, 0.4, "kernel, 3 × 3", signed=True)
    figures.note(axes, 4.3, 1.1, "=", size=16)
    figures.cells(axes, y, 4.7, 0.5, 0.4, "output, 3 × 3", signed=True, marked=[(1, 2)])
    show("A grid of 5 by 5 numbers with nine of them framed; a kernel of 3 by 3 numbers; and the output, a grid of "
         "3 by 3 numbers, in which the number 5 at the right of the middle row is framed.")


def filters(picture, maps):
    """A picture, and what some kernels find in it {name: map}; of edges, all on one scale."""
    _, grid = plt.subplots(1, 5, figsize=(figures.WIDTH, 2.0))
    grid[0].imshow(picture)
    grid[0].set_title("the picture")
    largest = max(abs(map_).max() for name, map_ in maps.items() if name != "blur")
    for axes, (name, map_) in zip(grid[1:], maps.items()):
        if name == "blur":
            axes.imshow(map_, cmap="gray", vmin=0, vmax=1)
            axes.set_title(name)
        else:
            edges = axes.imshow(map_, cmap=figures.SIGNED_MAP, vmin=-largest, vmax=largest)
            axes.set_title(name)
    for axes in grid:
        axes.axis("off")
    plt.colorbar(edges, ax=list(grid), fraction=0.02, ticks=(-1, 0, 1))
    show("A picture of a lion, and four maps of it. The blurred one is grey and soft. The second shows the upright "
         "outlines of the lion, the third the level ones, the fourth all outlines and points. In each map the frame "
         "of the picture stands out, too.")


def im2col(x, columns):
    """A picture, its patches as rows, and the matrix product that is the convolution."""
    axes = figures.diagram(3.4)
    figures.cells(axes, x, 0.2, 0.85, 0.42, "picture", marked=[(1, 1), (1, 2), (2, 1), (2, 2)])
    figures.arrow(axes, (2.05, 1.7), (2.65, 1.7), "im2col")
    figures.cells(axes, columns, 2.8, 0.05, 0.33, "patches, a row each", marked=[(4, j) for j in range(4)])
    figures.note(axes, 4.45, 1.55, "×", size=14)
    figures.cells(axes, [[0]] * 4, 4.75, 0.9, 0.33, "$W$", form="", colour=figures.ORANGE)
    figures.note(axes, 5.45, 1.55, "=", size=14)
    figures.cells(axes, [[0]] * 9, 5.8, 0.05, 0.33, "$y$", form="", colour=figures.PALE, marked=[(4, 0)])
    show("A picture of 4 by 4 numbers with a patch of 2 by 2 framed. Next to it nine rows of four numbers, the "
         "patches; the framed patch is the fifth row. The rows times a column of four weights give a column of nine "
         "outputs, of which the fifth is framed.")


def matrix(kernel):
    """A convolution in one dimension as a matrix, and its transpose."""
    axes = figures.diagram(2.6)
    M = np.array([[kernel[j - i] if 0 <= j - i < 3 else 0 for j in range(5)] for i in range(3)])
    colours = [[TAPS[j - i] if 0 <= j - i < 3 else figures.PALE for j in range(5)] for i in range(3)]
    texts = [[f"{M[i, j]:g}" if 0 <= j - i < 3 else "" for j in range(5)] for i in range(3)]
    form = "{}"
    painted(axes, texts, 0.35, 0.8, 0.38, "$G$, with $y = G x$", colours, form=form)
    transposed = [list(row) for row in zip(*texts)]
    painted(axes, transposed, 2.9, 0.42, 0.38, "$G^\\top$, with $dx = G^\\top dy$", list(zip(*colours)), form=form)
    for u in range(3):
        figures.cells(axes, [[kernel[u]]], 5.1, 1.75 - 0.5 * u, 0.38, colour=TAPS[u])
        figures.note(axes, 5.75, 1.94 - 0.5 * u, f"$W_{u}$", size=10)
    figures.note(axes, 1.3, 0.3, "each row reads $W_0\\,W_1\\,W_2$", figures.FORWARD)
    figures.note(axes, 3.5, 0.15, "its full row reads $W_2\\,W_1\\,W_0$", figures.BACKWARD)
    show("A matrix of three rows and five columns. Each row holds the three weights 1, 0, -2, one place further "
         "right than the row above. Its transpose has five rows; the middle one, the only full one, reads -2, 0, 1.")


def rotation():
    """The taps of one output over the inputs; the same, seen from one input."""
    axes = figures.diagram(2.75)
    taps = np.arange(9).reshape(3, 3)
    for left, values, title, below in (
        (0.5, taps, "one output (middle) and its nine inputs", "number: the tap that reads this input"),
        (4.1, taps[::-1, ::-1], "one input (middle) and its nine outputs", "number: the tap that reads the circle"),
    ):
        colours = [[figures.SKY] * 3 for _ in range(3)]
        colours[0][0] = figures.ORANGE
        painted(axes, values, left, 0.6, 0.55, title, colours, form="{:d}", size=11)
        axes.plot(left + 0.825, 0.6 + 0.825, "o", markersize=26, markerfacecolor="none", color=figures.BLACK, zorder=6)
        figures.note(axes, left + 0.825, 0.35, below, size=8)
    figures.note(axes, 1.3, 0.1, "forward", figures.FORWARD)
    figures.note(axes, 4.9, 0.1, "backward", figures.BACKWARD)
    show("Two grids of 3 by 3 cells. Left, the taps 0 to 8 in reading order: tap 0 is at the upper left. Right, the "
         "same numbers turned by 180 degrees: tap 8 is at the upper left.")


def strides(counts):
    """Through how many taps each pixel was seen: {padding: map}, and dy with zeros between its numbers."""
    _, grid = plt.subplots(1, 3, figsize=(figures.WIDTH, 2.5))
    for axes, (title, values) in zip(grid, counts.items()):
        figures.heat(axes, values, title, bar=False, vmin=1, vmax=4)
        for i, j in np.ndindex(8, 8):
            axes.text(j, i, f"{values[i, j]:.0f}", ha="center", va="center", fontsize=8,
                      color="white" if values[i, j] < 3 else "black")
    spread = np.zeros((8, 8))
    spread[::2, ::2] = 1
    figures.heat(grid[2], spread, "dy with zeros between\n(pale)", bar=False, cmap="Blues", vmax=2)
    for axes in grid:
        axes.set(xticks=(0, 3, 7), yticks=(0, 3, 7))
    show("Two maps of 8 by 8 numbers 1, 2 and 4 in a regular pattern. With a padding of one pixel all round, the "
         "fours stand at odd rows and columns; with padding at the right and bottom only, at even ones from 2 on. A "
         "third map has a number of dy at every second row and column and zeros between.")


def paddings(images, titles, rows):
    """Pictures, and what an autoencoder makes of them with the right and with another padding."""
    pictures(images, titles, "Three rows of four pictures. First the originals. Second the reconstructions, nearly "
             "the same. Third the reconstructions with the wrong padding: the things are moved to the lower right, "
             "and parts of them are cut off.", rows=rows, side=1.25)


def fields(maps):
    """How strongly one output depends on each pixel, by the number of layers: {layers: map}."""
    _, grid = plt.subplots(1, len(maps), figsize=(figures.WIDTH, 2.2))
    for axes, (depth, values) in zip(grid, maps.items()):
        side = np.count_nonzero(values[12])
        title = f"{depth} layer{'s' * (depth > 1)}: {side} × {side}"
        figures.heat(axes, np.sqrt(values / values.max()), title, bar=False)
        axes.set(xticks=(0, 12, 24), yticks=(0, 12, 24))
    show("Four maps of 25 by 25 pixels with a bright square in the middle that grows from 3 by 3 pixels with one "
         "layer to 17 by 17 with eight. The larger squares are brightest in the middle and fade towards their rim.")


def checkerboard(transposed, repeated):
    """A constant map, enlarged in two ways, on one scale."""
    _, grid = plt.subplots(1, 2, figsize=(5, 2.3))
    figures.heat(grid[0], transposed, "transposed convolution", bar=False, vmin=0, vmax=1)
    image = figures.heat(grid[1], repeated, "repeat, then convolve", bar=False, vmin=0, vmax=1)
    for axes in grid:
        axes.set(xticks=(0, 5, 11), yticks=(0, 5, 11))
    plt.colorbar(image, ax=list(grid), fraction=0.046, ticks=(0, 0.5, 1))
    show("Two maps of 12 by 12 pixels. The transposed convolution gives a checkerboard of dark and less dark "
         "squares. Repeat, then convolve, gives an even bright square with a darker rim of one pixel.")


def kernels(learned, secret):
    """The kernel after these numbers of steps {step: kernel}, and the secret one, on one scale."""
    axes = figures.diagram(1.75)
    titles = [*(f"step {step}" for step in learned), "the secret"]
    for k, (kernel, title) in enumerate(zip([*learned.values(), secret], titles)):
        tinted(axes, np.round(kernel, 1) + 0.0, 0.1 + 1.43 * k, 0.1, 0.43, title, largest=abs(secret).max())
    show("Five kernels of 3 by 3 numbers: all zeros at step 0; at step 10 negative at the upper left and positive "
         "at the lower right; at step 100 large in the middle and negative above it, with small numbers everywhere "
         "else; at step 1000 equal to the secret, which has 4 in the middle, -2 above it, -1 at its left and zeros "
         "elsewhere.")


def sharpened(images, names):
    """Blurred pictures, what the network makes of them, and the originals: three rows."""
    pictures(images, names, f"Three rows: {', '.join(names)}. Blurred: soft, each with a grey frame. Sharpened: "
             "with clear outlines and eyes, without the frame, a little softer than the originals. Below, the "
             "sharp originals.",
             rows=("blurred", "sharpened", "the picture"), side=1.2)


def losses(curves):
    """The loss of every step, with a backward that turns the kernel and with one that does not: {name: losses}."""
    _, axes = plt.subplots(figsize=(figures.WIDTH, 2.5))
    for (name, curve), style in zip(curves.items(), ["-", "--"]):
        axes.loglog(np.arange(1, len(curve) + 1), curve, style, label=name)
    axes.set(xlabel="step", ylabel="loss L")
    axes.set_yticks((0.01, 0.02, 0.04), ("0.01", "0.02", "0.04"))
    axes.yaxis.set_minor_formatter("")
    axes.legend()
    show("Two curves of the loss over 1000 steps. They run together for about a hundred steps; then the one whose "
         "backward does not turn the kernel stays higher.")


def drawings(images, titles, right):
    """Pictures drawn with the library's convolution and with another, marked ✓ where they are the library's."""
    marks = [RIGHT if one else WRONG for one in right]
    pictures(images, [f"{mark} {title}" for mark, title in zip(marks, titles)], "The same red apple twice, drawn "
             "with the library's convolution and with this chapter's; there is no difference to see.", side=1.5)
