"""`minild playground`: what is refused, each in one line, and a page that Ctrl-C ends."""

import contextlib
import socket
import sys
import threading
import types

import pytest
import tiny_pipeline
from refusal import refused

from minild.playground import page


@pytest.fixture
def gradio(monkeypatch):
    """A stand-in for the library, which the tests of the command do without."""
    monkeypatch.setitem(sys.modules, "gradio", types.ModuleType("gradio"))


def test_without_gradio_it_says_how_to_get_it(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert 'pip install "minild[playground]"' in refused(run("playground", "--model", "MODEL"))


def test_a_port_that_is_taken(run, gradio):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(run("playground", "--model", "MODEL", "--port", port))
        assert said.startswith(f"minild: port {port} cannot be used (") and "choose another by --port" in said


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_numbers_that_are_no_port(run, port):
    assert "argument --port: expected a" in refused(run("playground", "--port", port))


def test_models_that_are_not_there_or_take_no_words(run, gradio, monkeypatch):
    monkeypatch.setattr(page, "require_free", lambda port: None)
    assert "nowhere" in refused(run("playground", "--model", "nowhere"))
    classes = tiny_pipeline.make(record={"condition": "class"})
    monkeypatch.setattr("minild.cli.playground.open_pipeline", lambda arguments: classes)
    said = refused(run("playground", "--model", "classes"))
    assert "the playground draws from words, and what leads this model is class" in said


def test_it_prints_the_address_and_ends_quietly(run, gradio, monkeypatch):
    served = []

    @contextlib.contextmanager
    def serve(play, port, open_browser):
        served.append((play.pipe.default_size, play.named["model"], port, open_browser, play.folder))
        assert play.folder.is_dir()
        yield f"http://127.0.0.1:{port}"

    class Interrupted:
        def wait(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(page, "require_free", lambda port: None)
    monkeypatch.setattr(page, "served", serve)
    monkeypatch.setattr(threading, "Event", Interrupted)
    assert run("playground", "--model", "MODEL", "--open") == (0, "http://127.0.0.1:7860\n", "")
    [(size, model, port, opened, folder)] = served
    assert (size, port, opened) == ((8, 8), 7860, True) and model.endswith("tiny") and not folder.exists()
