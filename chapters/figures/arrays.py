"""The figures of chapter 1: one call each, which draws it, shows it and says in words what there is to see."""

import textwrap

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

import figures
from figures.described import RIGHT, WRONG, painted, pictures, show, tinted


def drawn(images, prompts):
    """Pictures (N, H, W, 3) with their captions."""
    pictures(images, prompts, f"{len(images)} small pictures, drawn by the emoji model: {', '.join(prompts)}.")


def followed(images, prompts, right):
    """Pictures of shapes with their captions, marked right or wrong."""
    marks = [RIGHT if one else WRONG for one in right]
    titles = [f"{mark} " + textwrap.fill(prompt, 24) for mark, prompt in zip(marks, prompts)]
    words = "; ".join(f"{prompt}: {'right' if one else 'wrong'}" for prompt, one in zip(prompts, right))
    pictures(images, titles, f"Pictures of two shapes each, drawn from captions. {words}.")


def journey():
    """From a caption to a picture: the parts of the model and the arrays between them."""
    axes = figures.diagram(3.2)
    top, low = 2.7, 1.3
    figures.note(axes, 0.45, top, '"red apple"')
    figures.box(axes, 1.55, top, "tokenizer", 0.95, 0.55)
    figures.box(axes, 3.1, top, "text encoder\n$\\tau_\\theta$", 1.1, 0.55)
    figures.arrow(axes, (0.87, top), (1.08, top))
    figures.arrow(axes, (2.03, top), (2.55, top), "tokens")
    figures.note(axes, 2.29, top - 0.17, "(N, L)", size=8)
    figures.arrow(axes, (3.1, top - 0.28), (3.1, low + 0.36))
    figures.note(axes, 3.72, 1.98, "context (N, L, D)", size=8)
    figures.note(axes, 1.85, 2.05, "timestep $t$", size=8)
    figures.arrow(axes, (1.85, 1.95), (2.1, low + 0.36))

    figures.note(axes, 0.4, low, "noise")
    figures.arrow(axes, (0.75, low), (1.68, low), "(N, h, w, c)")
    figures.box(axes, 2.55, low, "U-Net $\\epsilon_\\theta$: how much\nof $z_t$ is noise?", 1.7, 0.7)
    figures.arrow(axes, (3.42, low), (3.9, low), "$\\hat\\epsilon$", size=10)
    figures.box(axes, 4.5, low, "sampler: takes\na part of it off", 1.15, 0.7)
    figures.arrow(axes, (4.3, low - 0.36), (2.75, low - 0.36), "", figures.BLACK, bend=-0.35)
    figures.note(axes, 3.55, 0.3, "the next $z_t$, with a little less noise: 20 times round", size=8)
    figures.arrow(axes, (5.1, low), (5.72, low), "$z$ after\nthe last", size=8)
    figures.box(axes, 6.2, low, "decoder\n$\\mathcal{D}$", 0.85, 0.7)
    figures.arrow(axes, (6.2, low + 0.36), (6.2, top - 0.22))
    figures.note(axes, 6.2, top, "picture\n(N, H, W, 3)")
    show("A diagram. The caption goes through the tokenizer and the text encoder and becomes the context. The U-Net "
         "gets noisy latents, the context and the timestep, and predicts the noise. The sampler takes a part of "
         "that noise off and hands the latents back to the U-Net, 20 times round. What it has at the end goes to "
         "the decoder, which gives the picture.")


def on_the_way(images, steps):
    """One drawing, decoded after these numbers of steps."""
    titles = [f"after {k}" if k else "after 0 steps" for k in steps]
    pictures(images, titles, "One drawing, decoded after more and more steps: coloured specks without any form at "
             "first, then a red apple full of specks, then a smooth one with a leaf.")


def moves(rocket):
    """What indexing makes of a picture (H, W, 3)."""
    shown = {
        "rocket": rocket, "[:, ::-1]": rocket[:, ::-1], "[4:20, 8:28]": rocket[4:20, 8:28],
        "[:, :, 0]": rocket[:, :, 0], ".transpose(1, 0, 2)": rocket.transpose(1, 0, 2), "255 - rocket": 255 - rocket,
    }
    pictures(list(shown.values()), list(shown), "A picture of a rocket; mirrored; cut out; its red channel alone, in "
             "false colours; with rows and columns exchanged; and with every number taken from 255, as a negative.")


