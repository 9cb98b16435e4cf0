"""NPY files: an array as numpy saves it; offset and voxel size are the opener's to say."""

# ruff: noqa: ARG003 (every format is asked with the same arguments)

from __future__ import annotations

from typing import Any

import numpy as np

from daskflow.errors import CorruptChunkError, ParameterError, UnknownFormatError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.axes import Axes, find_axes
from daskflow.stores.base import NUMBERS, Array, Layout, Opening, ReadBox, Store
from daskflow.stores.local_files import FileStore, begins_with, check_place, local_file, refuse_layout, replacing, slabs
from daskflow.stores.refusals import check_mip, refuse_cast
from daskflow.stores.stated import Stated, settle

_MAGIC = b"\x93NUMPY"


class NpyStore(FileStore):
    """An array in an NPY file, of the shape `stored`, read by memory map: only the voxels of a box are read."""

    format_name = "npy"

    def __init__(self, url: str, spec: VolumeSpec, axes: Axes, stored: tuple[int, ...]) -> None:
        super().__init__(url, spec)
        self.axes = axes
        self.stored = stored

    @classmethod
    def recognises(cls, url: str) -> bool:
        return begins_with(url, (_MAGIC,))

    @classmethod
    def open(cls, url: str, opening: Opening) -> Store:
        check_mip(opening.mip, 1, url)
        if opening.dataset is not None:
            raise ParameterError(f"{url} holds one array; drop dataset={opening.dataset!r}")
        array = _mapped(url)
        if array.dtype.name not in NUMBERS:
            raise UnknownFormatError(
                f"{url} holds {array.dtype}, which is no voxel type; read are {', '.join(NUMBERS)}"
            )
        axes = find_axes(array.shape, (), url, opening, keep_channel=True)
        spec, sources = settle(Stated(), axes, opening, shape=array.shape, dtype=array.dtype, url=url)
        store = cls(url, spec, axes, array.shape)
        store.sources = sources
        return store

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

    def _read(self, box: BoundingBox) -> Array:
        mapped = _mapped(self.url)
        if mapped.shape != self.stored:
            raise CorruptChunkError(f"{self.url} now has shape {mapped.shape}; it had {self.stored} when it was opened")
        return np.array(self.axes.view(mapped, box.slices(self.spec.box)), self.spec.dtype, order="C")

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), "axes": repr(self.axes)}


def _mapped(url: str) -> Array:
    path = local_file(url)
    try:
        mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise kvstore.missing(url) from None
    except (ValueError, EOFError) as error:
        kind = UnknownFormatError if "object" in str(error).lower() else CorruptChunkError
        raise kind(f"cannot read {path} as NPY: {error}") from error
    if not isinstance(mapped, np.memmap):
        raise UnknownFormatError(f"{path} is no NPY file but an archive of several; save one array with numpy.save")
    return mapped
