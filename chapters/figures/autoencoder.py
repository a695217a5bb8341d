"""The figures of chapter 5: one call each, which draws it, shows it and says in words what there is to see."""

import numpy as np
from matplotlib import pyplot as plt

import figures
from figures.described import RIGHT, WRONG, pictures, show


def sizes():
    """The arrays on the way from a picture to its latents and back."""
    axes = figures.diagram(2.4)
    stages = [("$x$", 32, 3), ("", 32, 16), ("", 16, 32), ("", 8, 64), ("$z$", 8, 4), ("", 8, 64), ("", 16, 32),
              ("", 32, 16), ("$\\hat x$", 32, 3)]
    x, middle = 0.12, 1.25
    for k, (name, side, channels) in enumerate(stages):
        height, width = 0.045 * side, 0.12 + 0.008 * channels
        colour = figures.ORANGE if name == "$z$" else figures.SKY if name else figures.PALE
        axes.add_patch(plt.Rectangle((x, middle - height / 2), width, height, facecolor=colour, edgecolor="grey"))
        figures.note(axes, x + width / 2, 0.24, f"{side}×{side}\n×{channels}", size=8)
        if name:
            figures.note(axes, x + width / 2, middle + height / 2 + 0.14, name, size=11)
        if k == 1:
            figures.note(axes, x + 0.95, 2.27, "encoder $\\mathcal{E}$", figures.FORWARD)
        if k == 6:
            figures.note(axes, x + 0.65, 2.27, "decoder $\\mathcal{D}$", figures.FORWARD)
        if k < len(stages) - 1:
            figures.arrow(axes, (x + width + 0.04, middle), (x + width + 0.36, middle))
        x += width + 0.4
    show("Nine boxes in a row, connected by arrows. The picture x, 32 by 32 pixels of 3 channels, passes through "
         "arrays of 32 by 32 by 16, 16 by 16 by 32 and 8 by 8 by 64 numbers to the latents z, 8 by 8 by 4. This is the "
         "encoder. The decoder goes through the same sizes in the opposite order to the reconstruction x̂, as large as "
         "x.")


def residual_block():
    """A residual block: six layers, and the shortcut around them."""
    axes = figures.diagram(2.4)
    names = ["group\nnorm", "SiLU", "conv\n3 × 3", "group\nnorm", "SiLU", "conv\n3 × 3"]
    places = [1.15 + 0.86 * k for k in range(6)]
    for name, x in zip(names, places):
        figures.box(axes, x, 1.2, name, 0.68, 0.55, size=8)
    figures.note(axes, 0.2, 1.2, "$x$", size=11)
    figures.note(axes, 6.35, 1.2, "+", size=15)
    figures.note(axes, 6.95, 1.2, "$y$", size=11)
    ends = [0.35, *[x + 0.34 for x in places], 6.45]
    starts = [*[x - 0.34 for x in places], 6.22, 6.82]
    for a, b in zip(ends, starts):
        figures.arrow(axes, (a, 1.25), (b, 1.25), "", figures.FORWARD)
        figures.arrow(axes, (b, 1.13), (a, 1.13), "", figures.BACKWARD)
    figures.arrow(axes, (0.2, 1.4), (6.35, 1.4), "", figures.FORWARD, bend=-0.2)
    figures.arrow(axes, (6.35, 1.0), (0.2, 1.0), "", figures.BACKWARD, bend=-0.2)
    figures.note(axes, 3.3, 2.24, "the shortcut: x is added as it is", figures.FORWARD, 8)
    figures.note(axes, 3.3, 0.14, "its gradient is dy, unchanged", figures.BACKWARD, 8)
    show("A chain of six boxes from x to y: group norm, SiLU, convolution, and the same three again. A blue arrow, the "
         "shortcut, goes from x around all six to a plus sign before y. Red arrows show the gradient: it comes back "
         "through the six boxes, and also along the shortcut, where nothing changes it.")


