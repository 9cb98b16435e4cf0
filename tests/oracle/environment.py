"""The virtual environment that igneous runs in: made once, by one process, in a directory that git ignores."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE / "requirements.txt"
_ROOT = Path(__file__).parents[2] / ".oracle"


class OracleError(Exception):
    """The environment cannot be made; the message says why."""


def oracle_python() -> Path:
    """Return the Python of an environment with igneous: of DASKFLOW_ORACLE, or one that is made when first asked for.

    Raises:
        OracleError: DASKFLOW_ORACLE is no such environment, or pip cannot install one.
    """
    given = os.environ.get("DASKFLOW_ORACLE")
    if given:
        python = Path(given) / "bin" / "python"
        if not python.exists():
            raise OracleError(f"DASKFLOW_ORACLE is {given}, which holds no bin/python")
        return python
    stamp = hashlib.sha256(_REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    home = _ROOT / stamp
    python, complete = home / "bin" / "python", home / "complete"
    _ROOT.mkdir(exist_ok=True)
    with (_ROOT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        if not complete.exists():
            _run(sys.executable, "-m", "venv", "--clear", str(home))
            _run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "-r", str(_REQUIREMENTS))
            complete.touch()
    return python


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise OracleError(f"{' '.join(command)} failed:\n{result.stderr[-2000:]}")
