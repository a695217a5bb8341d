"""--with FILE.py: what of the reader's file becomes an op, what is refused, and what the commands make of it.

The engine's table, trial and `using` are stand-ins: how they do their work is for tests of the engine.
"""

import contextlib
import importlib
import re
import sys
import textwrap
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tiny_pipeline
from PIL import Image
from refusal import refused

from minild.cli.own_ops import read_own_ops, using_own_ops
from minild.course.stubs import exercise_text
from minild.errors import UserError
from minild.ops.activation import silu, silu_backward
from minild.ops.norm import group_norm, group_norm_backward

RED, GREEN = tiny_pipeline.CAPTIONS
PAIR = "def silu(x):\n    return x, x\n\ndef silu_backward(dy, cache):\n    return dy\n"


def attention(q, k, v, heads, causal=False, *, softmax=None, mask=group_norm):
    """An op that takes one that it is made of."""


def attention_backward(dy, cache, softmax_backward=silu_backward):
    """And its backward."""


class Row(NamedTuple):
    op: object
    op_backward: object


class Engine:
    """What was tried, and which ops are in force and have been."""

    def __init__(self):
        self.tried, self.used, self.in_force = [], [], {}

    def require_same(self, name, op, op_backward):
        self.tried.append((name, op, op_backward))

    @contextlib.contextmanager
    def using(self, **own):
        self.used.append(own)
        self.in_force = own
        try:
            yield
        finally:
            self.in_force = {}


@pytest.fixture
def engine(monkeypatch):
    engine = Engine()
    table, trial = types.ModuleType("table"), types.ModuleType("trial")
    table.OPS = {
        "group_norm": Row(group_norm, group_norm_backward),
        "silu": Row(silu, silu_backward),
        "attention": Row(attention, attention_backward),
        "softmax": Row(None, None),
    }
    trial.require_same = lambda *pair: engine.require_same(*pair)
    monkeypatch.setitem(sys.modules, "minild.engine.table", table)
    monkeypatch.setitem(sys.modules, "minild.engine.trial", trial)
    monkeypatch.setattr("minild.using", engine.using, raising=False)
    engine.table = table
    return engine


@pytest.fixture
def read(engine, tmp_path, monkeypatch):
    """read(source) -> the ops of a file my_ops.py that holds it."""
    monkeypatch.chdir(tmp_path)

    def call(source, **settings):
        path = Path("my_ops.py")
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
        return read_own_ops(path, **settings)

    return call


def test_the_functions_named_as_ops_are_taken_and_tried(read, engine, tmp_path):
    source = """
    from minild.ops.norm import group_norm, group_norm_backward  # imported: not the reader's own
    import dataclasses

    @dataclasses.dataclass
    class Cache:
        x: "float"

    def helper(x):
        return x

    def silu2(x):  # beside silu, a name like its own is no slip
        return x

    def silu(x: float) -> tuple:
        return helper(x), Cache(x)

    silu_backward = lambda dy, cache: dy

    def _private_backward(): ...

    def attention(q, k, v, heads, causal=False):
        return q, None

    def attention_backward(dy, cache, softmax_backward=silu_backward):
        return dy, dy, dy
    """
    own = read(textwrap.dedent(source))
    assert list(own) == ["silu", "attention"]
    op, op_backward = own["silu"]
    assert op(3)[0] == 3 and op(3)[1].x == 3 and op_backward(5, None) == 5
    assert engine.tried == [(name, *pair) for name, pair in own.items()]
    assert [file.name for file in tmp_path.iterdir()] == ["my_ops.py"]  # and no bytecode


def test_no_file_is_no_ops(monkeypatch):
    monkeypatch.setattr("minild.using", None, raising=False)  # not to be called
    assert read_own_ops(None) == {}
    with using_own_ops(None, {}):
        pass


