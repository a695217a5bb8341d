"""A library in a process of its own, so that neither its memory nor its settings are those of the other."""

import importlib
import multiprocessing
import traceback

from minild.errors import UserError

from .isa import changed

CLASSES = {
    "minild": (".ours", "Minild"),
    "PyTorch": (".theirs", "PyTorch"),
    "OpenVINO": (".peers", "OpenVINO"),
    "ONNX Runtime": (".peers", "OnnxRuntime"),
    "exporter": (".export", "Exporter"),
    "profiler": (".profile", "Profiler"),
    "writer": (".works", "Writer"),
}


class Child:
    """with Child(name, *args) as child: child.call(method, ...) of the object CLASSES[name](*args) that lives there.

    environment  {variable: value, or None to remove it} of its process
    """

    def __init__(self, name, *args, environment=None):
        context = multiprocessing.get_context("spawn")  # it shall hold nothing of ours
        self._connection, other_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(other_end, name, args))
        with changed(environment or {}):
            self._process.start()
        other_end.close()
        try:
            self._receive()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._connection.close()  # which ends its loop
        self._process.join(10)
        self._process.terminate()  # no daemon, which could have no processes of its own, so it has to be ended

    def call(self, method, *args):
        """The method's result. UserError as it was raised there; RuntimeError with the traceback of any other."""
        self._connection.send((method, args))
        return self._receive()

    def _receive(self):
        try:
            outcome, value = self._connection.recv()
        except EOFError:
            self._process.join(10)
            code = self._process.exitcode
            raise RuntimeError(f"a process ended with {code}: for want of memory, if that is -9") from None
        if outcome == "user error":
            raise UserError(value)
        if outcome == "error":
            raise RuntimeError(value)
        return value


def _serve(connection, name, args):
    module, attribute = CLASSES[name]
    thing = None
    while True:
        try:
            if thing is None:
                thing, value = getattr(importlib.import_module(module, __package__), attribute)(*args), None
            else:
                method, args = connection.recv()
                value = getattr(thing, method)(*args)
            connection.send(("done", value))
        except (EOFError, BrokenPipeError, KeyboardInterrupt):
            return
        except UserError as error:
            connection.send(("user error", str(error)))
        except Exception:
            connection.send(("error", traceback.format_exc()))
        if thing is None:
            return
