"""NPY files: an array as numpy saves it; offset and voxel size are the opener's to say."""

# ruff: noqa: ARG003 (every format is asked with the same arguments)

from __future__ import annotations

from pathlib import Path

import numpy as np

from daskflow.errors import ParameterError, UnknownFormatError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores.array_files import ArrayFile
from daskflow.stores.base import NUMBERS, Array, Layout, ReadBox
from daskflow.stores.local_files import begins_with, check_place, local_file, refuse_layout, replacing, slabs
from daskflow.stores.refusals import refuse_cast

_MAGIC = b"\x93NUMPY"


class NpyStore(ArrayFile):
    """An array in an NPY file, read by memory map: only the voxels of a box are read."""

    format_name = "npy"

    @classmethod
    def recognises(cls, url: str) -> bool:
        return begins_with(url, (_MAGIC,))

    @classmethod
    def load(cls, path: Path) -> Array:
        try:
            mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            if "object" in str(error).lower():
                raise UnknownFormatError(f"cannot read {path} as NPY: {error}") from error
            raise
        if not isinstance(mapped, np.memmap):
            raise UnknownFormatError(f"{path} is an archive of several NPY files; save one array with numpy.save")
        return mapped

    @classmethod
    def check_file(cls, url: str, spec: VolumeSpec, layout: Layout, dataset: str | None) -> None:
        refuse_layout(layout, ("chunk", "shard"), "NPY")
        if (layout.compression or layout.encoding or "none") not in ("none", "raw"):
            raise ParameterError(f"NPY files are not compressed; got {layout.compression or layout.encoding}")
        if layout.quality is not None:
            raise ParameterError(f"NPY files are not compressed; drop quality={layout.quality}")
        refuse_cast(spec.dtype, NUMBERS, "an NPY file")
        check_place(url, spec)

    @classmethod
    def write_file(cls, url: str, spec: VolumeSpec, read: ReadBox, layout: Layout, dataset: str | None) -> None:
        with replacing(local_file(url)) as path, path.open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(spec.dtype), "fortran_order": False, "shape": spec.shape}
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
            for box in slabs(spec):
                voxels = np.ascontiguousarray(read(box), spec.dtype).reshape(spec.channels or 1, -1)
                section = BoundingBox((box.start[0], *spec.box.start[1:]), spec.box.stop)
                for channel, part in enumerate(voxels):
                    file.seek(start + ((channel + 1) * spec.box.size - section.size) * spec.dtype.itemsize)
                    file.write(part.data)
