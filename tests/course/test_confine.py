"""What a task may call never leads to what it asks for, and no function of the library escapes being withheld."""

import sys
import types

import pytest

from minild.course import confine
from minild.course.task import resolve
from minild.course.tasks import TASKS

SOURCE = """
def f(a, b=2): return a + b
g = f
class C:
    def m(self): return f(1)
class D(C):
    def n(self): return super().m() and 1
"""


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.number)
def test_nothing_that_a_task_may_call_calls_its_solution(task):
    allowed = confine._with_callees([resolve(use) for use in task.uses])
    assert task.reference not in allowed
    assert all(resolve(use) in allowed for use in task.uses if isinstance(resolve(use), types.FunctionType))


def test_callees_are_found_through_modules_classes_tables_and_layers():
    found = confine._with_callees([resolve("minild.nn.attention:GatedProjection"), resolve("minild.ops.conv:conv2d")])
    names = {function.__qualname__ for function in found}
    assert {"Linear.backward", "Stateless.backward"} <= names
    assert {"im2col", "margins_of", "require_shape"} <= names and "col2im" not in names
    composite = confine._with_callees([resolve("minild.ops.attention:attention_backward")])
    assert "softmax_backward" in {function.__name__ for function in composite}  # an argument's default
    schedule = confine._with_callees([resolve("minild.diffusion.schedule:NoiseSchedule")])
    assert {"predict_clean", "cosine_betas", "leading_timesteps"} <= {function.__name__ for function in schedule}


def test_the_functions_of_a_module_are_all_found():
    names = {function.__qualname__ for function in confine._functions_of(sys.modules["minild.engine.choice"])}
    assert {"current", "using", "Choice.replaces"} <= names  # a decorated one, too
    names = {function.__qualname__ for function in confine._functions_of(sys.modules["minild.nn.attention"])}
    assert {"Attention.backward", "AttentionBlock2D.forward"} <= names


def test_an_empty_function_is_empty_by_all_its_names():
    scope = {}
    exec(SOURCE, scope)
    confine.empty(scope["f"], "gone")
    confine.empty(scope["D"].n, "gone")
    for call in (lambda: scope["f"](1), lambda: scope["g"](1), scope["C"]().m, scope["D"]().n):
        with pytest.raises(PermissionError, match="gone"):
            call()
