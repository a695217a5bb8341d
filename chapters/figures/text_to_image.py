"""The figures of chapter 6: one call each, which draws it, shows it and says in words what there is to see."""

import numpy as np
from matplotlib import pyplot as plt

import figures
from figures.described import RIGHT, WRONG, pictures, show


def mark(right):
    """✓ or ✗."""
    return RIGHT if right else WRONG


def noised(images, times):
    """The latents of a picture, mixed with the noise of these timesteps and decoded."""
    pictures(images, [f"t = {t}" for t in times], "Eight pictures in a row. At t = 0 there is a green triangle above a "
             "blue circle. More and more coloured noise covers them; at t = 300 both can still be seen, at t = 800 "
             "there is only noise.")


def network():
    """The U-Net, its skips, and where timestep and caption come in."""
    axes = figures.diagram(3.1)
    down, up = [(1.1, 2.0, "8×8\n×64"), (2.3, 1.1, "4×4\n×128")], [(4.9, 1.1, "4×4\n×128"), (6.1, 2.0, "8×8\n×64")]
    for x, y, text in [*down, (3.6, 0.45, "4×4\n×128"), *up]:
        figures.box(axes, x, y, text, 0.8, 0.55, figures.BLUE, y < 2, 8)
    figures.note(axes, 0.25, 2.0, "$z_t$", size=11)
    figures.note(axes, 6.95, 2.0, "$\\hat\\epsilon$", size=11)
    for start, end in (((0.4, 2.0), (0.68, 2.0)), ((6.52, 2.0), (6.8, 2.0)), ((1.4, 1.72), (1.95, 1.38)),
                       ((2.65, 0.82), (3.18, 0.58)), ((4.02, 0.58), (4.55, 0.82)), ((5.25, 1.38), (5.8, 1.72))):
        figures.arrow(axes, start, end)
    figures.arrow(axes, (1.52, 2.05), (5.68, 2.05), "skip: put beside the channels that come from below", figures.GREY)
    figures.arrow(axes, (2.72, 1.15), (4.48, 1.15), "skip", figures.GREY)
    figures.note(axes, 3.6, 2.85, "timestep $t$, as sines and cosines: into every residual block", size=9)
    figures.arrow(axes, (1.1, 2.7), (1.1, 2.3))
    figures.arrow(axes, (6.1, 2.7), (6.1, 2.3))
    figures.note(axes, 6.0, 0.35, "context $\\tau_\\theta(c)$: into the filled\nboxes, by cross-attention", size=8)
    show("A diagram in the shape of the letter U. z_t enters a box of 8 by 8 places with 64 channels, goes down to two "
         "boxes of 4 by 4 with 128 channels, up again to one more of these, and to a last one of 8 by 8 by 64, which "
         "gives the predicted noise. Grey arrows, the skips, go straight from the left side to the right side. The "
         "timestep goes into every box, the caption into the three lower ones.")


def schedule(alphas_cumprod):
    """Signal and noise, and their ratio, at each timestep."""
    t = np.arange(len(alphas_cumprod))
    _, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.5))
    left.plot(t, np.sqrt(alphas_cumprod), label="signal, $\\sqrt{\\bar\\alpha_t}$")
    left.plot(t, np.sqrt(1 - alphas_cumprod), "--", label="noise, $\\sqrt{1 - \\bar\\alpha_t}$")
    left.set(xlabel="t", ylabel="level", ylim=(0, 1.05))
    left.legend(loc="lower center")
    right.semilogy(t, alphas_cumprod / (1 - alphas_cumprod), color=figures.BLACK)
    right.axhline(1, color=figures.GREY, linewidth=0.8)
    right.set(xlabel="t", title="signal to noise, $\\bar\\alpha_t / (1 - \\bar\\alpha_t)$")
    show("Two plots over t from 0 to 999. Left: the signal falls from 1 to nearly 0, the noise rises from nearly 0 to "
         "1; they cross near t = 350. Right, logarithmic: the ratio of signal to noise falls from about 1000 to less "
         "than 0.01, fastest at the beginning.")


