"""Every benchmark runs, on data so small that its figures mean nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "benchmarks").glob("[!_]*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_benchmark_prints_figures_on_small_data(script, tmp_path):
    command = [sys.executable, str(script), "--small"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=220, check=False)
    assert result.returncode == 0, result.stderr
    assert any(character.isdigit() for character in result.stdout)
