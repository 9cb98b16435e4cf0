import functools
import json
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from daskflow.volume.description import describe, describe_function


@dataclass(frozen=True)
class Options:
    size: tuple[int, ...]
    array: np.ndarray


def test_description_is_json_and_tells_values_apart():
    values = [
        None,
        True,
        1.5,
        "text",
        np.float32(2),
        np.arange(3),
        (1, np.int64(2)),
        {"a": {3, 4}},
        Options((1, 2), np.zeros(2)),
        np.dtype("uint8"),
        len,
        functools.partial(max, 3, key=abs),
    ]
    texts = [json.dumps(describe(value)) for value in values]
    assert len(set(texts)) == len(texts)
    assert describe(np.arange(3)) == describe(np.arange(3))
    assert describe(np.arange(3)) != describe(np.arange(3)[::-1])
    assert describe(np.arange(3)) != describe(np.arange(3, dtype=np.uint8))


def test_a_changed_function_is_another_function():
    def make(code):
        names = {}
        exec(code, names)
        return names["f"]

    one, same = make("def f(x): return x + 1"), make("def f(x): return x + 1")
    constant, global_, nested = (
        make("def f(x): return x + 2"),
        make("def f(x): return abs(x + 1)"),
        make("def f(x): return [y + 1 for y in x]"),
    )
    assert describe_function(one) == describe_function(same)
    assert len({describe_function(f) for f in (one, constant, global_, nested)}) == 4


def test_closures_and_defaults_count():
    def outer(n):
        return lambda x: x + n

    assert describe_function(outer(1)) == describe_function(outer(1))
    assert describe_function(outer(1)) != describe_function(outer(2))


def test_description_is_the_same_in_another_process():
    code = (
        "from daskflow.volume.description import describe_function as d\n"
        "def f(x, names=('a', 'b')):\n    return {n for n in names if n in {'c', 'd', 'e'}} or (lambda y: y + x)\n"
        "print(d(f))"
    )
    texts = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(texts) == 1


class Scale:
    def __init__(self, factor):
        self.factor = factor

    def apply(self, array):
        return array * self.factor

    def __call__(self, array):
        return self.apply(array)


def test_a_method_depends_on_its_object():
    assert describe(Scale(1).apply) == describe(Scale(1).apply)
    assert describe(Scale(1).apply) != describe(Scale(5).apply)
    assert describe(Scale(1)) == describe(Scale(1))
    assert describe(Scale(1)) != describe(Scale(5))
    assert describe(Scale(np.zeros(5000))) != describe(Scale(np.eye(1, 5000, 2500)[0]))


def test_defaults_count_whole():
    def make(values, *, scale):
        def f(x, table=values, *, by=scale):
            return table[x] * by

        return f

    zeros, other = np.zeros(5000), np.zeros(5000)
    other[2500] = 1
    assert describe(make(zeros, scale=1)) == describe(make(zeros.copy(), scale=1))
    assert len({describe(make(v, scale=s)) for v in (zeros, other) for s in (1, 2)}) == 4


def _module(source):
    names = {"__name__": "theirs"}
    exec(source, names)
    return names


def test_globals_and_further_functions_count():
    source = "import math\nLEVEL = {level}\ndef g(x): return x + {step}\ndef f(x): return math.sqrt(g(x)) > LEVEL\n"
    sources = [source.format(level=level, step=step) for level in (1, 2) for step in (1, 2)]
    texts = {describe(_module(one)["f"]) for one in (*sources, *sources)}
    assert len(texts) == 4
    unrelated = _module(source.format(level=1, step=1) + "OTHER = 3\n")["f"]
    assert describe(unrelated) in texts


def test_methods_that_an_object_calls_count():
    source = "class A:\n    def help(self, x): return x + {}\n    def __call__(self, x): return self.help(x)\na = A()\n"
    one, same, other = (_module(source.format(n))["a"] for n in (1, 1, 2))
    assert describe(one) == describe(same)
    assert describe(one) != describe(other)


def test_functions_that_call_each_other_are_described():
    source = "def f(x): return g(x - 1) if x else {}\ndef g(x): return f(x)\n"
    assert describe(_module(source.format(1))["f"]) == describe(_module(source.format(1))["f"])
    assert describe(_module(source.format(1))["f"]) != describe(_module(source.format(2))["f"])

    def local(n):
        return local(n - 1) if n else 0

    assert describe(local)


def test_what_cannot_be_pickled_stands_for_its_type():
    source = "import threading\nlock = threading.Lock()\ndef f(x):\n    with lock: return x\n"
    assert describe(_module(source)["f"]) == describe(_module(source)["f"])


def test_objects_are_described_alike_in_every_process(tmp_path):
    script = tmp_path / "theirs.py"
    script.write_text(
        "import re\nfrom fractions import Fraction\nfrom pathlib import Path\nimport numpy as np\n"
        "from daskflow.volume.description import describe\n"
        "class A:\n    def __init__(self): self.made = re.compile('a+'), Fraction(1, 2), Path('x')\n"
        "    def __call__(self, x): return np.median(x) * self.made[1]\n"
        "a, names = A(), {'b', 'c', 'd'}\n"
        "print(describe([a, a.__call__, lambda x: a(x) in names, np.sqrt, np.median, A]))"
    )
    texts = {
        subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(texts) == 1
    assert " at 0x" not in texts.pop()


def test_networks_are_described_by_their_weights(tmp_path):
    pytest.importorskip("torch")
    script = tmp_path / "theirs.py"
    script.write_text(
        "import sys, torch\nfrom daskflow.volume.description import describe\n"
        "class Net(torch.nn.Module):\n    def __init__(self, n):\n        super().__init__()\n"
        "        self.weight = torch.nn.Parameter(torch.full((2, 3), n, dtype=torch.bfloat16))\n"
        "def described(net): return describe([net, lambda x: net(x)])\n"
        "for n in sys.argv[1:]: print(described(Net(float(n))))\n"
    )
    (one,), (same, other) = (
        subprocess.run([sys.executable, script, *n], capture_output=True, text=True, check=True).stdout.splitlines()
        for n in ("1", "12")
    )
    assert one == same
    assert one.split()[1] == other.split()[1]
    assert one != other


class Frame:
    """Describes itself for people, as a DataFrame does."""

    def __init__(self, values):
        self.values = values

    def describe(self, percentiles):
        raise AssertionError(percentiles)


def test_a_method_of_somebody_else_that_is_called_describe_is_left_alone():
    assert describe(Frame([1])) == describe(Frame([1]))
    assert describe(Frame([1])) != describe(Frame([2]))
