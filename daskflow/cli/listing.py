"""Names, groups and summaries of operators, without importing them."""

from __future__ import annotations

import ast
from pathlib import Path

from daskflow import operators
from daskflow.operators.aliases import ALIASES
from daskflow.plugins import entry_points


def listed() -> dict[str, list[tuple[str, str]]]:
    """Return the operators by group: (command, summary), sorted; those of other packages are last."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, group in sorted(operators.GROUPS.items()):
        if name in ALIASES:
            groups.setdefault(group, []).append((name.replace("_", "-"), ALIASES[name].summary))
            continue
        place = Path(operators.__file__).parent / group / name
        source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        for node in ast.parse(source.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                groups.setdefault(group, []).append((name.replace("_", "-"), summary))
    groups = dict(sorted(groups.items()))
    theirs = sorted({point.name for point in entry_points("daskflow.operators")})
    if theirs:
        groups["plugins"] = [(name.replace("_", "-"), "(plugin)") for name in theirs]
    return groups
