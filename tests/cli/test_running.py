import os
import subprocess
import sys

import numpy as np
import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_terminal_that_shows_progress_and_report_reads_the_outcome_once(tmp_path):
    np.save(tmp_path / "image.npy", np.zeros((8, 8, 8), np.uint8))
    command = [sys.executable, "-m", "daskflow", "open", "image.npy", "save", "out"]
    ours, theirs = os.openpty()
    with subprocess.Popen(command, cwd=tmp_path, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 1 << 16):
                shown += part
        except OSError:
            pass  # the end, as Linux tells it
    os.close(ours)
    assert process.returncode == 0, shown
    assert shown.count(b"save-out: finished") == 1
    assert b"peak" in shown


def test_report_is_written_once_and_to_standard_output(tmp_path):
    np.save(tmp_path / "image.npy", np.zeros((8, 8, 8), np.uint8))
    command = [sys.executable, "-m", "daskflow", "open", "image.npy", "save", "out"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("save-out: finished")
    assert "save-out: finished" not in result.stderr
