"""The figures of all chapters: one style, in colours that colour-blind readers can tell apart.

Pictures in a grid, arrays as cells with their numbers, and diagrams of boxes and arrows; for curves, matplotlib as it
is. Forward is always BLUE, backward always RED.
"""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch, Rectangle

# Okabe and Ito's palette (2008).
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, RED, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, PALE = "#6E6E6E", "#EDEDED"
FORWARD, BACKWARD = BLUE, RED

WIDTH = 7.2  # inches: a notebook's column
MAP = "viridis"  # of a quantity without a sign
SIGNED_MAP = "PuOr"  # of one with a sign; white is zero

plt.rcParams.update({
    "figure.figsize": (WIDTH, 2.8),
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": plt.cycler(color=[BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK]),
    "grid.color": PALE,
    "legend.frameon": False,
    "image.cmap": MAP,
    "image.interpolation": "nearest",
    "lines.linewidth": 1.6,
})


def pictures(images, titles=(), columns=None, side=None, heading=None):
    """Show pictures (H, W, 3), uint8 or floats in [0, 1], or maps (H, W), row by row; titles stand above them.

    side: of a picture, in inches; by default as large as the column allows, 1.6 at most.
    """
    columns = columns or min(len(images), 8)
    rows = -(-len(images) // columns)
    side = side or min(1.6, WIDTH / columns)
    above = 0.17 * (1 + max((title.count("\n") for title in titles), default=0)) if len(titles) else 0.05
    size = columns * side, rows * (side + above) + (0.3 if heading else 0)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, title in zip(grid.flat, images, [*titles, *[""] * len(images)]):
        axes.imshow(image if np.ndim(image) == 2 or np.asarray(image).dtype == np.uint8 else np.clip(image, 0, 1))
        axes.set_title(title, fontsize=8, pad=2)
    if heading:
        figure.suptitle(heading, fontsize=9)
    plt.show()


def heat(axes, values, title="", signed=False, bar=True, **how):
    """Draw an array (H, W) as a map on `axes`, with its scale beside it; where it has a sign, white is zero."""
    largest = abs(np.asarray(values)).max()
    scale = {"cmap": SIGNED_MAP, "vmin": -largest, "vmax": largest} if signed else {}
    image = axes.imshow(values, **scale | how)
    axes.grid(False)
    axes.set_title(title)
    if bar:
        axes.figure.colorbar(image, ax=axes, fraction=0.046)
    return image


def diagram(height, width=WIDTH):
    """An empty sheet of that many inches -> its axes, measured in inches from the lower left corner."""
    figure = plt.figure(figsize=(width, height), layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return axes


def box(axes, x, y, text, width=0.9, height=0.5, colour=BLUE, filled=False, size=9):
    """A rounded box with its centre at (x, y)."""
    axes.add_patch(FancyBboxPatch(
        (x - width / 2 + 0.06, y - height / 2 + 0.06), width - 0.12, height - 0.12, boxstyle="round,pad=0.06",
        edgecolor=colour, facecolor=colour if filled else "white", linewidth=1.4, zorder=2,
    ))
    axes.text(x, y, text, ha="center", va="center", fontsize=size, color="white" if filled else BLACK, zorder=3)


def arrow(axes, start, end, text="", colour=BLACK, above=True, bend=0.0, size=8):
    """An arrow from start to end, (x, y) each, with its text above (or below) the middle; bend curves it."""
    axes.annotate("", end, start, zorder=1, arrowprops={
        "arrowstyle": "-|>", "color": colour, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0,
        "connectionstyle": f"arc3,rad={bend}",
    })
    if text:
        (x0, y0), (x1, y1) = start, end
        x, y = (x0 + x1) / 2 + bend * (y1 - y0) / 2, (y0 + y1) / 2 - bend * (x1 - x0) / 2
        axes.text(x, y + (0.05 if above else -0.05), text, ha="center", va="bottom" if above else "top",
                  fontsize=size, color=colour)


def note(axes, x, y, text, colour=BLACK, size=9, **how):
    """Text with its centre at (x, y)."""
    axes.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": size, "color": colour, **how})


def cells(axes, values, x=0.0, y=0.0, side=0.42, title="", form="{:g}", signed=False, colour=None, marked=(), size=8):
    """Draw an array (H, W) as cells with their numbers, its lower left corner at (x, y) of a `diagram`.

    Cells are tinted by value, or all in `colour`; those at the indices `marked` get a thick frame. form="" leaves the
    numbers out.
    """
    values = np.asarray(values)
    H, W = values.shape
    tint = _tints(values, signed) if colour is None else None
    for i in range(H):
        for j in range(W):
            corner = x + j * side, y + (H - 1 - i) * side
            face = colour or tint[i, j]
            axes.add_patch(Rectangle(corner, side, side, facecolor=face, edgecolor="white", linewidth=1, zorder=2))
            if form:
                dark = sum(weight * part for weight, part in zip((0.3, 0.6, 0.1), plt.matplotlib.colors.to_rgb(face)))
                axes.text(corner[0] + side / 2, corner[1] + side / 2, form.format(values[i, j]), ha="center",
                          va="center", fontsize=size, color="white" if dark < 0.5 else BLACK, zorder=4)
    for i, j in marked:
        axes.add_patch(Rectangle((x + j * side, y + (H - 1 - i) * side), side, side, fill=False, edgecolor=RED,
                                 linewidth=2, zorder=5))
    if title:
        axes.text(x + W * side / 2, y + H * side + 0.06, title, ha="center", va="bottom", fontsize=9)


def _tints(values, signed):
    values = values.astype(float)
    if signed:
        return plt.get_cmap(SIGNED_MAP)(0.5 + 0.45 * values / max(abs(values).max(), 1e-12))
    span = max(np.ptp(values), 1e-12)
    return plt.get_cmap("Blues")(0.1 + 0.6 * (values - values.min()) / span)