def broadcasting():
    """(3, 1) + (4,): the shapes aligned at the right, what is repeated in pale, and the sum."""
    axes = figures.diagram(1.75)
    a, b = np.array([[0], [10], [20]]), np.array([[1, 2, 3, 4]])
    side, bottom = 0.34, 0.35
    for row, texts in enumerate((("", "rows", "columns"), ("a", "3", "1"), ("b", "", "4"), ("a + b", "3", "4"))):
        for x, text in zip((0.25, 0.75, 1.3), texts):
            figures.note(axes, x, 1.5 - 0.3 * row, text, size=8 if row == 0 else 10)
    axes.plot((0.05, 1.6), (0.75, 0.75), color=figures.BLACK, linewidth=0.8)
    for x, values, own, name in ((1.9, a + 0 * b, (3, 1), "a"), (3.75, b + 0 * a, (1, 4), "b"),
                                 (5.6, a + b, (3, 4), "a + b")):
        colours = [[figures.SKY if i < own[0] and j < own[1] else figures.PALE for j in range(4)] for i in range(3)]
        painted(axes, values, x, bottom, side, name, colours)
        height, width = own[0] * side, own[1] * side
        axes.add_patch(Rectangle((x, bottom + 3 * side - height), width, height, fill=False, zorder=6))
    figures.note(axes, 3.5, bottom + 1.5 * side, "+", size=14)
    figures.note(axes, 5.36, bottom + 1.5 * side, "=", size=14)
    figures.note(axes, 4.1, 0.15, "pale: repeated, without being copied", size=8, color=figures.GREY)
    show("The shapes (3, 1) and (4,) written above each other, aligned at the right. The column of three numbers is "
         "repeated four times to the right, the row of four numbers three times downwards, and both are added place by "
         "place to an array of shape (3, 4).")


def scaled(dimmed, tinted_batch):
    """Two pictures times a number each, and times a number for each channel."""
    pictures([*dimmed, *tinted_batch], ["× 0.3", "× 1.0", "× tint", "× tint"], "The rocket four times: darkened to "
             "0.3, unchanged, and twice in an orange tint that leaves red as it is and takes most of the blue away.",
             side=1.2)


def seeds(images, titles):
    """Pictures of three seeds together, and one of them alone."""
    pictures(images, titles, "Three pictures drawn together with the seeds 7, 8 and 9, and a fourth drawn alone "
             "with the seed 8, which is the same as the second.")


def clocks(embedding, similarity):
    """The embedding (timesteps, numbers) of the first timesteps, and how alike two are: {timestep: a curve}."""
    _, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.7), width_ratios=(3, 2))
    figures.heat(left, embedding.T, "emb(t): a column for each timestep", signed=True, aspect="auto")
    left.set(xlabel="timestep t", ylabel="32 cosines, then 32 sines", yticks=range(0, 65, 16))
    for centre, curve in similarity.items():
        right.plot(curve, label=f"$t_2$ = {centre}")
    right.set(title="emb($t_1$) · emb($t_2$)", xlabel="timestep $t_1$", ylim=(0, 42), xticks=range(0, 1001, 250))
    right.legend(loc="upper right")
    show("Left, the embeddings of the timesteps 0 to 100 as columns of colours: quick waves in the upper rows of "
         "each half, slow ones in the lower. Right, the dot product of all embeddings with that of timestep 200 and "
         "of timestep 500: the same curve with a sharp peak, once around 200 and once around 500.")


def table_gradient(dy, ids, dtable):
    """The gradients of the looked-up rows, and the table's, on one scale."""
    axes = figures.diagram(2.95)
    largest = max(abs(dy).max(), abs(dtable).max())
    tinted(axes, dy, 0.9, 1.0, 0.42, "dy: of the rows that were looked up", largest=largest)
    for k, i in enumerate(ids):
        figures.note(axes, 0.55, 2.05 - 0.42 * k, f"id {i}")
    figures.arrow(axes, (3.2, 1.6), (4.1, 1.6), "backward", figures.BACKWARD)
    tinted(axes, dtable, 4.7, 0.15, 0.42, "gradient of the table", largest=largest)
    for i in range(len(dtable)):
        figures.note(axes, 4.4, 0.15 + 0.42 * (5 - i) + 0.21, f"row {i}", size=8)
    show("Left, three rows of numbers, for the ids 4, 1 and 4. Right, the gradient of a table of six rows: row 1 is "
         "the second of the three, row 4 is the sum of the first and the third, and all other rows are zero.")


def decoded(images):
    """What the decoder makes of latents that are no picture's."""
    pictures(images, ["all zero", "noise", "noise × 10"], "Three decoded pictures. Zeros give a pale grid of "
             "stripes. Noise gives coloured specks and blots. Noise ten times as large gives the same blots in "
             "harder colours.")