@pytest.mark.parametrize(
    "source, message",
    [
        ("x = 1\ndef silu(x:\n", "my_ops.py, line 2: "),
        ("x = 1\n\n1 / 0\n", "my_ops.py, line 3: ZeroDivisionError: division by zero"),
        ("def f():\n    raise KeyError('a')\n\nf()\n", "my_ops.py, line 2: KeyError: 'a'"),
        ("import json\njson.loads('{')\n", "my_ops.py, line 2: JSONDecodeError: "),
        ("import nowhere\n", "my_ops.py, line 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("import sys\nsys.exit(3)\n", "my_ops.py, line 2: SystemExit: 3"),
        ("raise ValueError('two\\nlines')\n", "my_ops.py, line 1: ValueError: two"),
        (b"x = '\xff'\n", "my_ops.py"),
        (b"\x00\x01", "my_ops.py"),
        ("", "my_ops.py defines no op: write a pair such as silu and silu_backward (the ops are group_norm, silu, att"),
        ("def swish(x):\n    return x\n", "my_ops.py defines no op"),
        ("class silu: pass\n", "my_ops.py defines no op"),
        ("from minild.ops.activation import silu, silu_backward\n", "my_ops.py defines no op"),
        ("def silu(x): ...\n", "my_ops.py defines silu without silu_backward: an op and its backward come as a pair"),
        ("def silu_backward(dy, cache): ...\n", "my_ops.py defines silu_backward without silu: an op"),
        ("def GroupNorm(x): ...\n", "my_ops.py: GroupNorm is no op, did you mean group_norm? (let a helper's name"),
        (PAIR + "def atention(x): ...\n", "my_ops.py: atention is no op, did you mean attention?"),
        (PAIR + "def sillu_backward(x): ...\n", "my_ops.py: sillu is no op, did you mean silu?"),
        (
            PAIR + "def swish_backward(x): ...\n",
            "my_ops.py: swish_backward is the backward of no op (the ops are",
        ),
        (PAIR.replace("(x)", "(z)"), "my_ops.py: expected silu(x), got silu(z)"),
        (PAIR.replace("(x)", "(x, slope=1.0)"), "my_ops.py: expected silu(x), got silu(x, slope=1.0)"),
        (PAIR.replace("(x)", "(*x)"), "my_ops.py: expected silu(x), got silu(*x)"),
        (PAIR.replace("(dy, cache)", "(cache, dy)"), "expected silu_backward(dy, cache), got silu_backward(cache, dy)"),
        (
            "def group_norm(x, gamma, beta, groups, eps=1e-6): ...\ndef group_norm_backward(dy, cache): ...\n",
            "expected group_norm(x, gamma, beta, groups, eps=1e-05), got group_norm(x, gamma, beta, groups, eps=1e-06)",
        ),
    ],
)
def test_a_file_that_will_not_do_is_one_line(read, engine, source, message):
    with pytest.raises(UserError) as caught:
        read(source)
    assert message in str(caught.value)
    assert engine.tried == []


def test_to_draw_forwards_are_enough(read, engine, capsys):
    """What is not written yet, of the exercises, is the library's, for the reader's own functions, too."""
    source = """
    def split_heads(x, heads):
        "What a stub says."
        raise NotImplementedError("task 4.2: heads")

    def causal_mask(scores): raise NotImplementedError

    def attention(q, k, v, heads, causal=False):
        return split_heads(q, heads), causal_mask(q)

    def attention_backward(dy, cache): raise NotImplementedError

    def group_norm(x, gamma, beta, groups, eps=1e-5): raise NotImplementedError

    def silu_backward(wrong): return 1

    def helper(x): raise NotImplementedError
    """
    own = read(textwrap.dedent(source), draws=True)
    assert list(own) == ["attention"] and engine.tried == [("attention", own["attention"][0], None)]
    x = np.ones((1, 3, 4), np.float32)
    heads, mask = own["attention"][0](x, x, x, 2)
    assert heads.shape == (1, 2, 3, 2) and mask.shape == (3, 4)
    told = "minild: my_ops.py: not written yet, and minild's own in their place: split_heads, causal_mask, group_norm\n"
    assert capsys.readouterr().err == told
    with pytest.raises(RuntimeError, match="a drawing went backwards"):
        own["attention"][1](x, None)


@pytest.mark.parametrize("source, message", [
    ("def group_norm(x): raise NotImplementedError\n", r"my_ops.py has nothing to draw with yet: write group_norm$"),
    (PAIR.partition("\n\n")[2], r"my_ops.py defines no op to draw with: write a function such as silu \(the ops are"),
    ("def helper(x): raise NotImplementedError\n", r"my_ops.py defines no op to draw with"),
    ("def sillu(x): return x\n", r"my_ops.py: sillu is no op, did you mean silu\?"),
    ("def silu(x, y): return x\n", r"my_ops.py: expected silu\(x\), got silu\(x, y\)"),
])
def test_nothing_to_draw_with_is_one_line(read, engine, source, message):
    with pytest.raises(UserError, match=message):
        read(source, draws=True)
    assert engine.tried == []


def test_a_file_of_exercises_draws_alone(read, engine):
    written = exercise_text(5).replace('raise NotImplementedError("task 5.1: group norm")', "return x, None")
    assert list(read(written, draws=True)) == ["group_norm"]
    with pytest.raises(UserError, match=r"^my_ops\.py is a file of exercises: its backwards take the library's caches"):
        read(written)


def test_of_many_ops_a_few_are_named(read, engine):
    engine.table.OPS |= {f"op{i}": Row(silu, silu_backward) for i in range(20)}
    names = r"\(the ops are group_norm, silu, attention, softmax, op0, op1, op2, op3, \.\.\. 24 in all\)"
    with pytest.raises(UserError, match=names):
        read("")


def test_a_file_that_is_not_there(engine, tmp_path):
    with pytest.raises(UserError, match=r"^cannot read .*nowhere\.py: No such file or directory$"):
        read_own_ops(tmp_path / "nowhere.py")
    with pytest.raises(UserError, match=r"^cannot read .*: Is a directory$"):
        read_own_ops(tmp_path)


def test_a_pair_that_computes_something_else_is_refused(read, engine):
    def differs(name, op, op_backward):
        raise UserError(f"{name} differs")

    engine.require_same = differs
    with pytest.raises(UserError, match=r"^my_ops\.py: silu differs$"):
        read(PAIR)
    engine.require_same = lambda name, op, op_backward: op(np.ones(3))
    with pytest.raises(UserError, match=r"^my_ops\.py, line 2: ValueError: 3 are too many$"):
        read(PAIR.replace("return x, x", "raise ValueError(f'{len(x)} are too many')"))


def test_what_fails_at_work_names_the_line(read):
    own = read(PAIR.replace("return x, x", "return 1 / x, x"))
    path = Path("my_ops.py")
    with pytest.raises(UserError, match=r"^my_ops\.py, line 2: ZeroDivisionError: "), using_own_ops(path, own):
        own["silu"][0](0)
    with pytest.raises(UserError, match=r"^my_ops\.py: KeyError: 'x'$"), using_own_ops(path, own):
        raise KeyError("x")  # as from a forked process, which sends no traceback
    with pytest.raises(OSError, match="disk"), using_own_ops(path, own):  # not of the reader's making
        raise OSError("the disk is full")
    for error in (MemoryError, KeyboardInterrupt):
        own = read("import sys\n" + PAIR.replace("return x, x", f"raise {error.__name__}"))
        with pytest.raises(error), using_own_ops(path, own):
            own["silu"][0](0)


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "my_ops.py").write_text("print('loaded')\n" + PAIR)
    return ["--with", "my_ops.py"]


