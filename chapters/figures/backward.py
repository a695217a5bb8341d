"""The figures of chapter 2: one call each, which draws it, shows it and says in words what there is to see."""

import numpy as np
from matplotlib import pyplot as plt

import figures
from figures.described import RIGHT, WRONG, painted, pictures, show


def slope():
    """A loss of one weight, its slope at a place, and five steps against it."""

    def loss(w):
        return 0.6 + 0.35 * (w - 1.2) ** 2 + 0.25 * np.sin(2 * w)

    def gradient(w):
        return 0.7 * (w - 1.2) + 0.5 * np.cos(2 * w)

    w, here = np.linspace(-1.2, 3.6, 200), 2.9
    _, axes = plt.subplots(figsize=(figures.WIDTH, 2.6))
    axes.plot(w, loss(w), color=figures.BLACK)
    near = np.array([here - 0.9, here + 0.6])
    axes.plot(near, loss(here) + gradient(here) * (near - here), "--", color=figures.BACKWARD)
    places = [here]
    for _ in range(5):
        places.append(places[-1] - 0.35 * gradient(places[-1]))
    axes.plot(places, loss(np.array(places)), "o", color=figures.FORWARD)
    axes.text(here + 0.1, loss(here) - 0.12, f"slope dW = {gradient(here):.2f}", color=figures.BACKWARD)
    axes.annotate("", (places[1], loss(places[1]) + 0.22), (here, loss(here) + 0.22),
                  arrowprops={"arrowstyle": "-|>", "color": figures.FORWARD})
    axes.text(places[1] - 0.1, loss(here) + 0.27, "a step of −0.35 dW", color=figures.FORWARD, ha="center")
    axes.set(xlabel="one weight W", ylabel="loss L")
    show("A curve of the loss over one weight, with a valley. From a point on the right slope, five dots go down to "
         "the bottom of the valley in shorter and shorter steps. A dashed line shows the slope at the first dot.")


def chain():
    """Linear, SiLU, linear, loss: what goes forward, what comes back, what the caches keep, what the weights get."""
    axes = figures.diagram(3.1)
    names, places = ["linear", "SiLU", "linear", "loss"], [1.3, 2.95, 4.6, 6.3]
    arrays = ["$x$", "$h_1$", "$h_2$", "$y$"]
    ends = [0.3, *places]
    for k, (name, x) in enumerate(zip(names, places)):
        figures.box(axes, x, 1.85, name, filled=name == "loss")
        left = ends[k] + (0.45 if k else 0)
        figures.arrow(axes, (left, 1.97), (x - 0.45, 1.97), arrays[k], figures.FORWARD, size=10)
        figures.arrow(axes, (x - 0.45, 1.73), (left, 1.73), "$d" + arrays[k][1:], figures.BACKWARD, False, size=10)
        if name != "loss":
            figures.box(axes, x, 0.85, "cache", 0.8, 0.4, figures.GREY)
            figures.arrow(axes, (x - 0.15, 1.6), (x - 0.15, 1.05), "", figures.FORWARD)
            figures.arrow(axes, (x + 0.15, 1.05), (x + 0.15, 1.6), "", figures.BACKWARD)
    for x, text in zip(places, ("keeps $x$, $W_1$", "keeps $h_1$", "keeps $h_2$, $W_2$")):
        figures.note(axes, x, 0.52, text, figures.GREY, 8)
    for x, k in ((places[0], 1), (places[2], 2)):
        figures.arrow(axes, (x, 2.1), (x, 2.5), "", figures.BACKWARD)
        figures.note(axes, x, 2.62, f"$dW_{k}$, $db_{k}$", figures.BACKWARD, 10)
    figures.note(axes, 2.95, 2.95, "to the parameters, which the training changes", figures.BACKWARD, 8)
    figures.note(axes, 6.3, 1.42, "$L$", size=10)
    figures.note(axes, 1.9, 0.15, "blue: forward, fills the caches", figures.FORWARD)
    figures.note(axes, 5.3, 0.15, "red: backward, reads them", figures.BACKWARD)
    show("A chain of boxes: linear, SiLU, linear, loss. Blue arrows go from left to right with x, h1, h2 and y. Red "
         "arrows come back from right to left with dy, dh2, dh1 and dx. Under each box is its cache, filled on the "
         "way forward and read on the way back. From each linear box a red arrow leads up to the gradients of its "
         "weights and bias.")