def loss_by_time(times, curves):
    """The squared error of ε at each of the timesteps; curves: {label: numbers}."""
    _, axes = plt.subplots(figsize=(figures.WIDTH, 2.6))
    looks = ("s--", figures.RED), ("o-", figures.BLUE), ("^:", figures.GREY)
    for (label, values), (style, colour) in zip(curves.items(), looks):
        axes.semilogy(times, values, style, color=colour, label=label)
    axes.set(xlabel="t", ylabel="mean squared error of $\\hat\\epsilon$")
    axes.legend()
    show(f"Curves over t, with a logarithmic axis: {', '.join(curves)}. Those of the model fall from about 0.8 at "
         "t = 1 to about 0.005 at t = 999. The one with the caption is always the lower of the two, from t = 200 on by "
         "a quarter to a half.")


def product_of_gaussians(after, before, posterior, z_t, z):
    """Where a step back may come from, in one dimension; each is (mean, variance)."""
    values = np.linspace(0.4, 1.2, 400)
    _, axes = plt.subplots(figsize=(figures.WIDTH, 2.5))
    for (mean, variance), label, style, colour in (
        (after, "fits $z_t$: $p(z_t \\mid z_{t-1})$", "--", figures.RED),
        (before, "fits $z$: $p(z_{t-1} \\mid z)$", ":", figures.GREEN),
        (posterior, "fits both: $p(z_{t-1} \\mid z_t, z)$", "-", figures.BLUE),
    ):
        axes.plot(values, np.exp(-((values - mean) ** 2) / (2 * variance)), style, color=colour, label=label)
    axes.set(xlabel="$z_{t-1}$", ylabel="relative to its peak", xticks=np.arange(0.4, 1.3, 0.2))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    show(f"Three bell curves over z at t − 1, for z_t = {z_t:g} and z = {z:g}. The one that fits z_t and the one that "
         "fits z lie side by side. The third, their product, lies between them and is narrower than both.")


def bound_weights(weights):
    """The factor of the squared error of ε in the variational bound, at each timestep from 1 on."""
    _, axes = plt.subplots(figsize=(figures.WIDTH, 2.3))
    axes.semilogy(np.arange(1, 1 + len(weights)), weights, color=figures.BLACK, label="variational bound, $\\lambda_t$")
    axes.axhline(weights.mean(), color=figures.BLUE, linestyle="--", label="plain squared error, the same everywhere")
    axes.set(xlabel="t", ylabel="weight")
    axes.legend()
    show("A curve over t, logarithmic: the weight in the variational bound falls from one half at t = 1, first steeply "
         "and then slowly, and rises a little at the end. A horizontal line shows the plain loss, whose weight is the "
         "same at all t; it lies above the curve from about t = 100 on.")


def guesses(latents, clean, times, caption):
    """A drawing on its way: the noisy latents above, the guess of the clean ones below."""
    pictures([*latents, *clean], [f"t = {t}" for t in times], f"{caption}. Upper row: a noisy picture loses its noise, "
             "step by step. Lower row: the guesses of the clean picture; the first is pale and soft, something "
             "green above something blue, and they become a triangle and a circle.", rows=("$z_t$", "$\\hat z$"))


def steps(leading, trailing, counts, first):
    """What few steps draw, with both ways to choose the timesteps."""
    titles = [f"{count} step{'s' * (count > 1)}" for count in counts]
    pictures([*leading, *trailing], titles, f"Two rows of pictures with {', '.join(map(str, counts))} steps. Upper "
             "row: one step leaves noise, two give blurred shapes, from five on the picture hardly changes. Lower row: "
             f"one step gives pale, soft shapes, and the rest is as above. The upper row begins at t = "
             f"{', '.join(map(str, first))}.", rows=("leading", "trailing"))


