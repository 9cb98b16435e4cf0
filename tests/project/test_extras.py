"""What an extra installs can be imported beside the base."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
MODULES = {
    "torch": ("torch", "safetensors.torch"),
    "onnx": ("onnxruntime",),
    "hdf5": ("h5py",),
    "tiff": ("imagecodecs",),
    "nifti": ("nibabel",),
    "nrrd": ("nrrd",),
    "brotli": ("brotli",),
    "view": ("neuroglancer", "PIL.Image", "bokeh"),
    "cloud": ("s3fs", "gcsfs"),
    "secure": ("cryptography",),
    "parquet": ("pyarrow.parquet",),
    "aws": ("boto3",),
    "graphene": ("cloudvolume",),
    "xarray": ("xarray",),
    "napari": ("napari",),
    "codecs": ("imagecodecs", "crackle", "compresso", "fpzip", "zfpc"),
    "skeleton": ("kimimaro", "fill_voids"),
    "agglomeration": ("numba",),
    "mesh": ("zmesh", "DracoPy", "numba"),
    "cuda": ("dask_cuda", "cupy"),
    "slurm": ("dask_jobqueue",),
    "kubernetes": ("dask_kubernetes",),
}
(ALL,) = EXTRAS["all"]


def test_every_extra_is_tried():
    assert set(MODULES) == set(EXTRAS) - {"all", "dev", "docs"}


@pytest.mark.parametrize("extra", MODULES)
def test_extra_imports_beside_the_base(extra):
    absent = [name for name in MODULES[extra] if importlib.util.find_spec(name.partition(".")[0]) is None]
    if absent and extra not in ALL:
        pytest.skip(f"pip install 'daskflow[{extra}]' for {', '.join(absent)}")
    code = f"import zarr, tensorstore, distributed, daskflow, {', '.join(MODULES[extra])}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
