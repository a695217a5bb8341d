"""What a training shows and writes while it runs: a progress bar, metrics.jsonl, a loss plot."""

import json
import math
import os
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from minild.durable import whole_file
from minild.reading import parse_json
from minild.training.watch import EVERY, CollapseWatch, Diverged

LONGEST_LINE = 1 << 16  # bytes of metrics.jsonl: half of a longer one is no JSON, and goes


class Journal:
    """with Journal(folder, stage, budget, batch_size) as journal: journal.note(metrics) after every step.

    A line of metrics.jsonl holds the means of ten steps and the share of the stage that is over ("progress"), or a
    warning; the last line of a training that diverged says so ("diverged").

    since: what came since the last line, a dict that is changed in place: "count", of steps, "sums", of their metrics,
    and "began", in seconds. With what was saved of it, a training that goes on writes the lines of one that never
    stopped.
    """

    def __init__(self, folder, stage, budget, batch_size, since=None):
        self.path, self.stage, self.budget, self.batch_size = folder / "metrics.jsonl", stage, budget, batch_size
        self.since, self.collapse = {} if since is None else since, CollapseWatch()

    def __enter__(self):
        if not self.since:
            self.since.update(count=0, sums={}, began=self.budget.elapsed)
        form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        self.bar = tqdm(total=1.0, initial=self.budget.progress, desc=self.stage, bar_format=form, dynamic_ncols=True)
        self.file = open(self.path, "a", encoding="utf-8")
        return self

    def __exit__(self, kind, error, traceback):
        if isinstance(error, Diverged):
            self._write(diverged=str(error))
        self._move_bar()
        self.bar.close()
        self.file.close()

    def note(self, metrics):
        """Add up the step's numbers on the device; every tenth step, write their means and move the bar."""
        since = self.since
        since["sums"] = {name: since["sums"].get(name, 0) + metrics[name] for name in metrics}
        since["count"] += 1
        if since["count"] == EVERY:
            means = {name: float(total) / EVERY for name, total in since["sums"].items()}
            now = self.budget.elapsed
            speed = EVERY * self.batch_size / max(1e-9, now - since["began"])
            passed = {"seconds": round(now, 2), "progress": round(self.budget.progress, 5)}
            self._write(**passed, **means, images_per_second=round(speed, 1))
            shown = f"step {self.budget.taken}, loss {means['loss']:.4f}, {speed:.0f} images/s"
            if "codebook_use" in means:
                shown += f", codes {means['codebook_use']:.0%}, perplexity {means['perplexity']:.0f}"
            self.bar.set_postfix_str(shown, False)
            self._move_bar()
            since.update(count=0, sums={}, began=now)
            if warning := self.collapse.note(means):
                self._write(warning=warning)
                self.bar.write(f"minild: stage {self.stage}, step {self.budget.taken:,}: {warning}", sys.stderr)

    def flush(self):
        """Wait until the disk holds all lines."""
        os.fsync(self.file.fileno())

    def _write(self, **entry):
        """A line of metrics.jsonl, at once."""
        self.file.write(json.dumps({"stage": self.stage, "step": self.budget.taken, **entry}) + "\n")
        self.file.flush()

    def _move_bar(self):
        self.bar.update(self.budget.progress - self.bar.n)


def metrics_lines(path):
    """Yield the lines of metrics.jsonl as bytes, one that is too long in pieces; none where there is no such file."""
    if path.is_file():
        with open(path, "rb") as file:
            while line := file.readline(LONGEST_LINE):
                yield line


def cut_back(path, taken):
    """Take out of metrics.jsonl what came after a save: half a line, and those of steps beyond `taken`, {stage: steps}.
    """
    lines, kept = 0, []
    for line in metrics_lines(path):
        lines += 1
        kept += [line] if _is_within(line, taken) else []
    if len(kept) != lines:
        with whole_file(path) as beside:
            beside.write_bytes(b"".join(kept))


def _is_within(line, taken):
    try:
        entry = parse_json(line.decode("utf-8"))
        loss, step = entry.get("loss", 0), entry["step"]
        float(loss), loss + 0  # neither a text nor a number that no float holds
        return line.endswith(b"\n") and type(step) is int and 0 <= step <= taken[entry["stage"]]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        return False


def plot_losses(metrics_path, path):
    """Draw the loss of each stage over its steps, on a logarithmic axis, from metrics.jsonl to a PNG."""
    curves = {}
    for line in metrics_path.read_bytes().splitlines():  # of bytes: a text may hold other ends of lines
        entry = json.loads(line)
        loss = entry.get("loss", 0)  # a warning has none, and no axis holds the loss of a training that diverged
        if math.isfinite(loss) and loss > 0:
            curves.setdefault(entry["stage"], []).append((entry["step"], loss))
    width, height, left, bottom = 480, 320, 60, 40
    image = Image.new("RGB", (width * max(1, len(curves)), height), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=12)
    for i, (stage, points) in enumerate(curves.items()):
        steps, losses = np.array(points, float).T
        x0, y0, x1, y1 = i * width + left, 30, (i + 1) * width - 20, height - bottom
        low, high = np.log10(losses.min()) - 0.02, np.log10(losses.max()) + 0.02
        draw.text((x0, 8), f"{stage}: loss over steps", fill="black", font=font)
        for exponent in np.linspace(low, high, 5):
            y = y1 - (exponent - low) / (high - low) * (y1 - y0)
            draw.line((x0, y, x1, y), fill=(225, 225, 225))
            draw.text((x0 - 8, y), f"{10**exponent:.3g}", fill="black", font=font, anchor="rm")
        for share in (0, 0.5, 1):
            label = f"{round(share * steps[-1])}"
            draw.text((x0 + share * (x1 - x0), y1 + 8), label, fill="black", font=font, anchor="ma")
        draw.rectangle((x0, y0, x1, y1), outline=(120, 120, 120))
        xs = x0 + steps / steps[-1] * (x1 - x0)
        ys = y1 - (np.log10(losses) - low) / (high - low) * (y1 - y0)
        draw.line(list(zip(xs, ys)), fill=(0, 114, 178), width=2)
    image.save(path)
