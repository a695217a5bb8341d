"""Submissions that use what Python and NumPy offer are graded as their functions deserve, whatever they define."""

import pytest

from course.handed_in import RIGHT, body

# Each defines and checks things at the top of the file, which runs in every task.
PREAMBLES = {
    "NamedTuple": """
from typing import NamedTuple, Any
class Cache(NamedTuple):
    x: Any
    scale: float = 2.0
C = Cache(1)
assert C._replace(x=3).x == 3 and C._asdict()
""",
    "namedtuple": """
from collections import namedtuple
P = namedtuple("P", "a b", defaults=[1]); assert P(2).b == 1 and repr(P(2))
""",
    "dataclasses": """
from dataclasses import dataclass, field, replace, asdict, astuple, make_dataclass, InitVar
@dataclass(frozen=True, order=True)
class A:
    x: int = 3
    y: list = field(default_factory=list)
@dataclass
class B(A.__mro__[1]):
    z: InitVar[int]
    def __post_init__(self, z): self.w = z
assert replace(A(), x=4).x == 4 and asdict(A()) and repr(A()) and A() == A() and hash((A().x,)) and B(2).w == 2
@dataclass(slots=True, kw_only=True)
class S: a: int = 1
assert S(a=2).a == 2
M = make_dataclass("M", ["x", ("y", int, 5)])
""",
    "enums": """
import enum
class E(enum.Enum): A = 1; B = enum.auto()
class F(enum.IntFlag): X = 1; Y = 2
assert E.A.name == "A" and (F.X | F.Y).value == 3 and E("A" and 1)
""",
    "typing": """
from __future__ import annotations
import abc, typing
from typing import Protocol, TypedDict, Generic, TypeVar
from typing import runtime_checkable, Callable, Literal, overload, get_type_hints
T = TypeVar("T")
class Base(abc.ABC):
    @abc.abstractmethod
    def f(self): ...
class D(Base):
    def f(self): return 1
@runtime_checkable
class P(Protocol):
    def f(self) -> int: ...
class TD(TypedDict, total=False): a: int
class G(Generic[T]): pass
assert isinstance(D(), P) and G[int]() and TD(a=1)
def hinted(x: "int", y: Literal["a"]) -> Callable[[int], T]: ...
get_type_hints(hinted)
""",
    "functools": """
import functools
from functools import lru_cache, cache, partial, wraps
from functools import cached_property, singledispatch, reduce, total_ordering, partialmethod
@lru_cache(maxsize=None)
def fib(n): return n if n < 2 else fib(n-1) + fib(n-2)
assert fib(30) == 832040
@singledispatch
def g(x): return "o"
@g.register
def _(x: int): return "i"
@g.register(list)
def _(x): return "l"
assert g(1) == "i" and g([]) == "l"
class K:
    @cached_property
    def v(self): return 3
assert K().v == 3
@total_ordering
class O:
    def __init__(s, v): s.v = v
    def __eq__(s, o): return s.v == o.v
    def __lt__(s, o): return s.v < o.v
assert O(1) <= O(2)
def deco(f):
    @wraps(f)
    def w(*a, **k): return f(*a, **k)
    return w
@deco
def h(): "doc"
assert h.__doc__ == "doc" and reduce(lambda a, b: a + b, [1, 2]) == 3
""",
    "itertools and contextlib": """
import itertools, contextlib, io
from contextlib import contextmanager, suppress, ExitStack, nullcontext, redirect_stdout
@contextmanager
def cm():
    yield 1
with cm() as one, suppress(ValueError), nullcontext():
    list(itertools.chain(range(3), itertools.product("ab", repeat=2)))
with ExitStack() as s: s.enter_context(cm())
out = io.StringIO()
with redirect_stdout(out): print("x")
assert out.getvalue() == "x\\n"
""",
    "the language itself": """
import math
def counter():
    n = 0
    def inc():
        nonlocal n; n += 1; return n
    return inc
c = counter(); c(); assert c() == 2
x = 3.14159
assert f"{x:.2f} {x!r:>10} {c.__name__} {math.pi:e} {1000000:,}"
def gen(): yield from range(3)
assert sum(gen()) == 3 and {k: v for k, v in zip("ab", gen())}
match (1, [2, 3]):
    case (a, [b, *rest]): assert rest == [3]
assert (lambda *a, **k: (a, k))(1, b=2)
class Desc:
    def __set_name__(self, o, n): self.n = n
    def __get__(self, o, t=None): return self.n
class M(type):
    def __new__(m, n, b, d, **k): return super().__new__(m, n, b, d)
class U(metaclass=M, tag=1): q = Desc()
assert U().q == "q"
class V:
    __slots__ = ("a",)
    def __init_subclass__(cls, **k): super().__init_subclass__(**k)
class W(V): pass
W.__name__ = "X"; W.__doc__ = "d"; W.__qualname__ = "Y"
def f(a=1): pass
f.__defaults__ = (2,); f.__name__ = "g"; f.__kwdefaults__ = None; f.__annotations__ = {}
""",
    "numpy.testing": """
import numpy as np
np.testing.assert_allclose(np.ones(3), np.ones(3) + 1e-9, rtol=1e-6)
np.testing.assert_array_equal([1, 2], np.array([1, 2])); np.testing.assert_almost_equal(1.0, 1.0)
from numpy.testing import assert_allclose, assert_array_almost_equal, assert_equal, assert_raises
assert_equal({"a": 1}, {"a": 1})
with assert_raises(ValueError): raise ValueError
try: assert_allclose(np.arange(5.0), np.arange(5.0) + 1, err_msg="off")
except AssertionError as e: assert "Mismatched" in str(e)
else: raise SystemExit
try: np.testing.assert_array_equal(np.arange(2000), np.arange(2000) + 1)
except AssertionError: pass
with np.testing.assert_no_warnings(): pass
with np.testing.suppress_warnings() as sup: sup.filter(RuntimeWarning)
""",
    "numpy": """
import numpy as np, warnings
with np.errstate(all="ignore"): np.log(np.zeros(2))
with warnings.catch_warnings(record=True) as w:
    warnings.simplefilter("always"); np.log(np.zeros(1)); warnings.warn("x")
np.einsum("ij,jk->ik", np.ones((2, 3)), np.ones((3, 4)), optimize=True); np.linalg.svd(np.eye(3))
np.fft.fft2(np.eye(4))
rng = np.random.default_rng(0); rng.standard_normal(3); np.random.seed(1); np.random.randn(2)
np.lib.stride_tricks.sliding_window_view(np.arange(5), 2)
np.pad(np.ones((2, 2)), 1, mode="reflect")
print(np.array2string(np.arange(3.)), np.array_repr(np.eye(2))); np.set_printoptions(precision=3)
with np.printoptions(precision=2): str(np.eye(2))
np.vectorize(lambda v: v + 1)(np.arange(3)); np.apply_along_axis(np.sum, 0, np.eye(2))
np.frompyfunc(lambda a: a, 1, 1)(np.arange(2))
np.tensordot(np.eye(2), np.eye(2)); np.kron(np.eye(2), np.eye(2)); np.unique([1, 1])
np.histogram([1, 2]); np.interp(1, [0, 2], [0, 1])
np.finfo(np.float32).eps; np.iinfo(int).max; np.polyfit([0, 1, 2], [0, 1, 2], 1)
np.quantile([1, 2], .5); np.meshgrid([1], [2])
np.array([1], dtype=[("a", int)]); np.isclose(1, 1); np.allclose(1, 1)
np.ma.masked_array([1], [0]); np.busday_count
np.convolve([1, 2], [1]); np.gradient([1., 2., 4.]); np.datetime64("2020-01-01"); np.save
import numpy.typing as npt
def typed(x: npt.NDArray[np.float64]) -> npt.ArrayLike: ...
""",
    "the standard library": """
import copy, pprint, textwrap, time, json, random, re, statistics, string, decimal, fractions
import math, operator, heapq, bisect, collections, types, inspect, io, logging, traceback
import datetime, hashlib, struct, numbers, typing, sys, timeit, weakref, uuid, difflib, reprlib
import array, base64, csv, queue
copy.deepcopy({"a": [1]}); pprint.pformat({"a": 1}); textwrap.dedent(" a"); time.perf_counter()
json.dumps({"a": 1}); json.loads("[1]")
random.seed(0); random.random(); random.shuffle([1, 2]); re.sub("a", "b", "ab")
statistics.mean([1, 2]); string.Template("$a").substitute(a=1); "{:>5}".format(1)
decimal.Decimal("1.1") + 1; fractions.Fraction(1, 3); collections.Counter("ab")
collections.OrderedDict(a=1); collections.deque([1]); collections.defaultdict(list)
collections.ChainMap({}, {})
inspect.signature(copy.deepcopy); logging.getLogger("x").warning("hello"); logging.basicConfig()
datetime.datetime(2020, 1, 1).strftime("%Y"); datetime.date.today()
hashlib.sha256(b"a").hexdigest()
try: 1/0
except ZeroDivisionError: traceback.format_exc(); traceback.print_exc()
class Ctx0: pass
types.SimpleNamespace(a=1); struct.pack("<f", 1.0); weakref.ref(Ctx0())
timeit.timeit("1", number=1)
assert sys.version_info and sys.maxsize
print("é", file=sys.stderr)
class Ctx:
    def __enter__(self): return self
    def __exit__(self, *a): return True
with Ctx(): raise ValueError
if __name__ == "__main__": open("/etc/passwd")
import unittest
class T(unittest.TestCase):
    def test(self): self.assertEqual(1, 1)
""",
    "gradcheck on functions of one's own": """
import numpy as np
from minild.gradcheck import check
check(lambda x: (x * x, x), lambda dy, c: 2 * dy * c, {"x": np.arange(1.0, 4)})
""",
}


