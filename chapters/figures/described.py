"""Figures with words for those who do not see them: the alternative text travels with the picture in the notebook.

The text is the `alt` of the picture's metadata, where nbconvert reads it for its classic pages, and also the picture's
plain text, which a terminal shows in its place. (nbconvert's pages in JupyterLab's style leave it out, as of 7.17.)
"""

import base64
import io

import numpy as np
from IPython.display import display
from matplotlib import pyplot as plt

import figures

RIGHT, WRONG = "✓", "✗"


def show(alt):
    """Display the current figure as a PNG that carries the alternative text `alt`, and close it."""
    png = io.BytesIO()
    plt.gcf().savefig(png, format="png", bbox_inches="tight", pad_inches=0.05)
    plt.close()
    data = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": alt}
    display(data, raw=True, metadata={"image/png": {"alt": alt}})


def pictures(images, titles, alt, rows=("",), side=None, **how):
    """Show pictures (H, W, 3), uint8 or floats in [0, 1], or maps (H, W) in a grid, and say what they show in `alt`.

    titles   one above each picture, or one above each column
    rows     a label at the left of each row; as many rows as labels
    side     of a picture, in inches
    how      what matplotlib's imshow takes, the same for all maps
    """
    columns = len(images) // len(rows)
    label = 0.9 if any(rows) else 0.0
    side = side or min(1.5, (figures.WIDTH - label) / columns)
    above = 0.17 * (1 + max(title.count("\n") for title in titles))
    size = columns * side + label, len(rows) * (side + (above if len(titles) > columns else 0.06)) + above
    figure, grid = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
    for k, (axes, image) in enumerate(zip(grid.flat, images)):
        floats = np.ndim(image) == 3 and np.asarray(image).dtype != np.uint8
        axes.imshow(np.clip(image, 0, 1) if floats else image, **how)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if k < len(titles):
            axes.set_title(titles[k], fontsize=8, pad=2)
    for axes, text in zip(grid[:, 0], rows):
        axes.set_ylabel(text, fontsize=8, rotation=0, ha="right", va="center")
    show(alt)


def tinted(axes, values, x, y, side, title="", *, largest, form="{:.1f}", **how):
    """`figures.cells` of values with a sign, on the one scale from -largest to largest; white is zero."""
    colours = plt.get_cmap(figures.SIGNED_MAP)(0.5 + 0.45 * np.asarray(values) / largest)
    painted(axes, values, x, y, side, title, colours, form=form, **how)


def painted(axes, values, x, y, side, title, colours, **how):
    """`figures.cells` with a colour for each cell, colours[i][j]."""
    H, W = np.shape(values)
    for i, j in np.ndindex(H, W):
        corner, colour = (x + j * side, y + (H - 1 - i) * side), plt.matplotlib.colors.to_hex(colours[i][j])
        figures.cells(axes, [[values[i][j]]], *corner, side, colour=colour, **how)
    if title:
        figures.note(axes, x + W * side / 2, y + H * side + 0.14, title)
