import sys
from pathlib import Path

import pytest

from daskflow.inference.network import ModelFile

sys.path.insert(0, str(Path(__file__).parent))  # for chunkflow_weights

MIRROR = '''
"""Answers with the mirrored patch and with its square: every patch answers something else for the same voxel."""
import numpy as np

calls = []


class PatchInferencer:
    def __init__(self, weight_path, output_patch_mask):
        self.mask = output_patch_mask

    def __call__(self, patches):
        calls.append(len(patches))
        crop = [(n - o) // 2 for n, o in zip(patches.shape[2:], self.mask.shape)]
        middle = tuple(slice(c, c + o) for c, o in zip(crop, self.mask.shape))
        inner = patches[(slice(None), slice(0, 1), *middle)]
        return np.concatenate([inner[..., ::-1], inner**2 + 1], axis=1) * self.mask
'''


@pytest.fixture
def model_file(tmp_path):
    """Write a model file and return it."""

    def write(text, name="model.py"):
        path = tmp_path / name
        path.write_text(text)
        return ModelFile.at(path)

    return write


@pytest.fixture(scope="session")
def mirror(tmp_path_factory):
    """A universal model with two channels whose answer depends on the patch."""
    path = tmp_path_factory.mktemp("models") / "mirror.py"
    path.write_text(MIRROR)
    return ModelFile.at(path)