def score(values, densities, by_mean, by_slope, levels):
    """Tweedie's formula in one dimension, for z that is −1 or 1."""
    _, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.6))
    for density, mean, slope, level, colour in zip(densities, by_mean, by_slope, levels,
                                                   (figures.BLUE, figures.RED, figures.GREEN)):
        left.plot(values, density, color=colour, label=f"$\\bar\\alpha_t$ = {level:g}")
        right.plot(values, mean, color=colour)
        right.plot(values[::20], slope[::20], "o", color=colour, markersize=4)
    left.set(xlabel="$z_t$", title="density of $z_t$")
    right.set(xlabel="$z_t$", title="mean of the noise, given $z_t$")
    left.legend(fontsize=8)
    show("Left: densities of z_t for three noise levels, with two peaks at little noise and one hump at much noise. "
         "Right: for each of them the mean of the noise as a curve, and dots computed from the slope of the density's "
         "logarithm. All dots lie on their curves.")


def guidance_scales(images, scales, caption):
    """One caption and one noise, drawn with these scales."""
    pictures(images, [f"s = {scale:g}" for scale in scales], f"Seven pictures for the caption: {caption}. At s = 0 "
             "there are other shapes on another ground. From s = 1 on a blue circle stands left of a cyan "
             "square. From 3.5 on the square grows, and the circle gets corners. At 40 both are blurred.")


def followed(images, captions, verdicts):
    """Drawn pictures, marked by the judge; verdicts: {attribute: right or not} of each."""
    titles = []
    for caption, verdict in zip(captions, verdicts):
        words = caption.replace(" on a ", "\non ").replace(" background", "")
        for relation in (" above ", " left of ", " below ", " right of "):
            words = words.replace(relation, relation + "\n")
        missed = [name for name, right in verdict.items() if not right and name != "all"]
        titles.append(f"{words}\n{mark(not missed)} {', '.join(missed)}".rstrip())
    right = ["right" if verdict["all"] else "wrong" for verdict in verdicts]
    said = "; ".join(f"{caption}: {one}" for caption, one in zip(captions, right))
    _, grid = plt.subplots(2, len(images) // 2, figsize=(figures.WIDTH, 5.2))
    for axes, image, title in zip(grid.flat, images, titles):
        axes.imshow(np.clip(image, 0, 1))
        axes.set_title(title, fontsize=8)
        axes.axis("off")
    show(f"{len(images)} drawn pictures with their captions. {said}.")


def saddle(paths):
    """The loss (1 − W1 W2)², and how gradient descent leaves its saddle; paths: {start: losses}."""
    w1, w2 = np.meshgrid(np.linspace(-2, 2, 201), np.linspace(-2, 2, 201))
    figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.6))
    drawn = left.contourf(w1, w2, (1 - w1 * w2) ** 2, levels=np.linspace(0, 4, 17), cmap="Blues", extend="max")
    left.plot(0, 0, "o", color="white", markeredgecolor="black")
    left.set(xlabel="$W_1$", ylabel="$W_2$", title="the loss, flat at the centre", aspect="equal", xticks=(-2, 0, 2),
             yticks=(-2, 0, 2))
    left.grid(False)
    figure.colorbar(drawn, ax=left, ticks=range(5))
    for (start, losses), style in zip(paths.items(), ("-", "--", ":")):
        right.plot(losses, style, label=f"from $W_1 = W_2$ = {start:g}")
    right.set(xlabel="step of gradient descent", ylabel="loss")
    right.legend(fontsize=8, loc="upper right")
    show("Left: a map of the loss over two weights from −2 to 2. It is low along two curved valleys, lower left and "
         "upper right, high in the other two corners, and flat at the centre. Right: the loss over the steps of "
         "gradient descent. It is at one half after 20 steps from 0.1, after 44 from 0.01, and after 92 from 0.0001.")


def small_world(images, captions):
    """Pictures of the small world with their two captions each."""
    pictures(images, ["\n".join(several) for several in captions], "Six pictures of 8 by 8 pixels: grey, with two "
             f"squares of different colours, one above the other. {'; '.join(several[0] for several in captions)}.")


