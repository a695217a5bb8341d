"""`minild playground`: what is refused, each in one line, and a page that Ctrl-C ends."""

import contextlib
import socket
import sys
import threading
import types

import numpy as np
import pytest
import tiny_pipeline
from PIL import Image
from refusal import refused
from safetensors.numpy import save_file

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


@pytest.fixture
def served(gradio, monkeypatch):
    """The Playground of each page that is shown, its port and whether a browser opens it; Ctrl-C ends it at once."""
    served = []

    @contextlib.contextmanager
    def serve(play, port, open_browser):
        served.append((play, port, open_browser))
        assert play.folder.is_dir()
        yield f"http://127.0.0.1:{port}"

    class Interrupted:
        def wait(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(page, "require_free", lambda port: None)
    monkeypatch.setattr(page, "served", serve)
    monkeypatch.setattr(threading, "Event", Interrupted)
    return served


def test_it_prints_the_address_and_ends_quietly(run, served):
    assert run("playground", "--model", "MODEL", "--open") == (0, "http://127.0.0.1:7860\n", "")
    [(play, port, opened)] = served
    assert (play.pipe.default_size, port, opened) == ((8, 8), 7860, True)
    assert play.named["model"].endswith("tiny") and not play.folder.exists()


def test_it_plays_with_what_the_model_has_learnt_since(run, served, lora, tmp_path, monkeypatch):
    save_file({"<thing>": np.ones((1, 8), np.float32)}, tmp_path / "thing.safetensors")
    learnt = ("--lora", f"{lora}:0.5", "--embedding", "thing.safetensors")
    status, _, err = run("playground", "--model", "MODEL", *learnt)
    assert (status, err) == (0, "minild: thing.safetensors: the word <thing>\n")
    [(play, _, _)] = served
    assert list(play.pipe.loras.scales.values()) == [0.5] and play.pipe.tokenizer.tokens("<thing>") == ["<thing>"]
    assert (play.named["lora"], play.named["embedding"]) == ("red.safetensors:0.5", "thing.safetensors")
    monkeypatch.undo()  # what interrupts, and the folder of "."
    editor = {"background": None, "layers": []}
    play.folder.mkdir()
    *_, last = play.draw("somebody", "a <thing>", "", "ddim", 1, 1, 0, 0.5, editor)
    with Image.open(last.file) as image:
        assert image.text["lora"] == "red.safetensors:0.5" and image.text["embedding"] == "thing.safetensors"


def test_what_does_not_fit_is_refused_before_the_page(run, served):
    assert "no such file" in refused(run("playground", "--model", "MODEL", "--lora", "nowhere.safetensors"))
    assert not served
