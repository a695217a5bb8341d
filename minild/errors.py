"""Errors that are the user's to mend."""


class UserError(Exception):
    """A user's mistake: the command line prints its one line and exits 2, a notebook shows the line alone."""

    def _render_traceback_(self):  # IPython's name for what it shows
        return [str(self)]
