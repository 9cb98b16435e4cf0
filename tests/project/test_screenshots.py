"""The pictures of the guides can be taken anew, and show what they are there for."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "docs" / "screenshots.py"
GREEN = (102, 204, 94)  # of computing tasks in the dashboard's task stream
BLUE = (107, 163, 214)  # of a histogram


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    reason="Chromium is not installed: apt-get install chromium",
)
def test_dashboard_neuroglancer_and_a_tutorial_are_seen(tmp_path):
    pytest.importorskip("playwright", reason="playwright is not installed")
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, timeout=220, check=False)
    assert done.returncode == 0, done.stderr
    names = ("dashboard.png", "neuroglancer.png", "notebook.png")
    pictures = [np.asarray(Image.open(tmp_path / name).convert("RGB")) for name in names]
    dashboard, viewer, notebook = (picture.reshape(-1, 3) for picture in pictures)
    for pixels, color in ((dashboard, GREEN), (notebook, BLUE)):
        assert np.count_nonzero((np.abs(pixels.astype(int) - color) < 12).all(axis=1)) > 10_000
    assert len(np.unique(viewer, axis=0)) > 2000