def experiment(runs, early):
    """Two ways of training, several seeds each: the mean as a line, and the range from the least to the largest.

    runs   {way: [a dict of each seed]} as of two_captions.run_all
    early  the last step of the first phase
    """
    _, grid = plt.subplots(2, 2, figsize=(figures.WIDTH, 4.6))
    for (way, several), colour, style in zip(runs.items(), (figures.RED, figures.BLUE), ("--", "-")):
        smooth = np.array([np.convolve(one["loss"], np.ones(20) / 20, "valid") for one in several])
        at, colours = several[0]["steps"], np.array([one["colours"] for one in several])
        curves = [(np.arange(20, 20 + smooth.shape[1]), smooth), (at, colours)]
        curves += [(at, np.array([one[word] for one in several])) for word in ("above", "below")]
        for axes, (x, values) in zip(grid.flat, curves):
            axes.plot(x, values.mean(axis=0), style, color=colour, label=way)
            axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0)
        for axes in grid[1]:
            axes.plot(at, colours.mean(axis=0) / 2, ":", color=colour, linewidth=1)
    titles = ("loss", "right colours", "right places, too: “above”", "right places, too: “below”")
    for axes, title in zip(grid.flat, titles):
        axes.axvspan(0, early, color=figures.PALE, zorder=-1)
        axes.set(xlabel="step", title=title, ylim=(0, 1.02))
    ticks = (0.05, 0.1, 0.2, 0.5, 1)
    grid[0, 0].set(yscale="log", ylim=(0.03, 1.3), yticks=ticks, yticklabels=map(str, ticks))
    grid[0, 0].yaxis.set_minor_formatter("")
    grid[0, 0].legend(fontsize=8, loc="upper right")
    ends = {way: np.mean([one[word][-1] for one in several for word in ("above", "below")])
            for way, several in runs.items()}
    show("Four plots over the steps, each with two curves and the range of three seeds around them; a grey band marks "
         "the first phase. The losses lie on top of each other. The shares of right colours both rise. The shares of "
         "right colours in right places end, for both kinds of questions together, at "
         + " and ".join(f"{share:.0%} for “{way}”" for way, share in ends.items())
         + ". Dotted lines show half of the right colours: the places by chance.")


def answered(rows, questions, right):
    """Pictures of the small world, drawn for these questions and marked; rows and right: {way: one for each}."""
    titles = [f"{question.replace(' ', chr(10), 1)}\n{mark(one)}"
              for several in right.values() for question, one in zip(questions, several)]
    said = "; ".join(f"{way}: {sum(right[way])} of {len(questions)} right" for way in rows)
    pictures([image for images in rows.values() for image in images], titles, "Two rows of drawn pictures of 8 by 8 "
             f"pixels with their captions, marked right or wrong. {said}.",
             rows=[way.replace(" ", chr(10), 1) for way in rows], side=0.78)


def failures(images, right, caption):
    """Ways to get a bad picture; images and right: {name: image}, {name: whether it shows its caption}."""
    titles = [f"{name}\n{mark(right[name])}" for name in images]
    said = ", ".join(f"{name} ({'right' if one else 'wrong'})" for name, one in right.items())
    pictures(list(images.values()), titles, f"Seven pictures for the caption: {caption}. {said}. Untrained and with "
             "the wrong sign there is only saturated noise; with the wrong timestep the picture is nearly right; "
             "with the wrong scaling factor it is dark and stained; with too much guidance the shapes are distorted.")


def started(original, images, times, caption):
    """Image to image: a picture, and what is drawn from it, noised, for another caption, from these timesteps on."""
    pictures([original, *images], ["the picture", *(f"from t = {t}" for t in times)], "A picture, and drawings that "
             f"began with it, noised, for the caption: {caption}. Begun at a small t, the drawing is like the picture. "
             "Begun at a large one, it shows the caption.")


def drawings(images, titles, right):
    """Pictures drawn by the library and by other functions, marked ✓ where they are the library's."""
    pictures(images, [f"{mark(one)} {title}" for one, title in zip(right, titles)], "The same two shapes twice, drawn "
             "by the library and with the functions of the course; there is no difference to see.", side=1.5)