@pytest.mark.parametrize("preamble", PREAMBLES.values(), ids=PREAMBLES)
def test_what_a_file_defines_and_checks_is_allowed(mark, preamble):
    assert mark("6.2", preamble + RIGHT) == ("right", "")


@pytest.mark.parametrize("preamble", PREAMBLES.values(), ids=PREAMBLES)
def test_and_makes_nothing_right_that_is_wrong(mark, preamble):
    status, hint = mark("6.2", preamble + RIGHT.replace("+ noise_level", "- noise_level"))
    assert status == "wrong" and hint.startswith("z_t: worst at index")


CACHES = {
    "a named tuple": "class Cache(NamedTuple):\n    deviation: object\n    noise: object\n",
    "a data class": "@dataclass(frozen=True)\nclass Cache:\n    deviation: object\n    noise: object\n",
    "a named tuple made by a call": "Cache = namedtuple('Cache', 'deviation noise')\n",
    "a class of its own": "class Cache:\n    def __init__(self, *kept): self.kept = kept\n",
}


@pytest.mark.parametrize("cache", CACHES.values(), ids=CACHES)
def test_a_forward_keeps_what_it_likes(mark, cache):
    imports = "import numpy as np\nfrom typing import NamedTuple\nfrom collections import namedtuple\n"
    imports += "from dataclasses import dataclass\n\n"
    forward = (
        "def reparameterize(posterior, noise):\n    deviation = np.exp(0.5 * posterior.logvar)\n"
        "    return posterior.mean + deviation * noise, Cache(deviation, noise)\n"
    )
    assert mark("5.3", imports + cache + forward) == ("right", "")
    alone = forward.replace(", Cache(deviation, noise)", "")
    assert "expected the pair (y, cache)" in mark("5.3", imports + cache + alone)[1]


def test_what_programs_begin_with(mark):
    source = """# -*- coding: cp1252 -*-
import os, pathlib
os.environ["OMP_NUM_THREADS"] = "1"
HERE = pathlib.Path(__file__).parent
try:
    import matplotlib.pyplot as plt
except ModuleNotFoundError:
    plt = None
"""
    assert mark("6.2", source + RIGHT) == ("right", "")


def test_a_failing_self_check_is_told_with_its_line(mark):
    source = "import numpy as np\nnp.testing.assert_allclose(np.ones(3), np.zeros(3))\n" + RIGHT
    status, hint = mark("6.2", source)
    assert status == "wrong" and hint.startswith("line 2: AssertionError: Not equal to tolerance")


def test_classes_may_be_defined_within_the_function(mark):
    source = body("""
        from typing import NamedTuple
        from dataclasses import dataclass
        class Levels(NamedTuple):
            signal: float
            noise: float
        @dataclass
        class Sum:
            levels: Levels
            def __call__(self, z, noise): return self.levels.signal * z + self.levels.noise * noise
        return Sum(Levels(signal_level, noise_level))(z, noise)""")
    assert mark("6.2", source) == ("right", "")
