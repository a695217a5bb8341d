"""What of POSIX alone is hidden, as on Windows: minild still imports, draws and trains."""

import subprocess
import sys
import textwrap
from pathlib import Path

import tiny_pipeline

HIDE = textwrap.dedent("""
    import concurrent.futures, multiprocessing.pool, os, pkgutil, signal, subprocess, sys

    import numpy, PIL.Image, safetensors.numpy, threadpoolctl, tqdm  # whose own affair it is

    sys.modules.update(dict.fromkeys(["fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"]))
    for name in ("fork", "register_at_fork", "sched_getaffinity", "killpg", "getpgid", "setsid", "sysconf", "getuid",
                 "geteuid", "nice", "waitpid", "WIFSIGNALED", "pread", "pwrite"):
        vars(os).pop(name, None)
    kept = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}  # those that Windows has
    for name in [name for name in vars(signal) if name.startswith("SIG") and name[3:4].isalpha()]:
        if name not in kept:
            delattr(signal, name)
    for name in ("alarm", "setitimer", "pthread_sigmask", "sigwait", "pause"):
        vars(signal).pop(name, None)
    sys.platform = "win32"
""")
OPTIONAL = ("minild.playground.page", "minild._data")  # gradio's; no code of minild's


def run(code, *arguments):
    command = [sys.executable, "-W", "error", "-c", HIDE + textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_imports():
    said = run(f"""
        import importlib, minild

        names = [found.name for found in pkgutil.walk_packages(minild.__path__, "minild.")]
        names = [name for name in names if not name.startswith({OPTIONAL}) and name != "minild.__main__"]
        for name in names:
            importlib.import_module(name)
        print(len(names))
    """)
    assert int(said) > 150


def test_it_draws(tmp_path):
    tiny_pipeline.make(record=tiny_pipeline.RECORD).save_pretrained(tmp_path / "tiny")
    (tmp_path / "list.txt").write_text("red\ngreen\n", encoding="utf-8")
    code = """
        from minild import cli

        folder = sys.argv[1]
        drawn = ["--model", f"{folder}/tiny", "--steps", "1", "--output"]
        assert cli.main(["txt2img", "red", *drawn, f"{folder}/red.png"]) == 0
        assert cli.main(["txt2img", "--prompts", f"{folder}/list.txt", *drawn, f"{folder}/out"]) == 0
    """
    assert run(code, tmp_path).endswith("2 drawn, 0 already there, 0 failed\n")
    assert (tmp_path / "out" / "000001.png").read_bytes() == (tmp_path / "red.png").read_bytes()


def test_it_trains(tmp_path):
    code = """
        sys.path.insert(0, sys.argv[2])
        from training.tiny_preset import TINY

        from minild import training

        training.train("shapes", sys.argv[1], steps=2, preset=TINY)
    """
    run(code, tmp_path / "out", Path(__file__).parent)
    assert (tmp_path / "out" / "model_index.json").exists()
