"""The files that students are handed."""

import inspect
import re

import pytest

from minild.course.stubs import exercise_text
from minild.course.tasks import CHAPTERS, TASKS
from minild.errors import UserError


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_stubs_are_the_library_without_bodies(chapter):
    text = exercise_text(chapter, "mine.py")
    assert "minild grade mine.py" in text
    assert max(map(len, text.splitlines())) <= 120
    module = {}
    exec(compile(text, "stubs", "exec"), module)
    for task in [task for task in TASKS if task.chapter == chapter]:
        stub = module[task.function_name]
        theirs = inspect.signature(task.reference).parameters
        asked = inspect.signature(stub).parameters
        assert asked.items() <= theirs.items()
        assert {name for name, p in theirs.items() if p.default is p.empty and name != "settings"} <= set(asked)
        with pytest.raises(NotImplementedError, match=rf"tasks? .*{re.escape(task.number)}"):
            stub(*[None] * len(asked))
        for line in (inspect.getdoc(task.reference) or "").splitlines():
            assert line in inspect.getdoc(stub)
        assert f"Task {task.number} (" in inspect.getdoc(stub)


def test_a_stub_asks_for_what_the_trials_give_and_no_more():
    """No op that it is made of, no settings of the library's own."""
    for signature in (
        "def check(op, op_backward, inputs):",
        "def conv2d(x, weight, bias=None, stride=1, padding=0):",
        "def attention(q, k, v, heads, causal=False):",
        "def attention_backward(dy, cache):",
        "def ddim(predict, latents, schedule, steps, generators=None, eta=0.0):",
        "def ddpm(predict, latents, schedule, steps, generators):",
        "def guided(model, context, negative_context, guidance_scale, rescale=0.0):",
    ):
        assert any(f"\n{signature}\n" in exercise_text(chapter) for chapter in CHAPTERS), signature


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.number)
def test_a_stub_says_what_to_return(task):
    """A forward its cache, too; a backward its gradients in order; a generator that it is one."""
    text = " ".join(exercise_text(task.chapter).split(f"Task {task.number} (")[1].split('"""')[0].split())
    assert task.returns and task.returns in text
    kind = {name for name in ("op", "steps", "gradients", "method_gradients") if name in task.run.__qualname__}
    backward = task.function_name.endswith("_backward")
    assert ("(y, cache)" in task.returns) == ("op" in kind)
    assert ("generator" in task.returns) == ("steps" in kind)
    assert backward == bool(kind & {"gradients", "method_gradients"})


def test_no_body_of_the_library_is_handed_out():
    text = exercise_text(4)
    assert "causal_mask(scores)\n    weights" not in text
    assert "dq, dk, dv = attention_backward" not in text
    assert "#     def forward(self, x, context=None):" in text  # a method's stub shows the way that it goes back


def test_a_chapter_without_exercises():
    with pytest.raises(UserError, match="no exercises for chapter 99: there are some for 1, 2, 3"):
        exercise_text(99)
