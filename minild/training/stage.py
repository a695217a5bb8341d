"""What goes on around the steps of a stage: journal, sample sheets, saves, an orderly stop on SIGINT and SIGTERM."""

import sys

from minild.training.journal import Journal
from minild.training.ranks import ALONE
from minild.training.signals import HeldSignals
from minild.training.watch import Watch

SHEETS = 4  # sample sheets a stage
SAVE_EVERY = 120.0  # seconds between two saves


def run_stage(name, steps, batch_size, budget, folder, draw_sheet, save, since=None, ranks=ALONE):
    """Take the steps of loop.training_steps, which end with the budget.

    draw_sheet(path) draws what the model makes of the samples; save() writes what a resume needs, now and then and at
    the end; `since` is the Journal's. SIGINT (Ctrl-C) or SIGTERM lets the step in hand end, saves, and is then raised
    as KeyboardInterrupt or errors.Terminated; a second one is not held up. watch.Diverged where a loss or the gradient
    is no number any more: nothing is then drawn or saved, and what was saved before stays. A stage that ends without a
    step says so on stderr. The `ranks` beside the first only follow_stage.
    """
    saved_at, sheet, watch = budget.elapsed, int(budget.progress * SHEETS) + 1, Watch(name)
    with Journal(folder, name, budget, batch_size, since) as journal, HeldSignals() as signals:

        def save_all():
            watch.check()
            journal.flush()
            save()

        came = None
        for step, losses in steps:
            watch.note(step, losses)
            journal.note(losses)
            if budget.progress >= sheet / SHEETS:
                sheet += 1
                watch.check()
                draw_sheet(folder / f"{name}-{step:06d}.png")
            if budget.elapsed - saved_at > SAVE_EVERY:
                saved_at = budget.elapsed
                save_all()
            if came := ranks.agree(signals.came):
                break
        save_all()
        ranks.wait()
        if came:
            raise came
    if not budget.taken:
        print(f"minild: stage {name} had no time for a step and learned nothing: give more time", file=sys.stderr)


def follow_stage(name, steps, ranks):
    """What a rank does while the first is in run_stage: it takes the steps, and stops where that stops. It writes
    nothing, and waits for the last save.
    """
    watch, came = Watch(name), None
    with HeldSignals() as signals:
        for step, losses in steps:
            watch.note(step, losses)
            if came := ranks.agree(signals.came):
                break
        watch.check()
        ranks.wait()
        if came:
            raise came