def reach():
    """Which outputs of a linear layer a number of x, a weight and a bias reach."""
    axes = figures.diagram(1.75)
    side, shapes = 0.17, {"$x$": (3, 2), "$W$": (2, 3), "$b$": (1, 3), "$y$": (3, 3)}
    cases = [("$x$", (0, 1), [(0, 0), (0, 1), (0, 2)], "$x_{01}$ reaches a row of $y$"),
             ("$W$", (1, 0), [(0, 0), (1, 0), (2, 0)], "$W_{10}$ reaches a column of $y$"),
             ("$b$", (0, 1), [(0, 1), (1, 1), (2, 1)], "$b_1$ reaches a column of $y$")]
    for left, (source, place, reached, title) in zip((0.1, 2.5, 4.9), cases):
        x = left
        for name, (H, W) in shapes.items():
            marked = {source: [place], "$y$": reached}.get(name, [])
            colour = figures.ORANGE if name == "$y$" else figures.BLUE
            colours = [[colour if (i, j) in marked else figures.PALE for j in range(W)] for i in range(H)]
            painted(axes, np.zeros((H, W)), x, 0.6 + (3 - H) * side / 2, side, name, colours, form="")
            x += W * side + 0.1
        figures.note(axes, left + 1.08, 0.28, title)
    show("Three times the arrays x, W, b and y of a linear layer. First, one number of x is marked, and with it a "
         "row of y. Then one weight, and with it a column of y. Then one number of the bias, and with it a column "
         "of y.")


def silu(x, y, gate, terms):
    """SiLU and its gate; its slope, and the two terms that make it."""
    _, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.5))
    left.plot(x, y, label="SiLU, x σ(x)", color=figures.FORWARD)
    left.plot(x, gate, "--", label="the gate σ(x)", color=figures.GREY)
    right.plot(x, terms[0] + terms[1], label="slope of SiLU", color=figures.BACKWARD)
    right.plot(x, terms[0], "--", label="first term: x passes", color=figures.GREY)
    right.plot(x, terms[1], ":", label="second term: x moves the gate", color=figures.BLACK)
    for axes, title in ((left, "forward"), (right, "backward: the sum of two terms")):
        axes.set(title=title, xlabel="x")
        axes.legend(fontsize=8, loc="upper left")
    left.set_ylim(-1, 7)
    right.set_ylim(-0.3, 1.9)
    show("Left, SiLU: near zero for negative x, with a small dip below zero, and close to x for positive x; and its "
         "gate, which rises from 0 to 1. Right, the slope of SiLU: it rises from 0 to a little above 1. It is the "
         "sum of the gate and of a second term, which is negative on the left and positive on the right.")


def gated():
    """GEGLU: the last axis cut into halves, one multiplied by the gelu of the other; and back."""
    axes = figures.diagram(1.75)
    side = 0.3
    halves = [[figures.SKY] * 3 + [figures.ORANGE] * 3]
    painted(axes, np.zeros((1, 6)), 0.3, 0.95, side, "$x$: two halves", halves, form="")
    figures.note(axes, 0.75, 0.75, "hidden", size=8)
    figures.note(axes, 1.65, 0.75, "gate", size=8)
    figures.arrow(axes, (2.2, 1.1), (2.9, 1.1), "split", figures.FORWARD)
    painted(axes, np.zeros((1, 3)), 3.0, 0.95, side, "hidden", [[figures.SKY] * 3], form="")
    figures.note(axes, 4.1, 1.1, "×", size=13)
    painted(axes, np.zeros((1, 3)), 4.3, 0.95, side, "gelu(gate)", [[figures.ORANGE] * 3], form="")
    figures.note(axes, 5.4, 1.1, "=", size=13)
    painted(axes, np.zeros((1, 3)), 5.6, 0.95, side, "$y$", [[figures.PALE] * 3], form="")
    figures.note(axes, 3.6, 0.3, "backward: each half gets a gradient, and the two stand side by side again",
                 figures.BACKWARD, 8)
    show("A row of six numbers is cut into two halves of three, called hidden and gate. The output has three "
         "numbers: each number of hidden, multiplied by the gelu of the number of gate at the same place.")


