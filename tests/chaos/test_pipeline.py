"""A whole command line, killed again and again: the bytes are those of a run that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from processes import stored

LINE = """
--quiet --workers 2 open image.npy gaussian-filter -s 1 2 2 -o smooth connected-components -i smooth -t 130 -o labels
save -i labels labels -c 16 16 16 -b 16 16 16 save -i smooth smooth -c 8 16 16 save-h5 -i smooth -f smooth.h5
"""


def start(folder):
    command = [sys.executable, "-m", "daskflow", *LINE.split()]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


@pytest.mark.slow
def test_line_killed_at_random_points_ends_in_the_same_bytes(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 96)).astype(np.uint8)
    clean, killed = tmp_path / "clean", tmp_path / "killed"
    for folder in (clean, killed):
        folder.mkdir()
        np.save(folder / "image.npy", image)
    whole = start(clean)
    began = time.monotonic()
    output = whole.communicate(timeout=120)[0].decode()
    lasted = time.monotonic() - began
    assert whole.returncode == 0, output
    dice = random.Random(3)
    for _ in range(2):
        driver = start(killed)
        time.sleep(dice.uniform(0.3, 0.9) * lasted)
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
        driver.communicate(timeout=30)
    last = start(killed)
    output = last.communicate(timeout=120)[0].decode()
    assert last.returncode == 0, output
    assert stored(killed) == stored(clean)
    assert len(stored(clean)) > 100
    read = [_main_of(folder / "smooth.h5") for folder in (clean, killed)]
    np.testing.assert_array_equal(*read)
    assert not list(Path(killed, "labels.daskflow").rglob("scratch/*"))


def _main_of(path):
    import h5py

    with h5py.File(path) as file:
        return file["main"][:]
