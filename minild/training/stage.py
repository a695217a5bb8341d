"""What goes on around the steps of a stage: journal, sample sheets, saves, and an orderly stop on Ctrl-C."""

import signal
import sys
import threading

from minild.training.journal import Journal
from minild.training.watch import Watch

SHEETS = 4  # sample sheets a stage
SAVE_EVERY = 120.0  # seconds between two saves


def run_stage(name, steps, batch_size, budget, folder, draw_sheet, save):
    """Take the steps of loop.training_steps, which end with the budget.

    draw_sheet(path) draws what the model makes of the samples; save() writes what a resume needs, now and then and at
    the end. Ctrl-C lets the step in hand end, saves, and is then passed on as KeyboardInterrupt; a second one is not
    held up. watch.Diverged where a loss or the gradient is no number any more: nothing is then drawn or saved, and what
    was saved before stays. A stage that ends without a step says so on stderr.
    """
    saved_at, sheet, watch = budget.elapsed, int(budget.progress * SHEETS) + 1, Watch(name)
    with Journal(folder, name, budget, batch_size) as journal, _HeldInterrupt() as interrupt:
        for step, losses in steps:
            watch.note(step, losses)
            journal.note(losses)
            if budget.progress >= sheet / SHEETS:
                sheet += 1
                watch.check()
                draw_sheet(folder / f"{name}-{step:06d}.png")
            if budget.elapsed - saved_at > SAVE_EVERY:
                saved_at = budget.elapsed
                watch.check()
                save()
            if interrupt.came:
                break
        watch.check()
        save()
        if interrupt.came:
            raise KeyboardInterrupt
    if not budget.taken:
        print(f"minild: stage {name} had no time for a step and learned nothing: give more time", file=sys.stderr)


class _HeldInterrupt:
    """Within it, the first Ctrl-C only sets `came`. Only the main thread can say so; elsewhere all is as ever."""

    def __enter__(self):
        self.came = False
        self.in_main_thread = threading.current_thread() is threading.main_thread()
        if self.in_main_thread:
            self.previous = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number, frame):
        self.came = True
        signal.signal(signal.SIGINT, self.previous)

    def __exit__(self, *exception):
        if self.in_main_thread:
            signal.signal(signal.SIGINT, self.previous)
