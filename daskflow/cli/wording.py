"""Messages as the command line has them: options with dashes, and nothing of what is to be said in Python."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daskflow import operators
from daskflow.operators.aliases import ALIASES
from daskflow.redaction import redact

_NESTED = r"(?:[^()]|\([^()]*\))*"
_PYTHON = re.compile(rf"\s*\((?:in Python: {_NESTED}|{_NESTED} in Python)\)")
_BEFORE = r"(?<![\w./'\"=?&-])"  # no part of a path, a URL, a quotation or an option
_GIVEN = re.compile(rf"{_BEFORE}([a-z][a-z0-9_]*)=(?:'([^']*)'|\(([^()]*)\)|([\w.+-]*\w))?")
_NAME = re.compile(rf"{_BEFORE}([a-z][a-z0-9]*(?:_[a-z0-9]+)+)\b(?![\w/=(]|\.\w)")
_TWICE = re.compile(r"(--[a-z-]+(?: [^\s()]+)*) \(\1\)")


def as_typed(text: str) -> str:
    """Return a message that says ``--layer-type image`` instead of ``layer_type='image'``, without passwords."""
    text = _PYTHON.sub("", redact(text))
    return _TWICE.sub(r"\1", _NAME.sub(_dashed, _GIVEN.sub(_option, text)))


def _option(found: re.Match[str]) -> str:
    name, quoted, numbers, word = found.groups()
    if name not in _options():
        return found[0]
    if word == "False":
        return f"--no-{name.replace('_', '-')}"
    value = quoted or (numbers or "").replace(",", "") or (word if word != "True" else "")
    return f"--{name.replace('_', '-')} {value or ''}".rstrip()


def _dashed(found: re.Match[str]) -> str:
    name = found[0].replace("_", "-")
    if found[0] in operators.GROUPS:
        return name
    return f"--{name}" if found[0] in _options() else found[0]


def definitions() -> Iterator[tuple[str, str, ast.FunctionDef]]:
    """Yield name, group and function of each operator that has a file, in which nothing is run."""
    for name, group in sorted(operators.GROUPS.items()):
        if name in ALIASES:
            continue
        place = Path(operators.__file__).parent / group / name
        file = place.with_suffix(".py")
        source = file if file.is_file() else place / "__init__.py"
        for node in ast.parse(source.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                yield name, group, node


def makers(kind: Any) -> str:
    """Return, to be added to a message, which commands make objects of a kind that a line passes on."""
    from daskflow.volume.registry import is_passed

    names = {one.__name__ for one in (kind, *kind.__subclasses__())} if is_passed(kind) else set()
    found = (name for name, _, one in definitions() if one.returns is not None and ast.unparse(one.returns) in names)
    made = [name.replace("_", "-") for name in found]
    return f"; what it takes comes from {', '.join(made)}" if made else ""


@functools.cache
def _options() -> frozenset[str]:
    """Return what operators call their options."""
    own = {one.arg for _, _, function in definitions() for one in function.args.kwonlyargs}
    words = (option.split()[-1] for alias in ALIASES.values() for option in alias.options.split(", "))
    return frozenset(own | {re.split(r"[=|]", word)[0] for word in words})