def norms():
    """Which numbers share a mean and a variance, in three normalisations."""
    axes = figures.diagram(1.75)
    colours = [figures.SKY, figures.ORANGE, figures.GREEN, figures.PURPLE]
    for left, title, rule in (
        (0.5, "batch norm", lambda n, channel: channel), (2.8, "one group", lambda n, channel: n),
        (5.1, "group norm, two groups", lambda n, channel: n * 2 + channel // 2),
    ):
        for n in range(2):
            for channel in range(4):
                corner = left + 0.42 * channel, 0.4 + 0.42 * (1 - n)
                figures.cells(axes, [["ABCD"[rule(n, channel)]]], *corner, 0.42, form="{}",
                              colour=colours[rule(n, channel)])
        figures.note(axes, left + 0.84, 1.45, title)
        figures.note(axes, left + 0.84, 0.2, "4 channels", size=8)
    figures.note(axes, 0.22, 1.03, "picture 1", size=8)
    figures.note(axes, 0.22, 0.61, "picture 2", size=8)
    show("Three tables of 2 pictures by 4 channels; cells with the same letter share a mean and a variance. Batch "
         "norm: each column has a letter, so both pictures share it. One group: each row has a letter. Group norm with "
         "two groups: each half row has a letter, so no picture shares anything with another.")


def three_paths():
    """How a change of one input reaches the normalised values of its group."""
    axes = figures.diagram(2.5)
    start, mean, variance, end = (0.6, 1.25), (3.0, 1.25), (3.0, 0.4), (6.4, 1.25)
    figures.box(axes, *start, "$x_i$", 0.7, 0.5)
    figures.box(axes, *mean, "mean $m$", 1.0, 0.5)
    figures.box(axes, *variance, "variance", 1.1, 0.5)
    figures.box(axes, 4.6, 0.4, "$\\rho = 1 / \\sqrt{\\mathrm{var} + \\mathrm{eps}}$", 1.5, 0.5)
    figures.box(axes, *end, "$\\hat n_j$, all $j$", 1.1, 0.5)
    figures.arrow(axes, (0.6, 1.52), (6.4, 1.52), "", figures.FORWARD, bend=-0.2)
    figures.note(axes, 3.5, 2.3, "1  directly, only to $\\hat n_i$: slope $\\rho$", figures.FORWARD, 8)
    figures.arrow(axes, (0.97, 1.25), (2.48, 1.25), "2  slope $1/M$", figures.FORWARD)
    figures.arrow(axes, (3.52, 1.25), (5.83, 1.25), "slope $-\\rho$", figures.FORWARD)
    figures.arrow(axes, (0.85, 0.98), (2.43, 0.48), "", figures.FORWARD)
    figures.note(axes, 1.25, 0.42, "3  slope $2\\,(x_i - m)\\,/\\,M$", figures.FORWARD, 8)
    figures.arrow(axes, (3.57, 0.4), (3.83, 0.4), "", figures.FORWARD)
    figures.arrow(axes, (5.37, 0.48), (6.15, 0.98), "", figures.FORWARD)
    figures.note(axes, 6.3, 0.5, "slope $x_j - m$", figures.FORWARD, 8)
    show("A diagram of three paths from the input x_i to the normalised values. Path 1 goes directly, and only to the "
         "value at the same place, with slope ρ. Path 2 goes through the mean m, slope 1/M and then −ρ, to all values "
         "of the group. Path 3 goes through the variance and ρ, one over its root, also to all values of the group.")


def reparameterisation():
    """Why a drawn number has no gradient, and how a formula around a drawn number has one."""
    axes = figures.diagram(1.95)
    for left, title in ((0.2, "z drawn directly"), (3.9, "reparameterised")):
        figures.note(axes, left + 1.5, 1.8, title)
        figures.box(axes, left + 0.5, 1.2, "$\\mu_E, \\sigma_E$", 0.9, 0.45)
        figures.box(axes, left + 2.6, 1.2, "$z$", 0.6, 0.45)
    figures.arrow(axes, (1.17, 1.25), (2.5, 1.25), "draw", figures.FORWARD)
    figures.arrow(axes, (2.5, 1.1), (2.0, 1.1), "", figures.BACKWARD)
    figures.note(axes, 1.8, 1.08, "?", figures.BACKWARD, 14)
    figures.arrow(axes, (4.87, 1.25), (6.2, 1.25), "$\\mu_E + \\sigma_E\\,\\epsilon$", figures.FORWARD)
    figures.arrow(axes, (6.2, 1.1), (4.87, 1.1), "", figures.BACKWARD)
    figures.box(axes, 5.5, 0.35, "draw $\\epsilon$", 0.9, 0.4, figures.GREY)
    figures.arrow(axes, (5.75, 0.55), (6.25, 1.0), "", figures.FORWARD)
    show("Two diagrams. Left: mean and deviation lead to z by a random draw; the red arrow back ends at a question "
         "mark. Right: the noise ε is drawn aside, z is μ plus σ times ε, and the red arrow goes back from z to mean "
         "and deviation.")


def kl_landscape():
    """The KL divergence from N(0, 1), for each mean and logarithm of the variance."""
    mean, logvar = np.meshgrid(np.linspace(-3, 3, 121), np.linspace(-6, 3, 121))
    nats = (mean**2 + np.exp(logvar) - 1 - logvar) / 2
    _, axes = plt.subplots(figsize=(5.2, 2.9))
    drawn = axes.contourf(mean, logvar, nats, levels=np.arange(0, 9.1, 0.75), cmap="Blues", extend="max")
    axes.figure.colorbar(drawn, label="KL in nats", ticks=range(0, 10, 3))
    at = np.array([[-2, -5], [0, -5], [2, -5], [-2, 1.5], [2, 1.5], [2, -2], [-2, -2]])
    axes.quiver(at[:, 0], at[:, 1], -at[:, 0], -(np.exp(at[:, 1]) - 1) / 2, color=figures.RED, angles="xy",
                scale_units="xy", scale=2.5, width=0.008)
    axes.plot(0, 0, "o", color="white", markeredgecolor="black")
    axes.set(xlabel="mean $\\mu_E$", ylabel="$\\ell = \\ln \\sigma_E^2$", xticks=range(-3, 4), yticks=range(-6, 4, 3))
    axes.grid(False)
    show("A map of the KL divergence over the mean, from −3 to 3, and the logarithm of the variance, from −6 to 3. It "
         "is zero at the white point (0, 0) and grows in all directions: fast to the sides and above, slowly below. "
         "Red arrows point downhill, to the white point; the one at mean 0 and log-variance −5 is very short.")


def progress(rows, labels):
    """Test pictures, and what the autoencoder makes of them after so many steps; rows of (n, H, W, 3)."""
    pictures([picture for row in rows for picture in row], [""], f"A grid of pictures, a row each for "
             f"{', '.join(labels)}. The first reconstructions are coloured noise, then grey patches, then coloured "
             "blobs at the right places; the last have shapes with edges.", rows=labels, side=0.9)


def losses(losses):
    """What each term adds to the loss: {name: a number for each step}."""
    _, axes = plt.subplots(figsize=(figures.WIDTH, 2.6))
    for (name, values), style in zip(losses.items(), ("-", "--", ":")):
        axes.loglog(np.arange(1, len(values) + 1), values, style, label=name)
    axes.set(xlabel="step", ylabel="added to the loss")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    names = list(losses)
    show(f"Curves over the steps, both axes logarithmic: {', '.join(names)}. The first two fall together by more than "
         "a factor of ten. The last is far below them, and rises before it falls.")


def rebuilt(images, back):
    """Test pictures above, their reconstructions below."""
    pictures([*images, *back], [""], f"{len(images)} test pictures in the upper row and their reconstructions "
             "below: the same shapes in the same colours and places; only edges and corners differ a little.",
             rows=("picture", "rebuilt"))


def latents(images, z):
    """Pictures and the channels of their latents, in one colour scale."""
    largest = np.ceil(abs(z).max())
    figure, grid = plt.subplots(len(images), 1 + z.shape[3], figsize=(figures.WIDTH, 1.3 * len(images)))
    for row, picture, latent in zip(grid, images, z):
        row[0].imshow(picture)
        for channel, axes in enumerate(row[1:]):
            drawn = axes.imshow(latent[:, :, channel], cmap=figures.SIGNED_MAP, vmin=-largest, vmax=largest)
    for axes in grid.flat:
        axes.axis("off")
    for axes, title in zip(grid[0], ["picture", *(f"channel {channel}" for channel in range(z.shape[3]))]):
        axes.set_title(title)
    figure.colorbar(drawn, ax=grid, fraction=0.03, ticks=[-largest, 0, largest])
    show(f"{len(images)} pictures, each with the {z.shape[3]} channels of its latents as maps of 8 by 8 cells, all in "
         f"one colour scale from {-largest:.0f} to {largest:.0f}. Where the picture has a shape, cells of the maps "
         "differ from their neighbours.")


def scaled(z, scale):
    """The values of latents before and after the scaling factor, beside N(0, 1)."""
    values = np.linspace(-6, 6, 300)
    _, axes = plt.subplots(figsize=(figures.WIDTH, 2.3))
    bins = np.linspace(-6, 6, 81)
    axes.hist(z.reshape(-1), bins, density=True, histtype="step", color=figures.RED, linestyle="--", label="$z$")
    axes.hist((z * scale).reshape(-1), bins, density=True, color=figures.SKY, label="$z$ × scaling factor")
    axes.plot(values, np.exp(-values**2 / 2) / np.sqrt(2 * np.pi), color=figures.BLACK, label="$\\mathcal{N}(0, 1)$")
    axes.set(xlabel="value", ylabel="density")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    show("Three densities over values from −6 to 6. That of the latents z is wide and has several humps. Multiplied "
         "by the scaling factor it is narrower, about as wide as the bell curve of N(0, 1), but it has a sharp peak at "
         "0 and humps beside it.")


def walk(through_latents, through_pixels, shares):
    """The way from one picture to another, between latents and between pixels."""
    pictures([*through_latents, *through_pixels], [f"{share:.0%}" for share in shares], "Two rows of seven pictures "
             "from a green triangle above a blue circle to a red square above a green star. Between the latents, the "
             "first triangle fades while a pink square appears and turns red, and the circle becomes a star. Between "
             "the pixels, both pictures lie over each other, half transparent.", rows=("latents", "pixels"))


def disturbed(images, titles):
    """A picture whose latents were disturbed, more and more, and noise in the place of latents."""
    pictures(images, titles, f"Eight pictures: {', '.join(title.replace(chr(10), ' ') for title in titles)}. With 0.1 "
             "and 0.4 the picture stays as it was, with 1.0 the colours of its shapes run, with 2.0 only coloured "
             "scraps are left. From noise alone come scraps of all colours.")


def kl_weights(rows, labels):
    """Test pictures, and what autoencoders make of them that were trained with other weights of the KL."""
    pictures([picture for row in rows for picture in row], [""], f"A row of pictures each for {', '.join(labels)}. The "
             "more the KL weighs, the less is left of the shapes. In the last row all pictures are the same grey.",
             rows=labels, side=0.9)


def drawings(images, titles, right):
    """Pictures drawn with the library's group norm and with another, marked ✓ where they are the library's."""
    marks = [RIGHT if one else WRONG for one in right]
    pictures(images, [f"{mark} {title}" for mark, title in zip(marks, titles)], "The same red apple twice, drawn with "
             "the library's group norm and with this chapter's; there is no difference to see.", side=1.5)
