"""NIfTI files, plain or gzipped, by nibabel: stored x fastest, so that their voxels in order are zyx or czyx."""

# ruff: noqa: ARG003 (every format is asked with the same arguments)

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.errors import ParameterError, optional_module
from daskflow.geometry import VolumeSpec
from daskflow.stores.array_files import ArrayFile, in_order
from daskflow.stores.base import Array, Layout, ReadBox
from daskflow.stores.local_files import (
    begins_with,
    check_place,
    deflate_level,
    gzipped,
    local_file,
    refuse_layout,
    replacing,
)
from daskflow.stores.refusals import refuse_cast
from daskflow.stores.stated import Stated

_SIZES = (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c")  # of the header of version 1 or 2
_GZIP = b"\x1f\x8b"
_INTEGERS = (f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))
_DTYPES = (*_INTEGERS, "float32", "float64")
_NM_PER_UNIT = {"meter": 1e9, "mm": 1e6, "micron": 1e3}
_LABELS = "label"  # the intent of segmentations


def _nibabel() -> Any:
    return optional_module("nibabel", package="nibabel", extra="nifti")


class NiftiStore(ArrayFile):
    """A NIfTI image; a gzipped one is unpacked whole by each process that reads it."""

    format_name = "nifti"

    @classmethod
    def recognises(cls, url: str) -> bool:
        return begins_with(url, (_GZIP,)) if url.lower().endswith(".nii.gz") else begins_with(url, _SIZES)

    @classmethod
    def load(cls, path: Path) -> Any:
        image = _nibabel().load(path)
        proxy = image.dataobj
        if path.name.lower().endswith(".gz"):
            with gzip.open(path) as file:
                array = np.asanyarray(image.from_stream(file).dataobj)
                while file.read(1 << 20):  # to the checksum, which follows the last voxel
                    pass
            return array
        return proxy if (proxy.slope, proxy.inter) == (1, 0) else _Scaled(proxy)

    @classmethod
    def stated(cls, url: str) -> Stated:
        header = _nibabel().load(local_file(url)).header
        names = tuple("xyztc"[: header["dim"][0]])
        unit = header.get_xyzt_units()[0]
        factor = _NM_PER_UNIT.get(unit)
        affine = header.get_best_affine()
        sizes = [float(str(np.float32(size))) for size in header.get_zooms()[:3]]  # 0.0081, not 0.00810000067
        along = header["sform_code"] > 0 and np.array_equal(affine[:3, :3], np.diag(np.diag(affine)[:3]))
        position = affine[:3, 3] if along and np.all(np.diag(affine) > 0) else None
        size = None if factor is None else [length * factor for length in sizes]
        return Stated(
            axes=names,
            voxel_size=size,
            position=None if position is None or factor is None else [float(p) * factor for p in position],
            layer_type="segmentation" if header.get_intent()[0] == _LABELS else None,
            sources={
                "axes": "NIfTI",
                "voxel_size": f"pixdim, in {unit}" if size else "pixdim in unknown units",
                "voxel_offset": "sform" if position is not None else "",
                "layer_type": "intent",
            },
        )

    @classmethod
    def check_file(cls, url: str, spec: VolumeSpec, layout: Layout, dataset: str | None) -> None:
        _nibabel()
        refuse_layout(layout, ("chunk", "shard"), "NIfTI")
        if not url.lower().endswith((".nii", ".nii.gz")):
            raise ParameterError(f"{url} must end in .nii or .nii.gz, by which readers know whether it is gzipped")
        deflate_level(_gzip(url, layout), ("gzip",), "NIfTI")
        refuse_cast(spec.dtype, _DTYPES, "a NIfTI file")
        if np.any(np.rint(_position(spec).astype(np.float32) / _lengths(spec)) != spec.box.start[::-1]):
            raise ParameterError(f"a NIfTI file holds positions as float32, too few digits for {spec.box.start} (zyx)")
        check_place(url, spec)

    @classmethod
    def write_file(cls, url: str, spec: VolumeSpec, read: ReadBox, layout: Layout, dataset: str | None) -> None:
        """Write a NIfTI-1 file, or version 2 where an axis is too long for it; sizes are in microns, channels axis 5.

        Positions are float32, as the format has it.
        """
        nibabel = _nibabel()
        shape = (*spec.box.shape[::-1], *(() if spec.channels is None else (1, spec.channels)))
        plain = max(shape) <= np.iinfo(np.int16).max
        header = (nibabel.Nifti1Header if plain else nibabel.Nifti2Header)(endianness="<")
        header.set_data_dtype(spec.dtype)
        header.set_data_shape(shape)
        lengths = _lengths(spec)
        header.set_zooms((*lengths, *[1.0] * (len(shape) - 3)))
        affine = np.diag([*lengths, 1.0])
        affine[:3, 3] = _position(spec)
        header.set_sform(affine, "scanner")
        if spec.voxel_size is not None:
            header.set_xyzt_units("micron")
        if spec.layer_type == "segmentation":
            header.set_intent(_LABELS)
        header.set_data_offset(header.single_vox_offset)
        level = deflate_level(_gzip(url, layout), ("gzip",), "NIfTI")
        with replacing(local_file(url)) as path, gzipped(path, level) as file:
            file.write(header.binaryblock.ljust(header.single_vox_offset, b"\0"))
            for voxels in in_order(read, spec):
                file.write(voxels.data)


def _lengths(spec: VolumeSpec) -> Array:
    """Return how long voxels are, in microns (xyz)."""
    return np.array(spec.voxel_size or (1e3, 1e3, 1e3))[::-1] / _NM_PER_UNIT["micron"]


def _position(spec: VolumeSpec) -> Array:
    """Return where the first voxel lies, in microns (xyz)."""
    position: Array = _lengths(spec) * spec.box.start[::-1]
    return position


class _Scaled:
    """An image whose numbers are scaled when they are read, to float64."""

    dtype = np.dtype(np.float64)

    def __init__(self, proxy: Any) -> None:
        self.proxy = proxy
        self.shape = proxy.shape

    def __getitem__(self, index: Any) -> Any:
        return self.proxy[index]


def _gzip(url: str, layout: Layout) -> Layout:
    """Return the layout as the ending of the name has it, where it says nothing of compression."""
    if layout.compression or layout.encoding:
        return layout
    return Layout(compression="gzip" if url.lower().endswith(".gz") else "none", quality=layout.quality)
