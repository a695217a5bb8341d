"""minild.pipelines.prompts: what is said of a prompt before anything is drawn."""

import pytest
import tiny_pipeline

from minild.errors import UserError
from minild.pipelines.prompts import lost_ends, require_prompt


def test_a_prompt_says_something_and_is_text():
    require_prompt("red", "")
    with pytest.raises(UserError, match="the prompt is empty: say what to draw"):
        require_prompt(" \t", "red")
    with pytest.raises(UserError, match="a prompt is not valid text"):
        require_prompt("red", "\udcff")


def test_what_does_not_fit_is_told_once_for_each_text(pipe):
    fitting, long = tiny_pipeline.CAPTIONS[0], " ".join(["red"] * 12)
    assert lost_ends(pipe.tokenizer, [fitting, "red"]) == []
    end = "a prompt is longer than the 14 tokens that fit: left out"
    assert lost_ends(pipe.tokenizer, [f"{long} blue", "red", f"{long} blue"]) == [f"{end} is 1 word, 'blue'"]
    [line] = lost_ends(pipe.tokenizer, [f"{long} {fitting}"])
    assert line == f"{end} are 11 words, 'a red circle above a' ..."
