"""The training loop that the README shows does what it says."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parents[2] / "README.md"


def test_the_readmes_own_training_loop_learns():
    section = README.read_text(encoding="utf-8").split("### Your own training loop\n")[1]
    code = re.search(r"^```python\n(.*?)^```", section.split("\n### ")[0], re.MULTILINE | re.DOTALL)[1]
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    losses = names["losses"]
    assert len(losses) == 100 and 0.8 < np.mean(losses[:5]) < 2
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:5])
