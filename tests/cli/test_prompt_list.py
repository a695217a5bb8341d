"""minild txt2img --prompts: a list into a folder, what it says, and how it ends."""

import json
import os
import signal

import pytest
import tiny_pipeline
from refusal import refused

from minild.pipelines import Pipeline

RED, GREEN = tiny_pipeline.CAPTIONS


@pytest.fixture
def draw_list(draw, tmp_path):
    """draw_list(lines, ...) -> (status, stdout, stderr) of the list list.jsonl, drawn into the folder out."""

    def call(lines, *options):
        (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        return draw("--prompts", "list.jsonl", "--output", "out", *options)

    return call


def names(folder):
    return sorted(path.name for path in folder.glob("*.png"))


def test_a_list_gives_the_files_that_single_commands_write(draw, draw_list, tmp_path, lora):
    lines = [{"prompt": RED}, {"prompt": GREEN, "seed": 9, "guidance_scale": 2, "clip_skip": 1, "name": "star"}]
    shared = ["--negative-prompt", GREEN, "--guidance-rescale", 0.5, "--lora", lora, "--sampler", "ddpm"]
    assert draw_list(lines, *shared, "--seed", 3) == (0, "2 drawn, 0 already there, 0 failed\n", "")
    draw(RED, *shared, "--seed", 3, "--output", "red.png")
    draw(GREEN, *shared, "--seed", 9, "--guidance", 2, "--clip-skip", 1, "--output", "star.png")
    assert (tmp_path / "out" / "000001.png").read_bytes() == (tmp_path / "red.png").read_bytes()
    assert (tmp_path / "out" / "star.png").read_bytes() == (tmp_path / "star.png").read_bytes()
    assert draw_list(lines, *shared, "--seed", 3) == (0, "0 drawn, 2 already there, 0 failed\n", "")
    assert draw_list(lines, *shared, "--seed", 4)[1] == "1 drawn, 1 already there, 0 failed\n"


def test_lines_that_fail_are_told_and_the_status_is_1(draw_list, tmp_path):
    lines = [{"prompt": RED}, {"promt": RED}, {"prompt": RED, "steps": 0}, {"prompt": RED + " and zzz"}]
    status, out, err = draw_list(lines)
    assert (status, out) == (1, "1 drawn, 0 already there, 3 failed\n")
    first, second, third = err.splitlines()
    assert first.startswith("minild: list.jsonl, line 2: unknown field 'promt': use prompt, negative_prompt, seed")
    assert second == "minild: list.jsonl, line 3: steps: expected 1 to 1000, got 0"
    assert third.startswith("minild: list.jsonl, line 4: a prompt is longer than the 14 tokens that fit: left out")
    assert names(tmp_path / "out") == ["000001.png"]
    results = (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert {entry["line"]: entry["status"] for entry in map(json.loads, results)} == {
        1: "drawn", 2: "failed", 3: "failed", 4: "failed",
    }  # fmt: skip


def test_a_text_file_is_a_prompt_a_line(draw, tmp_path):
    (tmp_path / "list.txt").write_text(f"{RED}\n\n{GREEN}\n", encoding="utf-8")
    assert draw("--prompts", "list.txt", "--output", "a/b")[1] == "2 drawn, 0 already there, 0 failed\n"
    assert names(tmp_path / "a" / "b") == ["000001.png", "000003.png"]


def test_a_list_is_shared_out(draw_list, tmp_path, monkeypatch):
    lines = [{"prompt": RED}] * 3
    assert draw_list(lines, "--share", "1/2") == (0, "share 1/2: 1 drawn, 0 already there, 0 failed\n", "")
    assert names(tmp_path / "out") == ["000002.png"]
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert draw_list(lines)[1] == "share 0/2: 2 drawn, 0 already there, 0 failed\n"
    assert draw_list(lines, "--share", "1/2")[1] == "share 1/2: 0 drawn, 1 already there, 0 failed\n"
    assert draw_list(lines[:1], "--share", "1/2") == (0, "share 1/2: 0 drawn, 0 already there, 0 failed\n", "")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_in_words_and_the_same_command_goes_on(draw_list, monkeypatch, ctrl_c, number, status):
    text_to_image, calls = Pipeline.text_to_image, []

    def interrupted(self, prompts, *rest, **settings):
        calls.append(prompts)
        if len(calls) == 2:
            signal.raise_signal(number)
        return text_to_image(self, prompts, *rest, **settings)

    monkeypatch.setattr("minild.pipelines.Pipeline.text_to_image", interrupted)
    monkeypatch.setattr("minild.pipelines.planning.batch", lambda *shape: 2)
    lines, before = [{"prompt": RED}] * 5, signal.getsignal(number)
    stopped = "minild: stopped: 2 drawn, 0 already there, 0 failed; the same command goes on\n"
    assert draw_list(lines) == (status, "", stopped)
    assert signal.getsignal(number) is before
    assert draw_list(lines) == (0, "3 drawn, 2 already there, 0 failed\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a cloud"], "give prompts or --prompts, not both"),
        (["--count", "2"], "--count is not for --prompts"),
        (["--seed", "1,2"], "--prompts takes one --seed"),
        (["--attention", "a.png"], "--attention is not for --prompts"),
        (["--latents", "a.npy"], "--latents is not for --prompts"),
        (["--control-scale", "0"], "--control-scale is not for --prompts"),
        (["--outline"], "--outline is not for --prompts"),
        (["--with", "a.py"], "--with is not for --prompts"),
        (["--output", "a.png"], "--prompts needs a folder, and --output a.png is called as a file is"),
        (["--output", "list.jsonl"], "cannot write to list.jsonl: "),
        (["--share", "2/2"], "--share: expected K/N such as 0/4, K from 0 to N - 1, got '2/2'"),
        (["--share", "1"], "--share: expected K/N such as 0/4"),
        (["--share=-1/2"], "--share: expected K/N such as 0/4"),
        (["--sampler", "magic"], "unknown sampler 'magic'"),
        (["--prompts", "none.txt"], "cannot read none.txt: "),
        (["--prompts", "list.csv"], "prompts list.csv: expected a file whose name ends in .jsonl or .txt"),
        (["--prompts", "blank.txt"], "blank.txt holds no prompt"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_draws_nothing(draw, tmp_path, arguments, message):
    (tmp_path / "list.jsonl").write_text(json.dumps({"prompt": RED}), encoding="utf-8")
    (tmp_path / "blank.txt").write_text("\n \n", encoding="utf-8")
    assert message in refused(draw("--prompts", "list.jsonl", "--output", "out", *arguments))
    assert not list(tmp_path.rglob("*.png"))


def test_options_that_need_another(draw):
    assert "--prompts needs --output, the folder for the pictures" in refused(draw("--prompts", "list.txt"))
    assert "--share needs --prompts" in refused(draw(RED, "--share", "0/2"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full disk to write to")
def test_a_full_disk_is_one_line(draw_list, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".partial").symlink_to("/dev/full")
    assert "No space left on device" in refused(draw_list([{"prompt": RED}]))
    assert names(tmp_path / "out") == []
