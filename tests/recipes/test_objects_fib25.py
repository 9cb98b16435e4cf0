import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("DASKFLOW_TEST_DATA", ROOT.parent / "shared" / "data"))
SIZE = 96


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="no real EM: set DASKFLOW_TEST_DATA to the folder that has it")
def test_every_object_of_real_em_is_read_back_by_cloudvolume(tmp_path):
    from cloudvolume import CloudVolume

    words = ["--data", DATA, "--output", tmp_path, "--size", SIZE]
    script = [sys.executable, ROOT / "recipes/objects_fib25.py", *words]
    done = subprocess.run(list(map(str, script)), capture_output=True, text=True, timeout=230, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    layer = CloudVolume(f"file://{tmp_path}/segmentation", progress=False, mip=0)
    labels = np.unique(layer[:])
    assert len(layer.available_mips) == 3
    for label in labels[labels != 0].tolist():
        mesh = layer.mesh.get(label)
        mesh = mesh[label] if isinstance(mesh, dict) else mesh
        assert len(mesh.faces) > 3, label
        assert (mesh.vertices.min(axis=0) >= -10).all()
        assert (mesh.vertices.max(axis=0) <= 10 * (SIZE + 1)).all()
    rows = (tmp_path / "skeletons.csv").read_text().splitlines()[1:]
    assert rows
    for row in rows:
        label, length, vertices = row.split(",")
        skeleton = layer.skeleton.get(int(label))
        assert len(skeleton.vertices) == int(vertices)
        np.testing.assert_allclose(skeleton.cable_length(), float(length), rtol=1e-3)
