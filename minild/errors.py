"""Errors that are the user's to mend, and the request to end."""

from minild.shown import shown


class UserError(Exception):
    """A user's mistake: the command line prints its one line and exits 2, a notebook shows the line alone.

    The line may quote a stranger's file: as a text, it is one that can be shown (minild.shown).
    """

    def __str__(self):
        return shown(super().__str__())

    def _render_traceback_(self):  # IPython's name for what it shows
        return [str(self)]


class Terminated(KeyboardInterrupt):
    """SIGTERM came: the program is asked to end, as by Ctrl-C."""
