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
BASE = """
import os, signal, sys, traceback
import zarr, tensorstore, distributed, daskflow
for statement in sys.stdin:
    child = os.fork()
    if not child:
        signal.alarm(200)
        os.dup2(2, 1)
        try:
            exec(statement)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
(ALL,) = EXTRAS["all"]


def test_every_extra_is_tried():
    assert set(MODULES) == set(EXTRAS) - {"all", "dev", "docs"}


@pytest.fixture(scope="module")
def base():
    """A process that has imported the base, and tries each statement in a copy of itself."""
    command = [sys.executable, "-c", BASE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        yield one
        one.stdin.close()


@pytest.mark.parametrize("extra", MODULES)
def test_extra_imports_beside_the_base(base, extra):
    absent = [name for name in MODULES[extra] if importlib.util.find_spec(name.partition(".")[0]) is None]
    if absent and extra not in ALL:
        pytest.skip(f"pip install 'daskflow[{extra}]' for {', '.join(absent)}")
    print(f"import {', '.join(MODULES[extra])}", file=base.stdin, flush=True)
    assert base.stdout.readline() == "0\n"
