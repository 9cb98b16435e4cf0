import functools
import json
import subprocess
import sys
from dataclasses import dataclass

import numpy as np

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
