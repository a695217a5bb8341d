"""The files that students are handed."""

import inspect
import re

import pytest

from course.formulas import answers
from minild.course.briefs import BRIEFS
from minild.course.stubs import brief_of, exercise_text
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
        assert inspect.getdoc(stub).startswith(brief_of(task))
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


def test_every_function_has_a_brief():
    assert set(BRIEFS) == {task.function_name for task in TASKS}


# What stubs once said, and what a stub might say.
GIVEN_AWAY = {
    "1.2": ["[cos(t ω_i) | sin(t ω_i)], ω_i = max_period^(-i / (dim/2 - freq_shift)), or [sin | cos] unless flipped."],
    "2.1": [
        "dy (..., Cout) -> dx = dy @ weightᵀ, dweight = xᵀ @ dy, dbias = Σ dy (None without a bias).",
        "dx is `dy @ cache.weight.T`, and the others likewise.",
    ],
    "2.2": ["dx = dy · σ(x) · (1 + x · (1 - σ(x))).", "With gate = σ(x), dx is dy · (gate + x · gate · (1 - gate))."],
    "3.2": ["Of the patches, columns, it is y = columns @ weight + bias."],
    "3.4": ["With the patches as rows, dweight = columnsᵀ @ dy."],
    "4.1": ["dx = y · (dy - Σ_j dy_j y_j).", "The sum s = Σ_j dy_j y_j comes off first: dx = y · (dy - s)."],
    "4.2": ["It is `x.reshape(N, L, heads, D // heads).transpose(0, 2, 1, 3)`, a view."],
    "4.4": ["y = softmax(q kᵀ / √d) v in each of `heads` slices of the width, d = D / heads."],
    "4.5": ["Then dscores = softmax_backward(dweights, softmax) / √d, where dweights = dy vᵀ, and so dq = dscores k."],
    "5.1": ["y = γ · x̂ + β, x̂ = (x - mean) / sqrt(var + eps), mean and variance over the pixels and channels."],
    "5.2": ["With dx̂ = γ · dy: dx = rstd · (dx̂ - mean(dx̂) - x̂ · mean(dx̂ · x̂)), the means over the group."],
    "5.3": ["z = mean + exp(logvar / 2) · noise (Kingma & Welling 2013, section 2.4)."],
    "5.4": ["dmean = dz, dlogvar = dz · noise · exp(logvar / 2) / 2."],
    "5.5": ["Mean over the elements of KL(N(mean, exp(logvar)) ‖ N(0, 1)) = (mean² + exp(logvar) - 1 - logvar) / 2."],
    "5.6": ["dmean = dy · mean / count, dlogvar = dy · (exp(logvar) - 1) / (2 count)."],
    "6.1": ["betas is `np.linspace(np.sqrt(start), np.sqrt(end), steps) ** 2`."],
    "6.2": ["z_t = √ᾱ_t z_0 + √(1 - ᾱ_t) ε (Ho et al. 2020, equation 4), with the levels of the schedule."],
    "6.3": ["L = ‖ε - ε_θ(z_t, t, τ_θ(y))‖², the mean over all elements."],
    "6.4": [
        "z_prev = √ᾱ_prev ẑ_0 + √(1 - ᾱ_prev - σ²) ε + σ · noise,\n"
        "σ = η √((1 - ᾱ_prev) / (1 - ᾱ_t)) √(1 - ᾱ_t / ᾱ_prev): η = 0 is deterministic, η = 1 is DDPM's variance."
    ],
    "6.5": [
        "with α = ᾱ_t / ᾱ_prev, mean = (√ᾱ_prev (1 - α) ẑ_0 + √α (1 - ᾱ_prev) z_t) / (1 - ᾱ_t) and more.",
        "with α = ᾱ_t / ᾱ_prev, variance = (1 - ᾱ_prev) / (1 - ᾱ_t) · (1 - α). The last step adds no noise.",
    ],
    "6.6": ["predict(latents, t) -> ε_negative + s · (ε_context - ε_negative), then `rescaled`."],
}


@pytest.mark.parametrize(
    ("task", "text"), [(t, text) for t in TASKS for text in GIVEN_AWAY.get(t.number, [])],
    ids=lambda value: getattr(value, "number", None),
)  # fmt: skip
def test_a_formula_that_gives_the_answer_is_found(task, text):
    assert answers(text, task)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.number)
def test_no_stub_of_a_chapter_gives_an_answer_away(task):
    """Not that of its own task, nor that of another."""
    briefs = {brief_of(other): None for other in TASKS if other.chapter == task.chapter}
    assert answers("\n\n".join(briefs), task) == []
