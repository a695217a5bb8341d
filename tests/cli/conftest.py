"""The command line in an empty folder, with a tiny pipeline to draw."""

import importlib
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import tiny_pipeline
from tqdm import tqdm

from minild import cli
from minild.models.lora import add_updates, write_lora


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines") / "tiny"
    tiny_pipeline.make(record=tiny_pipeline.RECORD).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def no_bars(monkeypatch):
    """Quick work shows no bar, for these wait a second; so none is shown where a busy machine makes it slow.

    A bar that does not wait is shown, as ever.
    """
    begin = tqdm.__init__

    def begin_for_ever(self, *arguments, **settings):
        begin(self, *arguments, **(settings | {"delay": float("inf")} if settings.get("delay") else settings))

    monkeypatch.setattr(tqdm, "__init__", begin_for_ever)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, model):
    """run("txt2img", ...) in an empty folder -> (status, stdout, stderr); "MODEL" stands for the tiny pipeline."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        status = cli.main([str(model) if a == "MODEL" else str(a) for a in arguments])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def draw(run):
    return lambda *arguments: run("txt2img", *arguments, "--model", "MODEL", "--steps", 2)


@pytest.fixture
def lora(tmp_path):
    """A file of random updates of the tiny pipeline."""
    pipe, rng = tiny_pipeline.make(), np.random.default_rng(2)
    for update in add_updates(pipe.unet, "unet", "random", 2, None, rng).values():
        update.lora_B.weight.data = rng.standard_normal(update.lora_B.weight.shape).astype("f")
    write_lora(tmp_path / "red.safetensors", {"unet": pipe.unet}, "random")
    return tmp_path / "red.safetensors"


@pytest.fixture
def module(monkeypatch):
    """module("minild.name", function=...): a stand-in that records the calls of its functions."""

    def stand_in(name, **functions):
        calls = []

        def recording(function):
            def call(*arguments, **settings):
                calls.append((arguments, settings))
                return function(*arguments, **settings)

            return call

        module = types.ModuleType(name)
        module.__path__ = getattr(importlib.import_module(name), "__path__", [])  # its own modules are still found
        for key, function in functions.items():
            setattr(module, key, recording(function))
        monkeypatch.setitem(sys.modules, name, module)
        package, _, attribute = name.rpartition(".")
        monkeypatch.setattr(sys.modules[package], attribute, module, raising=False)
        return calls

    return stand_in


@pytest.fixture
def shell(tmp_path):
    """shell(command) -> (status, stdout, stderr) of bash, in which $MINILD is the command."""

    def call(command):
        environment = {**os.environ, "MINILD": f"{sys.executable} -m minild"}
        environment.pop("PYTHONUNBUFFERED", None)
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    return call
