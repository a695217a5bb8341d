"""The command itself: its help, its exit status, and a stdout that takes nothing."""

import os
import subprocess
import sys

import pytest
import tiny_pipeline
from refusal import refused

from minild import cli

RED = tiny_pipeline.CAPTIONS[0]


def test_help_and_mistakes_in_the_command_itself(run, capsys):
    for command in ([], ["txt2img"], ["train"], ["evaluate"], ["info"]):
        with pytest.raises(SystemExit) as caught:
            cli.main([*command, "--help"])
        assert caught.value.code == 0
        assert capsys.readouterr().out.startswith("usage: minild")
    assert "required: command" in refused(run())
    assert "invalid choice: 'paint'" in refused(run("paint"))
    assert "required: PROMPT" in refused(run("txt2img"))


def test_help_imports_no_array_module():
    program = "import sys, minild.cli; minild.cli._parser(); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_interrupted_and_out_of_memory(draw, monkeypatch):
    def interrupt(*arguments, **settings):
        raise KeyboardInterrupt

    def exhaust(*arguments, **settings):
        raise MemoryError("8 TiB")

    monkeypatch.setattr("minild.pipelines.Pipeline.text_to_image", interrupt)
    assert draw(RED) == (130, "", "")
    monkeypatch.setattr("minild.pipelines.Pipeline.text_to_image", exhaust)
    assert "not enough memory (8 TiB)" in refused(draw(RED))


@pytest.mark.skipif(os.name != "posix", reason="of pipes and devices")
def test_a_stdout_that_takes_nothing(shell, model):
    for arguments in ("--help", f"info {model}"):
        # the reader has gone before the writer begins
        assert shell(f"{{ sleep 0.2; $MINILD {arguments}; echo $? >&2; }} | true") == (0, "", "141\n")
    if os.path.exists("/dev/full"):
        for arguments in ("--help", f"info {model}"):
            said = refused(shell(f"$MINILD {arguments} >/dev/full"))
            assert said == "minild: cannot write to stdout: No space left on device\n"
    said = refused(shell(f"PYTHONIOENCODING=latin-1 $MINILD txt2img 赤い --model {model} --steps 1"))
    assert said == "minild: done, but stdout, in latin-1, has no '\\u8d64\\u3044': set PYTHONIOENCODING=utf-8\n"


def test_python_m_minild_is_the_command(model, tmp_path):
    command = [sys.executable, "-m", "minild", "txt2img", RED, "--model", str(model), "--steps", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("minild: argument --steps: ") and done.stderr.count("\n") == 1
