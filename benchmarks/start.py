"""What starting costs: help, import, and a pipeline of one small volume with and without a cluster.

CPU is that of the command and of every process it started and waited for. `--igneous` and `--chunkflow` take the paths
of those programs, where they are installed, and measure them the same way.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PIPELINE = ("create-chunk", "-s", "64", "64", "64", "save-npy", "-f", "out.npy")


def measure(command: Sequence[str], times: int) -> tuple[float, float]:
    """Run a command several times, each in an empty folder; return the least wall time and the least CPU time."""
    walls, cpus = [], []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            pid = os.posix_spawn(sys.executable, [sys.executable, "-c", _RUN, folder, *command], os.environ)
            _, status, usage = os.wait4(pid, 0)
            walls.append(time.perf_counter() - started)
            cpus.append(usage.ru_utime + usage.ru_stime)
        if status:
            raise SystemExit(f"{' '.join(command)} failed with status {status}")
    return min(walls), min(cpus)


_RUN = """
import os, sys
os.chdir(sys.argv[1])
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
os.execv(sys.argv[2], sys.argv[2:])
"""


def main() -> None:
    """Print wall and CPU seconds of every command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="once each instead of five times")
    parser.add_argument("--igneous", type=Path, help="path of the igneous command")
    parser.add_argument("--chunkflow", type=Path, help="path of the chunkflow command")
    words = parser.parse_args()
    beside = Path(sys.executable).parent / "daskflow"
    daskflow = str(beside) if beside.exists() else shutil.which("daskflow")
    if daskflow is None:
        raise SystemExit("no command daskflow: pip install -e .")
    commands: list[tuple[str, Sequence[str]]] = [
        ("python -c pass", (sys.executable, "-c", "pass")),
        ("import daskflow", (sys.executable, "-c", "import daskflow")),
        ("import dask.array", (sys.executable, "-c", "import dask.array")),
        ("daskflow --help", (daskflow, "--help")),
        ("64^3 identity, --cluster threads", (daskflow, "--cluster", "threads", *PIPELINE)),
        ("64^3 identity, default", (daskflow, *PIPELINE)),
        ("64^3 identity, --cluster local", (daskflow, "--cluster", "local", *PIPELINE)),
    ]
    if words.igneous:
        commands.append(("igneous --version", (str(words.igneous), "--version")))
    if words.chunkflow:
        commands.append(("chunkflow --help", (str(words.chunkflow), "--help")))
    print(f"{'':34}  wall s   CPU s")
    for name, command in commands:
        wall, cpu = measure(command, 1 if words.small else 5)
        print(f"{name:34}  {wall:6.2f}  {cpu:6.2f}")


if __name__ == "__main__":
    main()
