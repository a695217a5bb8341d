"""A process that is killed between two calls of the system, as by SIGKILL: nothing of it runs any more."""

import os
import signal
import warnings

CALLS = ("replace", "rename", "fsync", "mkdir", "rmdir", "unlink", "open")  # of os: what files are written by


def killed_before(call, work):
    """Do work() in a forked process that is killed before its call number `call`, from 0, of one of CALLS -> whether it
    was; False where it came to its end before.
    """
    with warnings.catch_warnings():  # Python warns of locks that other threads may hold; it takes none of theirs
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        kill_before(call)
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def kill_before(call):
    """Let this process, but none that it forks, be killed before that call of one of CALLS."""
    left, own = [call], os.getpid()

    def counted(function):
        def kill_or_call(*arguments, **settings):
            if os.getpid() == own:
                if not left[0]:
                    os.kill(own, signal.SIGKILL)
                left[0] -= 1
            return function(*arguments, **settings)

        return kill_or_call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
