"""Reading lists of prompts: what a line may say, what is refused, and whose line it is."""

import json
import tracemalloc

import pytest

from minild.errors import UserError
from minild.pipelines.prompt_lists import Asked, Defaults, Settings, Unusable, count_lines, read_list

DEFAULTS = Defaults("fog", 10, Settings(steps=7, sampler="ddim"))


def read(prompts, share=(0, 1)):
    return list(read_list(prompts, DEFAULTS, share))


def reason(line):
    [unusable] = read([line] if isinstance(line, dict) else line)
    assert isinstance(unusable, Unusable)
    return unusable.reason


@pytest.fixture
def written(tmp_path):
    """written(b"...", ".txt"): the path of a file that holds that."""

    def write(content, ending=".jsonl"):
        path = tmp_path / f"list{ending}"
        path.write_bytes(content)
        return path

    return write


def test_a_line_says_what_differs_from_the_defaults(written):
    every = {
        "prompt": "an apple", "negative_prompt": "", "seed": 3, "steps": 5, "guidance_scale": 2, "sampler": "ddpm",
        "size": [40, 52], "clip_skip": 1, "guidance_rescale": 0.5, "name": "apple",
    }  # fmt: skip
    null = {"prompt": "a cloud", "seed": None, "size": None, "name": None}
    path = written("\n".join(map(json.dumps, [every, null])).encode())
    assert read(path) == [
        Asked(1, "apple.png", "an apple", "", 3, Settings(5, 2.0, "ddpm", (40, 52), 1, 0.5)),
        Asked(2, "000002.png", "a cloud", "fog", 11, DEFAULTS.settings),
    ]
    assert read([every, null]) == read(path)


@pytest.mark.parametrize("size", [40, "40", [40], "40x40", "40X40", (40, 40)])
def test_a_size_is_written_in_any_way(size):
    [asked] = read([{"prompt": "x", "size": size}])
    assert asked.settings.size == (40, 40)


def test_a_text_file_has_a_prompt_a_line_and_blank_ones_keep_the_numbers(written):
    path = written("\ufeffan apple\r\n\r\n  \n{a cloud \n赤い 丸".encode(), ".TXT")
    expected = [(1, "an apple", 10), (4, "{a cloud", 13), (5, "赤い 丸", 14)]
    assert [(asked.line, asked.prompt, asked.seed) for asked in read(path)] == expected
    assert count_lines(path) == 3 and count_lines(path, (1, 2)) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"promt": "x", "prompt": "x"}, "unknown field 'promt': use prompt, negative_prompt, seed"),
        ({}, "it has no prompt: say what to draw"),
        ({"prompt": None}, "it has no prompt: say what to draw"),
        ({"prompt": " "}, "the prompt is empty: say what to draw"),
        ({"prompt": ["x"]}, "prompt must be a text, got ['x']"),
        ({"prompt": "\udcff"}, "a prompt is not valid text"),
        ({"prompt": "x", "negative_prompt": 3}, "negative_prompt must be a text, got 3"),
        ({"prompt": "x", "seed": -1}, "seed must be a whole number from 0, got -1"),
        ({"prompt": "x", "seed": 1.5}, "seed must be a whole number from 0, got 1.5"),
        ({"prompt": "x", "steps": True}, "steps must be a whole number from 0, got True"),
        ({"prompt": "x", "steps": "20"}, "steps must be a whole number from 0, got '20'"),
        ({"prompt": "x", "guidance_scale": float("nan")}, "guidance_scale must be a finite number, got nan"),
        ({"prompt": "x", "guidance_scale": 10**400}, "guidance_scale must be a finite number, got 1000"),
        ({"prompt": "x", "size": "8x8x8"}, "size must be one such as 64 or [48, 64]"),
        ({"prompt": "x", "size": 0}, "size must be one such as 64 or [48, 64]"),
        ({"prompt": "x", "size": 4096}, "(height, width, up to 2048), got 4096"),
        ({"prompt": "x", "size": []}, "size must be one such as 64 or [48, 64]"),
        ({"prompt": "x", "name": "a/b"}, "name 'a/b' is no name of a file"),
        ({"prompt": "x", "name": "..\\b"}, "is no name of a file"),
        ({"prompt": "x", "name": ".lock"}, "name '.lock' is no name of a file"),
        ({"prompt": "x", "name": ""}, "name '' is no name of a file"),
        ({"prompt": "x", "name": "é" * 101}, "is no name of a file: at most 200 bytes"),
        ({"prompt": "x", "name": "\udcff"}, "not valid text"),
    ],
)
def test_a_line_that_cannot_be_used_is_told(fields, message):
    assert message in reason(fields)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"an apple", "it is not JSON: "),
        (b'["an apple"]', 'expected {"prompt": ...}, got ["an apple"]'),
        (b'{"prompt": "x", "prompt": "y"}', "it is not JSON: a key appears twice in it"),
        (b"[" * 60_000, "it is not JSON: "),
        (b'{"prompt": "\xff"}', "it is not UTF-8"),
        (b'{"prompt": "' + b"x" * 200_000 + b'"}', "it is longer than 65,536 bytes"),
    ],
)
def test_a_broken_line_costs_no_other(written, line, message):
    first, broken, last = read(written(b'{"prompt": "x"}\n' + line + b'\n{"prompt": "y"}'))
    assert (first.prompt, last.prompt, last.line) == ("x", "y", 3)
    assert broken.line == 2 and message in broken.reason


@pytest.mark.parametrize("name", ["apple.png", "APPLE", "apple", "apple.PNG "])
def test_two_lines_never_share_a_file(name):
    first, second = read([{"prompt": "x", "name": "apple"}, {"prompt": "y", "name": name}])
    assert first.name == "apple.png"
    assert second.reason.startswith("line 1 has the name ")
    first, second = read([{"prompt": "x", "name": "000002"}, "y"])
    assert second.reason == "line 1 has the name '000002.png', too: give each line its own"


def test_shares_are_all_lines_each_once_and_agree_on_names(written):
    lines = [{"prompt": f"{i}", "name": f"{i % 7}"} for i in range(20)]
    path = written("\n".join(map(json.dumps, lines)).encode())
    shares = [read(path, (rank, 3)) for rank in range(3)]
    assert [one.line for one in shares[1]] == [2, 5, 8, 11, 14, 17, 20]
    assert sorted((one for share in shares for one in share), key=lambda one: one.line) == read(path)
    assert [count_lines(path, (rank, 3)) for rank in range(3)] == [7, 7, 6]


@pytest.mark.parametrize(
    ("content", "ending", "message"),
    [
        (b"", ".csv", r"prompts .*list.csv: expected a file whose name ends in .jsonl or .txt"),
        ("an apple".encode("utf-16"), ".txt", "list.txt is not UTF-8: save it in that encoding"),
    ],
)
def test_a_file_of_another_kind_is_refused(written, content, ending, message):
    with pytest.raises(UserError, match=message):
        read(written(content, ending))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*none\.txt: No such file"):
        read(tmp_path / "none.txt")


def test_what_is_neither_a_text_nor_a_dict():
    assert [one.reason for one in read([3])] == ["expected a text or a dict, got a int"]


def test_a_long_list_takes_little_memory(written):
    """5,000 lines, 12 MB: the name of each is all that stays."""
    path = written((json.dumps({"prompt": "x" * 2500}) + "\n").encode() * 5_000)
    tracemalloc.start()
    lines = sum(1 for _ in read_list(path, DEFAULTS, (0, 1)))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lines == 5_000 and most < 2e6
