"""Drivers in processes of their own, and what they leave."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def start(folder, *options):
    """Start a driver at the head of a process group, as a shell does."""
    command = [sys.executable, str(Path(__file__).parent / "driver.py"), str(folder), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def kill(driver):
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate(timeout=30)


def stored(folder):
    """Return the hash of every file of the layers, provenance (which holds the time) apart."""
    files = [path for name in ("labels", "smooth") for path in sorted((folder / name).rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != "provenance"
    }
