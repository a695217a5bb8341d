"""`--with FILE.py` from end to end: right, wrong, slow and malformed files, on the real engine."""

import re
import sys

import numpy as np
import pytest
from PIL import Image
from refusal import refused

from minild.course.find import tasks_of
from minild.course.help import solution
from minild.course.stubs import exercise_text
from minild.data.location import data_path
from minild.engine.cores import core_count

RIGHT = """
import numpy as np

def silu(x):
    gate = 1 / (1 + np.exp(-x))
    return x * gate, (x, gate)

def silu_backward(dy, cache):
    x, gate = cache
    return dy * gate * (1 + x * (1 - gate))
"""
SLOW = RIGHT.replace("import numpy as np", "import time\nimport numpy as np").replace(
    "    gate = 1 /", "    time.sleep(0.01)\n    gate = 1 /"
)
DRAW = ["txt2img", "red apple", "--steps", "3"]


@pytest.fixture
def own(tmp_path):
    """own(text): my_ops.py with that text, in the folder where `run` runs."""

    def write(text):
        (tmp_path / "my_ops.py").write_text(text, encoding="utf-8")
        return ["--with", "my_ops.py"]

    return write


@pytest.mark.parametrize("text", [RIGHT, SLOW], ids=["right", "slow"])
def test_a_right_file_draws_the_same_picture_and_says_how_long(run, own, text):
    status, out, err = run(*DRAW, "--output", "own.npy", *own(text))
    assert (status, out) == (0, "own.npy\n")
    told = err.splitlines()
    assert "with my_ops.py (silu): " in told[-2] and " s for the picture, " in told[-2]
    seconds = [float(word) for word in told[-2].split() if word.replace(".", "", 1).isdigit()]
    calls = re.fullmatch(r"minild: silu was called (\d+) times; the two pictures differ by at most [\de.-]+", told[-1])
    assert int(calls[1]) > 3
    if text is SLOW:
        assert seconds[0] > seconds[1]
    assert run(*DRAW, "--output", "ours.npy")[0] == 0
    difference = np.abs(np.load("own.npy") - np.load("ours.npy")).max()
    assert 0 < difference < 1e-3  # another SiLU, and the same mathematics


WRONG_PAIRS = [
    (RIGHT.replace("return dy * gate", "return -dy * gate"), "silu_backward: gradient is wrong"),
    (RIGHT + "\ndef gelu(x):\n    return x, x\n", "defines gelu without gelu_backward"),
]
WRONG = [
    (RIGHT.replace("x * gate, (x", "1.1 * x * gate, (x"), "my_ops.py: silu: y is wrong: off by"),
    (RIGHT.replace("x * gate, (x", "(x * gate)[:1], (x"), "silu: y has shape (1, 5, 6), expected (2, 5, 6)"),
    (RIGHT.replace("(x, gate)", "(x, gate), 1"), "silu must return y, cache"),
    (RIGHT.replace("1 / (1 +", "1 / (nothing +"), "my_ops.py, line 5: NameError: name 'nothing' is not defined"),
    (RIGHT.replace("silu", "sillu"), "my_ops.py: sillu is no op, did you mean silu?"),
    (RIGHT.replace("def silu(x)", "def silu(x, y)"), "my_ops.py: expected silu(x), got silu(x, y)"),
    ("import numpy as np\n", "my_ops.py defines no op"),
    ("def silu(:\n", "my_ops.py, line 1: invalid syntax"),
    ("", "my_ops.py defines no op"),
]
OTHERS = [["evaluate", "emoji"], ["train", "shapes", "--output", "made"]]


@pytest.mark.parametrize(("command", "text", "message"), [
    *((command, *wrong) for command in [DRAW, *OTHERS] for wrong in WRONG),
    *((command, *wrong) for command in OTHERS for wrong in WRONG_PAIRS),
])
def test_a_wrong_file_is_refused_before_the_work(run, own, command, text, message):
    assert message in refused(run(*command, *own(text)))


def write(stubs, number):
    """A file of exercises with one of them written, as the worked solution has it."""
    task = next(task for task in tasks_of(int(number[0])) if task.number == number)
    imports, _, body = solution(task).partition(f"\ndef {task.function_name}(")
    imports = [line for line in imports.splitlines() if line.startswith("import ")]
    written = stubs.replace(f'    raise NotImplementedError("task {number}: {task.title}")', body.partition(":\n")[2])
    assert written != stubs
    return written.replace("import numpy as np\n", "\n".join(["import numpy as np", *imports, ""]), 1)


@pytest.mark.skipif(not data_path("course", "solutions").is_dir(), reason="a copy without solutions")
@pytest.mark.parametrize("number, name", [("3.2", "conv2d"), ("4.4", "attention"), ("5.1", "group_norm")])
def test_an_exercise_draws_the_picture(run, tmp_path, number, name):
    """The closing exercise of chapters 3, 4 and 5: the rest of the file is as it was handed out."""
    file = f"chapter{number[0]}.py"
    (tmp_path / file).write_text(write(exercise_text(int(number[0])), number), encoding="utf-8")
    status, out, err = run(*DRAW, "--output", "mine.npy", "--with", file)
    assert (status, out) == (0, "mine.npy\n")
    told = [line for line in err.splitlines() if line.startswith("minild: ")]
    assert f"{file}: not written yet, and minild's own in their place: " in told[0]
    assert f"with {file} ({name}): " in told[1]
    assert re.search(rf"{name} was called \d+ times; the two pictures differ by at most \de-0\d", told[2])
    assert np.load("mine.npy").shape == (1, 32, 32, 3)
    (tmp_path / "stubs.py").write_text(exercise_text(int(number[0])), encoding="utf-8")
    assert f"stubs.py has nothing to draw with yet: write {name}" in refused(run(*DRAW, "--with", "stubs.py"))


def test_a_training_runs_on_it_replicas_included(run, own, tmp_path):
    """A SiLU that notes the processes in which it works."""
    noting = RIGHT.replace("import numpy as np", "import os\nimport numpy as np").replace(
        "    gate = 1 /", "    open(f'seen-{os.getpid()}', 'w').close()\n    gate = 1 /"
    )
    for colour in ("red", "blue"):
        (tmp_path / "pictures" / colour).mkdir(parents=True)
        Image.new("RGB", (32, 32), colour).save(tmp_path / "pictures" / colour / "a.png")
    status, _, err = run("train", "pictures", "--steps", "2", "--output", "made", *own(noting))
    assert status == 0 and "with my_ops.py (silu) in place of minild's own" in err
    forks = sys.platform == "linux" and core_count() > 1
    assert (len(list(tmp_path.glob("seen-*"))) > 1) == forks
