"""The page on what happens when something fails names tests that exist, and says when they run."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "faults.md"
MARKS = re.compile(r"mark\.(slow|slurm|emulator|gpu|browser)\b")


def test_every_row_names_a_test_that_exists_and_when_it_runs():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "::" in line]
    assert len(rows) > 45
    for row in rows:
        ((file, name, runs),) = re.findall(r"`([\w/]+\.py)::(test_\w+)` \| (.+) \|$", row)
        tree = ast.parse((TESTS / file).read_text())
        tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
        assert tests, row
        of_file = [node for node in tree.body if isinstance(node, ast.Assign) and "pytestmark" in ast.unparse(node)]
        marks = {mark for node in (*of_file, *tests[0].decorator_list) for mark in MARKS.findall(ast.unparse(node))}
        assert runs == (", ".join(f"`{mark}`" for mark in sorted(marks)) or "always"), row
