"""`--with FILE.py` from end to end: right, wrong, slow and malformed files, on the real engine."""

import sys

import numpy as np
import pytest
from PIL import Image
from refusal import refused

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
    assert "with my_ops.py (silu): " in told[-1] and " s for the picture, " in told[-1]
    seconds = [float(word) for word in told[-1].split() if word.replace(".", "", 1).isdigit()]
    if text is SLOW:
        assert seconds[0] > seconds[1]
    assert run(*DRAW, "--output", "ours.npy")[0] == 0
    difference = np.abs(np.load("own.npy") - np.load("ours.npy")).max()
    assert 0 < difference < 1e-3  # another SiLU, and the same mathematics


@pytest.mark.parametrize(("text", "message"), [
    (RIGHT.replace("x * gate, (x", "1.1 * x * gate, (x"), "my_ops.py: silu: y is wrong: off by"),
    (RIGHT.replace("x * gate, (x", "(x * gate)[:1], (x"), "silu: y has shape (1, 5, 6), expected (2, 5, 6)"),
    (RIGHT.replace("return dy * gate", "return -dy * gate"), "silu_backward: gradient is wrong"),
    (RIGHT.replace("(x, gate)", "(x, gate), 1"), "silu must return y, cache"),
    (RIGHT.replace("1 / (1 +", "1 / (nothing +"), "my_ops.py, line 5: NameError: name 'nothing' is not defined"),
    (RIGHT.replace("silu", "sillu"), "my_ops.py: sillu is no op, did you mean silu?"),
    (RIGHT.replace("def silu(x)", "def silu(x, y)"), "my_ops.py: expected silu(x), got silu(x, y)"),
    (RIGHT + "\ndef gelu(x):\n    return x, x\n", "defines gelu without gelu_backward"),
    ("import numpy as np\n", "my_ops.py defines no op"),
    ("def silu(:\n", "my_ops.py, line 1: invalid syntax"),
    ("", "my_ops.py defines no op"),
])
@pytest.mark.parametrize("command", [DRAW, ["evaluate", "emoji"], ["train", "shapes", "--output", "made"]])
def test_a_wrong_file_is_refused_before_the_work(run, own, command, text, message):
    assert message in refused(run(*command, *own(text)))


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
