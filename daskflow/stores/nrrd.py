"""NRRD files, by pynrrd: stored x fastest, so that their voxels in order are zyx or czyx."""

# ruff: noqa: ARG003 (every format is asked with the same arguments)

from __future__ import annotations

import bz2
import contextlib
import gzip
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.errors import CorruptChunkError, optional_module
from daskflow.geometry import VolumeSpec
from daskflow.stores.array_files import ArrayFile, in_order
from daskflow.stores.base import Layout, ReadBox
from daskflow.stores.local_files import (
    begins_with,
    check_place,
    deflate_level,
    file_state,
    gzipped,
    local_file,
    refuse_layout,
    replacing,
)
from daskflow.stores.refusals import refuse_cast
from daskflow.stores.stated import Stated

_TYPES = {"float32": "float", "float64": "double"} | {
    f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_CHANNELS = ("list", "vector", "color", "colour", "complex", "point", "matrix", "quaternion", "normal", "gradient")
_PACKED: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("gzip", "gz"), lambda file: gzip.GzipFile(fileobj=file)),
    **dict.fromkeys(("bzip2", "bz2"), bz2.BZ2File),
}
_KIND, _OFFSET = "daskflow layer_type", "daskflow voxel_offset"


def _pynrrd() -> Any:
    return optional_module("nrrd", package="pynrrd", extra="nrrd")


class NrrdStore(ArrayFile):
    """An NRRD image; of a raw one that is one file, only the voxels of a box are read."""

    format_name = "nrrd"

    @classmethod
    def recognises(cls, url: str) -> bool:
        return begins_with(url, (b"NRRD000",))

    @classmethod
    def load(cls, path: Path) -> Any:
        nrrd = _pynrrd()
        with path.open("rb") as file:
            header = nrrd.read_header(file)
            elsewhere = {"data file", "datafile", "byte skip", "byteskip", "line skip", "lineskip"} & set(header)
            _refuse_outside(path, str(header.get("data file", header.get("datafile", path.name))))
            if header["encoding"] in _PACKED:
                return _unpacked(path, header, file)
            if header["encoding"] != "raw" or elsewhere:
                return nrrd.read_data(header, file, str(path), index_order="F")
            dtype = nrrd.reader._determine_datatype(header)
            return np.memmap(path, dtype, "r", file.tell(), tuple(header["sizes"]), order="F")

    @classmethod
    def stated(cls, url: str) -> Stated:
        header = _pynrrd().read_header(str(local_file(url)))
        size, units, position = _place(header)
        return Stated(
            axes=_names(header),
            voxel_size=size,
            units=units,
            position=position,
            voxel_offset=_numbers(header.get(_OFFSET)),
            layer_type=header.get(_KIND),
            sources={
                "axes": "kinds" if "kinds" in header else "assumed: x is fastest, as in NRRD",
                "voxel_size": "spacings" if "spacings" in header else "space directions" if size else "",
                "voxel_offset": f"{_OFFSET!r}" if _OFFSET in header else "space origin",
                "layer_type": f"{_KIND!r}",
            },
        )

    def fingerprint(self) -> dict[str, Any]:
        """Return the location, and size and time of the file and of one beside it that holds the voxels."""
        name = _pynrrd().read_header(str(self.path)).get("data file")
        beside = self.path.parent / name if isinstance(name, str) else self.path
        more = {"data": file_state(beside)} if beside != self.path and beside.is_file() else {}
        return {**super().fingerprint(), **more}

    @classmethod
    def check_file(cls, url: str, spec: VolumeSpec, layout: Layout, dataset: str | None) -> None:
        _pynrrd()
        refuse_layout(layout, ("chunk", "shard"), "NRRD")
        deflate_level(layout, ("gzip",), "NRRD")
        refuse_cast(spec.dtype, tuple(_TYPES), "an NRRD file")
        check_place(url, spec)

    @classmethod
    def write_file(cls, url: str, spec: VolumeSpec, read: ReadBox, layout: Layout, dataset: str | None) -> None:
        """Write an attached NRRD file, compressed by gzip unless the layout says none, with our offset in its keys."""
        level = deflate_level(layout, ("gzip",), "NRRD")
        sizes = (*spec.box.shape[::-1], *(() if spec.channels is None else (spec.channels,)))
        more = () if spec.channels is None else ("none",)
        fields = {
            "type": _TYPES[spec.dtype.name],
            "dimension": len(sizes),
            "sizes": " ".join(map(str, sizes)),
            "kinds": " ".join(["domain"] * 3 + ["list" for _ in more]),
            "endian": "little",
            "encoding": "raw" if level is None else "gzip",
        }
        if spec.voxel_size is not None:
            z, y, x = (f"{length:.12g}" for length in spec.voxel_size)
            origin = (start * length for start, length in zip(spec.box.start, spec.voxel_size, strict=True))
            fields |= {
                "space dimension": 3,
                "space units": '"nm" "nm" "nm"',
                "space directions": " ".join([f"({x},0,0)", f"(0,{y},0)", f"(0,0,{z})", *more]),
                "space origin": "({2:.12g},{1:.12g},{0:.12g})".format(*origin),
            }
        keys = {_OFFSET: " ".join(map(str, spec.box.start[::-1]))}
        if spec.layer_type is not None:
            keys[_KIND] = spec.layer_type
        lines = [f"{name}: {value}" for name, value in fields.items()] + [f"{k}:={v}" for k, v in keys.items()]
        with replacing(local_file(url)) as path:
            path.write_bytes(("\n".join(["NRRD0005", *lines]) + "\n\n").encode())
            with gzipped(path, level) as file:
                for voxels in in_order(read, spec):
                    file.write(voxels.data)


