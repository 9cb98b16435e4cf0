"""Names, groups and summaries of operators, without importing them."""

from __future__ import annotations

import ast
from importlib.metadata import entry_points
from pathlib import Path

OPERATORS = Path(__file__).parents[1] / "operators"


def listed() -> dict[str, list[tuple[str, str]]]:
    """Return the operators by group: (command, summary), sorted; those of other packages are last."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(OPERATORS.glob("[!_]*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name == path.stem:
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                groups.setdefault(_group(node), []).append((node.name.replace("_", "-"), summary))
    groups = dict(sorted(groups.items()))
    theirs = sorted({point.name for point in entry_points(group="daskflow.operators")})
    if theirs:
        groups["plugins"] = [(name.replace("_", "-"), "(plugin)") for name in theirs]
    return groups


def _group(function: ast.FunctionDef) -> str:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call):
            for keyword in decorator.keywords:
                if keyword.arg == "group" and isinstance(keyword.value, ast.Constant):
                    return str(keyword.value.value)
    return "other"
