"""What a training watches for while it runs: losses that are no numbers, and a discriminator that has collapsed."""

import math

from minild.errors import UserError

EVERY = 10  # steps between two looks at the device's numbers: each look waits for the device
PATIENCE = 200  # steps in a row in which a discriminator shows a sign of collapse, before that is told
NO_LOSS = 1e-3  # a discriminator's loss at most, where it always can tell the pictures apart
NO_DIFFERENCE = 1e-2  # between its mean logits at most, where it cannot tell them apart


class Diverged(UserError):
    """A loss or the gradient of a training is no number any more."""


class Watch:
    """Stops a training whose losses or gradient are NaN or infinite.

    watch.note(step, metrics) after every step. Numbers on the host are looked at at once; those on a GPU every tenth
    step, for a look waits for the device, and up to nine more steps are then taken in vain. watch.check() looks at all
    that is left: it is to be called before anything is saved, so that what was saved before is never replaced by such
    weights.
    """

    def __init__(self, stage):
        self.stage, self.unseen = stage, []

    def note(self, step, metrics):
        """Diverged if a number that is looked at now is none."""
        self.unseen.append((step, metrics))
        on_host = all(isinstance(value, float) or type(value).__module__ == "numpy" for value in metrics.values())
        if on_host or len(self.unseen) >= EVERY:
            self.check()

    def check(self):
        """Diverged names the first step whose numbers are not all finite, and which of them are not."""
        unseen, self.unseen = self.unseen, []
        if math.isfinite(sum(sum(metrics.values()) for _, metrics in unseen)):
            return  # one look for all of them
        for step, metrics in unseen:
            values = {name: float(value) for name, value in metrics.items()}
            faults = {name: value for name, value in values.items() if not math.isfinite(value)}
            if faults:
                raise Diverged(f"stage {self.stage}, step {step:,}: {describe(faults)}, so the training stops")


def describe(faults):
    """{name: number} of those that are not finite, in words: the parts of a loss rather than their sum, and rather than
    the gradient, which is none where a loss is none.
    """
    parts = faults.keys() - {"loss", "gradient_norm"}
    told = [name for name in faults if name in parts] or ["loss" if "loss" in faults else "gradient_norm"]
    words = {"loss": "the loss is", "gradient_norm": "the gradient's norm is"}
    return " and ".join(f"{words.get(name, f'the loss {name!r} is')} {faults[name]:g}" for name in told)


class CollapseWatch:
    """Tells of a discriminator that no longer teaches: once for each sign that it shows for PATIENCE steps in a row.

    Either its loss is 0: it always can tell x from x̂, and its gradient is none or has nowhere to go. Or the mean logits
    of both are equal: it cannot tell them apart at all.
    """

    def __init__(self):
        self.shown, self.told = {}, set()

    def note(self, means):
        """means: those of EVERY steps -> a line to be told, or None. Stages without a discriminator show no sign."""
        loss, real, generated = (means.get(name, 0.0) for name in ("discriminator", "real", "generated"))
        begun = bool(loss or real or generated)  # before, all three are written as 0
        signs = {
            f"its loss is {loss:.1g}, it always tells the pictures apart": loss <= NO_LOSS,
            f"it gives real and generated pictures the same logit, {real:.3g}": abs(real - generated) <= NO_DIFFERENCE,
        }
        for which, (words, there) in enumerate(signs.items()):
            self.shown[which] = self.shown.get(which, 0) + EVERY if begun and there else 0
            if self.shown[which] >= PATIENCE and which not in self.told:
                self.told.add(which)
                return f"the discriminator has collapsed: for {PATIENCE} steps {words}"
        return None