def _refuse_outside(path: Path, name: str) -> None:
    """Raise where a header, perhaps a stranger's, names a file that is not in its directory or below that."""
    if not (path.parent / name).resolve().is_relative_to(path.parent.resolve()):
        raise CorruptChunkError(f"{path} names {name}, which is not beside it; put it there, and name it so")


def _unpacked(path: Path, header: Any, file: Any) -> Any:
    """Return the voxels of a packed file, of which no more is unpacked than its header says that there are."""
    dtype, sizes = _pynrrd().reader._determine_datatype(header), tuple(map(int, header["sizes"]))
    name = header.get("data file", header.get("datafile"))
    with contextlib.ExitStack() as stack:
        packed = file if name is None else stack.enter_context((path.parent / name).open("rb"))
        for _ in range(header.get("line skip", header.get("lineskip", 0))):
            packed.readline()
        unpacked = stack.enter_context(_PACKED[header["encoding"]](packed))
        unpacked.seek(max(0, header.get("byte skip", header.get("byteskip", 0))))
        wanted = math.prod(sizes) * dtype.itemsize
        data = unpacked.read(wanted + 1)
    if len(data) != wanted:
        there = "more" if len(data) > wanted else f"{len(data):,}"
        raise CorruptChunkError(f"{path} holds {there} bytes, and its header states {wanted:,}: {dtype} {sizes}")
    return np.frombuffer(data, dtype).reshape(sizes, order="F")


def _names(header: Any) -> tuple[str, ...]:
    """Return the axes, fastest first: those that kinds call time or a list of values, and x, y, z in this order."""
    left = iter("xyz")
    kinds = [str(kind).lower() for kind in header.get("kinds", ["domain"] * int(header["dimension"]))]
    channel = [any(word in kind for word in _CHANNELS) for kind in kinds]
    special = ["c" if several else "t" if kind == "time" else "" for several, kind in zip(channel, kinds, strict=True)]
    return tuple(name or next(left, "") for name in special)


def _place(header: Any) -> tuple[Sequence[float | None] | None, Any, list[float] | None]:
    """Return size and unit of voxels, per axis or for all, and the position where axes are not turned."""
    if "spacings" in header:
        return [_finite(n) for n in header["spacings"]], header.get("units", header.get("space units", "")), None
    if "space directions" not in header:
        return None, "", None
    rows = [None if row is None or not np.isfinite(row).all() else row for row in header["space directions"]]
    size = [None if row is None else float(np.linalg.norm(row)) for row in rows]
    units = header.get("space units", "")
    matrix = np.array([row for row in rows if row is not None])
    along = matrix.shape == (3, 3) and np.array_equal(matrix, np.diag(np.diag(matrix)))
    known = along and np.all(np.diag(matrix) > 0) and "space origin" in header
    spatial = [n for n in size if n is not None]
    return spatial if len(spatial) == 3 else size, list(units) or "", list(header["space origin"]) if known else None


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


def _numbers(text: str | None) -> list[float] | None:
    return None if text is None else [float(word) for word in text.split()]