@pytest.fixture
def drawn(monkeypatch, engine):
    """What every drawing had in force, and drew: [(names of ops, prompts, seeds)]."""
    from minild.pipelines import Pipeline

    drawings, text_to_image = [], Pipeline.text_to_image

    def recording(self, prompts, negative, steps, guidance, sampler, seeds, *rest, **settings):
        drawings.append((list(engine.in_force), prompts, seeds))
        if engine.in_force:
            print("an op may print")
        return text_to_image(self, prompts, negative, steps, guidance, sampler, seeds, *rest, **settings)

    monkeypatch.setattr(Pipeline, "text_to_image", recording)
    return drawings


def test_txt2img_draws_with_them_and_tells_the_times(draw, mine, drawn, tmp_path):
    times = r"minild: with my_ops\.py \(silu\): \d+\.\d s for the picture, \d+\.\d s without it\n"
    times += r"minild: silu was not called; the two pictures differ by nothing\n"  # the engine is a stand-in
    status, out, err = draw(RED, *mine, "--output", "p.png", "--seed", 3)
    assert (status, out) == (0, "p.png\n")
    assert drawn == [(["silu"], [RED], [3]), ([], [RED], [3])]
    assert re.fullmatch("loaded\nan op may print\n" + times, err)  # and not on stdout
    with Image.open(tmp_path / "p.png") as image:
        assert image.text["with"] == "my_ops.py"

    drawn.clear()
    np.save(tmp_path / "noise.npy", np.zeros((2, 4, 4, 2)))
    status, out, err = draw(RED, *mine, "--latents", "noise.npy", "--output", "p.npy")
    assert (status, out) == (0, "p.npy\n") and len(np.load(tmp_path / "p.npy")) == 2
    assert drawn == [(["silu"], [RED, RED], [0, 1]), (["silu"], [RED], [0]), ([], [RED], [0])]
    drawn.clear()
    assert draw(RED, "--output", "p.png") == (0, "p.png\n", "")
    assert drawn == [([], [RED], [0])]


def test_train_and_evaluate_name_them(run, module, mine, engine):
    for name in ("minild.data.pictures", "minild.pipelines.inputs"):  # before the package has a stand-in
        importlib.import_module(name)
    in_force = []
    module("minild.training", train=lambda *a, **k: in_force.append(list(engine.in_force)))
    module("minild.data", load=lambda name, split, size: name)
    module(
        "minild.evaluation",
        evaluate=lambda *a, **k: in_force.append(list(engine.in_force)),
        format_report=lambda figures: "report",
    )
    said = "loaded\nminild: with my_ops.py (silu) in place of minild's own\n"
    assert run("train", "shapes", "--output", "out", *mine) == (0, "out\n", said)
    assert run("evaluate", "MODEL", *mine) == (0, "report\n", said)
    assert in_force == [["silu"], ["silu"]]


@pytest.mark.parametrize("command", [["txt2img", RED], ["train", "shapes", "--output", "out"], ["evaluate", "nowhere"]])
def test_a_file_is_refused_before_the_work(run, tmp_path, engine, command):
    (tmp_path / "half.py").write_text("def silu_backward(dy, cache): ...\n")
    half = "no op to draw with" if command[0] == "txt2img" else "silu_backward without silu"
    assert f"half.py defines {half}" in refused(run(*command, "--with", "half.py"))
    assert "cannot read no.py: No such file or directory" in refused(run(*command, "--with", "no.py"))
    assert "--with: expected a name, got an empty text" in refused(run(*command, "--with", ""))
    assert [file.name for file in tmp_path.iterdir()] == ["half.py"] and engine.used == []
