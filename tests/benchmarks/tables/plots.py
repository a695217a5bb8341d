"""The tables as plots (with matplotlib, of the `notebooks` extra)."""


def _axes(title, x, y):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.2, 3.6), dpi=110, layout="constrained")
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _logarithmic(axes, values):
    """A logarithmic x axis with a tick at each of the values."""
    ticks = sorted(set(values))
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()


def quality_over_time(rows, path):
    """Table (b): the Fréchet distance of the drawn pictures over the time of training, a line for each f."""
    figure, axes = _axes("Emoji at 64 x 64, same time for all", "minutes of training", "Fréchet distance")
    for row in rows:
        label = "pixels (f = 1)" if row["f"] == 1 else f"f = {row['f']}"
        axes.plot([p["seconds"] / 60 for p in row["curve"]], [p["frechet"] for p in row["curve"]], "o-", label=label)
    axes.set(yscale="log", xlim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(path)


def rate_and_distortion(rows, path):
    """Table (a): PSNR over f, a line for each regularisation."""
    figure, axes = _axes("What an autoencoder gives back, emoji at 64 x 64", "f", "PSNR in dB (higher is better)")
    for kind in ("KL", "VQ"):
        mine = [row for row in rows if row["regularisation"] == kind]
        axes.plot([row["f"] for row in mine], [row["psnr"] for row in mine], "o-", label=kind)
    _logarithmic(axes, [row["f"] for row in rows])
    axes.legend(frameon=False)
    figure.savefig(path)


def lines(rows, path, title, x, y, by=None, logarithmic=False):
    """rows' figure y over x, each a (key, heading); with `by`, a line for each value of that key."""
    figure, axes = _axes(title, x[1], y[1])
    for value in dict.fromkeys(row.get(by) for row in rows):
        mine = [row for row in rows if row.get(by) == value]
        axes.plot([row[x[0]] for row in mine], [row[y[0]] for row in mine], "o-", label=value, markersize=4)
    if logarithmic:
        _logarithmic(axes, [row[x[0]] for row in rows])
    if by:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path)
