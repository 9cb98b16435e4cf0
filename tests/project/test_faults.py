"""The page on what happens when something fails names tests that exist."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "faults.md"


def test_every_row_names_a_test_that_exists():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "::" in line]
    assert len(rows) > 25
    for row in rows:
        ((file, name),) = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row)
        nodes = ast.walk(ast.parse((TESTS / file).read_text()))
        assert name in {node.name for node in nodes if isinstance(node, ast.FunctionDef)}, row
