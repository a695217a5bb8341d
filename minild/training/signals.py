"""SIGINT, which is Ctrl-C, and SIGTERM: both ask a training to save and to leave."""

import contextlib
import signal
import threading

from minild.errors import Terminated

ASKED = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}  # what is raised for each


class HeldSignals:
    """Within it, the first of the signals only sets `came`, to what is to be raised for it; the second is not held up.

    Only the main thread can say so; elsewhere all is as ever.
    """

    def __enter__(self):
        self.came, self.previous = None, {}
        if _in_main_thread():
            self.previous = {number: signal.signal(number, self._note) for number in ASKED}
        return self

    def _note(self, number, frame):
        self.came = ASKED[number]
        self._give_back()

    def __exit__(self, *exception):
        self._give_back()

    def _give_back(self):
        for number, handler in self.previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def sigterm_raises():
    """Within it SIGTERM raises Terminated, wherever the main thread is, as Ctrl-C raises KeyboardInterrupt."""

    def end(number, frame):
        raise Terminated

    previous = signal.signal(signal.SIGTERM, end) if _in_main_thread() else None
    try:
        yield
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _in_main_thread():
    return threading.current_thread() is threading.main_thread()
