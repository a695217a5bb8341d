"""Two trainings never write to one folder, and a lock never outlives its training."""

import os
import signal
import subprocess
import sys
import time
import warnings

import pytest

from minild import training
from minild.errors import UserError
from minild.training import run
from minild.training.lock import only_training

WORDS = "another training is at work in .*out: wait until it ends, or name another folder"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


def fork():
    with warnings.catch_warnings():  # Python warns of locks that other threads may hold; it takes none of theirs
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def is_free(output):
    try:
        with only_training(output):
            return True
    except UserError:
        return False


def test_the_second_is_refused_until_the_first_is_done(tmp_path):
    with only_training(tmp_path / "out"):
        with pytest.raises(UserError, match=f"^{WORDS}$"), only_training(tmp_path / "out"):
            pass
        assert is_free(tmp_path / "other") and not is_free(tmp_path / "out")
    assert is_free(tmp_path / "out")


def test_the_lock_dies_with_its_process_though_a_forked_helper_lives(tmp_path):
    """As where the system, for want of memory, kills a training: its helpers see that only at their next word."""
    reader, writer = os.pipe()
    holder = fork()
    if not holder:
        with only_training(tmp_path):
            helper = fork()
            if not helper:
                os.close(reader)
                time.sleep(60)
                os._exit(0)
            os.write(writer, str(helper).encode())
            time.sleep(60)
            os._exit(0)
    helper = int(os.read(reader, 20))
    assert not is_free(tmp_path)
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    os.kill(helper, 0)  # it is there
    assert is_free(tmp_path)
    os.kill(helper, signal.SIGKILL)


def tree(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def test_a_second_training_is_refused_and_writes_nothing(tmp_path):
    out = tmp_path / "out"
    run.checkpoints.Path.mkdir(out / "training", parents=True)
    run.checkpoints.write(out, run.first_state("shapes", 32, 0, None, 1, run.preset_for("shapes").choices), {})
    with only_training(out):
        before = tree(out)
        with pytest.raises(UserError, match=WORDS):
            training.train("shapes", out, resume=True)
        assert tree(out) == before


def test_a_first_training_that_comes_second_is_refused(tmp_path, monkeypatch):
    """Both found an empty folder; one was faster to lock it."""
    monkeypatch.setattr(run, "Run", lambda output, *rest: None)
    with only_training(tmp_path / "out"), pytest.raises(UserError, match=WORDS):
        training.train("shapes", tmp_path / "out", steps=1)


def test_a_second_fine_tuning_is_refused(tmp_path, model, bare, no_sheets):
    out = tmp_path / "out.safetensors"
    with only_training(out, tmp_path / "out-training"):
        with pytest.raises(UserError, match=r"another training is at work in .*out\.safetensors"):
            training.train_lora(model, bare, out, prompt="a thing", steps=1)
        assert not out.exists()
    assert training.train_lora(model, bare, out, prompt="a thing", steps=1) == 1 and out.exists()


def test_a_folder_that_cannot_be_locked_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^cannot write to .*file: (Not a directory|File exists)$"):
        with only_training(tmp_path / "file"):
            pass


def test_nothing_of_posix_is_needed_to_import_a_training():
    """A stand-in for Windows: what it lacks is not there to be imported."""
    missing = "sys.modules.update(dict.fromkeys(['fcntl', 'resource', 'pwd', 'termios']))"
    code = f"import sys; {missing}; import minild.training, minild.cli.train, minild.training.signals"
    subprocess.run([sys.executable, "-c", code], check=True)