def step_sizes(steps, errors):
    """Relative errors of difference quotients over the step: {name: errors}."""
    _, axes = plt.subplots(figsize=(figures.WIDTH, 2.9))
    for name, values in errors.items():
        colour = figures.BLUE if "float64" in name else figures.RED
        style = "-" if "central" in name else "--"
        axes.loglog(steps, np.maximum(values, 1e-13), style, color=colour, label=name)
    axes.axhline(1e-6, color=figures.BLACK, linewidth=0.8)
    axes.text(1, 2e-7, "tolerance of\nthe checker", fontsize=8, ha="right", va="center")
    axes.set(xlabel="step δ", ylabel="relative error", ylim=(1e-12, 10))
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    show("Four curves of the relative error over the size of the step, both on logarithmic scales. Each falls from the "
         "right to a lowest point and then rises to the left in a jagged line. In float64 the central difference gets "
         "lowest, far below the checker's tolerance. In float32 both curves stay above the tolerance everywhere.")


def stages(images, losses, target):
    """What the network draws at these steps {step: loss}, and the picture that it is to learn."""
    titles = [f"step {step}\nloss {loss:.3f}" for step, loss in losses.items()]
    pictures([*images, target], [*titles, "the picture"], "The network's picture in the course of its training: "
             "grey, then a yellowish blur, then wide crossing bands, then a blurred frog in stripes, then a clear "
             "frog; and beside it the picture of the frog that it should learn.")


def loss(losses):
    """The loss of every step."""
    _, axes = plt.subplots(figsize=(figures.WIDTH, 2.4))
    axes.loglog(np.arange(1, len(losses) + 1), losses, color=figures.BLACK)
    axes.set(xlabel="step", ylabel="loss L")
    _loss_ticks(axes, (0.01, 0.03, 0.1, 0.3, 1))
    show("The loss over the steps, both on logarithmic scales. It falls from 0.7 to near 0.01, with two short, sharp "
         "spikes near step 100.")


def between(target, fine):
    """The 32 x 32 pixels that the network saw, and its picture of 128 x 128."""
    pictures([target, fine], ["what it saw, 32 × 32", "what it draws, 128 × 128"], "The frog in 32 by 32 pixels, "
             "blocky; and the network's frog in 128 by 128 pixels, smooth, with soft outlines.", side=2.4)


def fault_curves(curves):
    """The loss with right and wrong backwards: {name: losses}."""
    _, axes = plt.subplots(figsize=(figures.WIDTH, 2.6))
    for (name, values), style in zip(curves.items(), ["-", "--", ":", "-."]):
        axes.loglog(np.arange(1, len(values) + 1), values, style, label=name)
    axes.set(xlabel="step", ylabel="loss L")
    _loss_ticks(axes, (0.03, 0.1, 0.3, 1))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    show("Four curves of the loss over 300 steps. The right backward falls furthest. With a term forgotten it falls "
         "almost as far. With zeros it falls slowly and stays far above. With a flipped sign it stops falling near "
         "0.3.")


def fault_pictures(images, titles):
    """What the network draws after training with right and wrong backwards, the right one first."""
    marks = [RIGHT, *[WRONG] * (len(images) - 1)]
    pictures(images, [f"{mark} {title}" for mark, title in zip(marks, titles)], "Four pictures after 300 steps. "
             "Right backward: a blurred frog. Zeros: crossing bands. Flipped sign: an even, greenish grey. A term "
             "forgotten: a blurred frog, hardly different from the first.")


def raw_places(waves, raw):
    """The same network after the same training: from sines and cosines of a place, and from row and column."""
    pictures([waves, raw], ["sines and cosines", "row and column"], "Two pictures of 32 by 32 pixels. From sines "
             "and cosines the network has learned a clear frog. From raw rows and columns it has learned a soft, "
             "dark yellow blot.",
             side=1.6)


def rates(curves):
    """The loss with different learning rates: {name: losses}."""
    _, axes = plt.subplots(figsize=(figures.WIDTH, 2.6))
    for (name, values), style in zip(curves.items(), ["-", "--", ":"]):
        axes.loglog(np.arange(1, len(values) + 1), values, style, label=name)
    axes.set(xlabel="step", ylabel="loss L")
    _loss_ticks(axes, (0.01, 0.1, 1, 10))
    axes.legend(title="learning rate", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    show("Three curves of the loss. With the rate 0.5 it falls to near 0.01, with spikes. With 0.1 it falls "
         "smoothly and stays higher. With 3 it leaves the top of the figure within the first steps.")


def _loss_ticks(axes, ticks):
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_minor_formatter("")
    axes.set_ylim(ticks[0] * 0.9, ticks[-1])
