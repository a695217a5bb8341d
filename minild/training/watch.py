"""What a training watches for while it runs: losses that are no numbers, a discriminator or codebook that collapses."""

import math

from minild.errors import UserError

EVERY = 10  # steps between two looks at the device's numbers: each look waits for the device
PATIENCE = 200  # steps in a row in which a discriminator shows a sign of collapse, before that is told
NO_LOSS = 1e-3  # a discriminator's loss at most, where it always can tell the pictures apart
NO_DIFFERENCE = 1e-2  # between its mean logits at most, where it cannot tell them apart


class Diverged(UserError):
    """A loss or the gradient of a training is no number any more: faults {name: number} of that stage's step."""

    def __init__(self, stage, step, faults):
        super().__init__(f"stage {stage}, step {step:,}: {describe(faults)}, so the training stops")
        self.stage, self.step, self.faults = stage, step, faults


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
                raise Diverged(self.stage, step, faults)


def describe(faults):
    """{name: number} of those that are not finite, in words: the parts of a loss rather than their sum, and rather than
    the gradient, which is none where a loss is none.
    """
    parts = faults.keys() - {"loss", "gradient_norm"}
    told = [name for name in faults if name in parts] or ["loss" if "loss" in faults else "gradient_norm"]
    words = {"loss": "the loss is", "gradient_norm": "the gradient's norm is"}
    return " and ".join(f"{words.get(name, f'the loss {name!r} is')} {faults[name]:g}" for name in told)


class CollapseWatch:
    """Tells of a discriminator or a codebook that has collapsed, once for each time and each sign.

    A discriminator teaches no more where its loss is 0, for it always can tell x from x̂, and its gradient is none; or
    where the mean logits of both are equal: it cannot tell them apart at all. Either has to last for PATIENCE steps. Of
    a codebook the metric "codebook_collapsed" says so (codebook.CodebookTracker).
    """

    def __init__(self):
        self.lasted, self.told = {}, set()

    def note(self, means):
        """means: those of EVERY steps -> a line to be told, or None. Stages that have neither show no sign."""
        loss, real, generated = (means.get(name, 0.0) for name in ("discriminator", "real", "generated"))
        begun = bool(loss or real or generated)  # before, all three are written as 0
        of_discriminator = f"the discriminator has collapsed: for {PATIENCE} steps "
        signs = [
            (begun and loss <= NO_LOSS, PATIENCE,
             f"{of_discriminator}its loss is {loss:.1g}, it always tells the pictures apart"),
            (begun and abs(real - generated) <= NO_DIFFERENCE, PATIENCE,
             f"{of_discriminator}it gives real and generated pictures the same logit, {real:.3g}"),
            (means.get("codebook_collapsed", 0) > 0, EVERY,
             f"the codebook has collapsed: only {means.get('codebook_use', 0):.1%} of the codes are in use; let moving "
             "averages move the codes (codebook_moves), or take fewer codes or a larger commitment"),
        ]  # fmt: skip
        for which, (there, patience, words) in enumerate(signs):
            self.lasted[which] = self.lasted.get(which, 0) + EVERY if there else 0
            if not there:
                self.told.discard(which)
            elif self.lasted[which] >= patience and which not in self.told:
                self.told.add(which)
                return words
        return None
