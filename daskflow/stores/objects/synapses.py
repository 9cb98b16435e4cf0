"""Synapses, and the files of chunkflow and DVID that hold them.

HDF5 and JSON have the names of chunkflow 1.2: `pre` (legacy `tbars`) with zyx in voxels, `post` with the row of its
`pre` before zyx, `resolution` in nm, confidences, and users as numbers into a list of names.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from daskflow.errors import CorruptChunkError, ParameterError
from daskflow.geometry import BoundingBox, VoxelSize, as_voxel_size
from daskflow.stores.hdf5 import load_h5py
from daskflow.stores.objects.located import Located, check_places

Array = npt.NDArray[Any]

_OF_PRE = ("pre_confidence", "pre_users")
_NUMBERS = {"pre_confidence": "f4", "post_confidence": "f4", "pre_users": "i4", "post_users": "i4"}
_UNKNOWN = -1  # user
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Synapses(Located):
    """Presynaptic sites, and the postsynaptic ones that belong to them.

    Attributes:
        pre: shape (n, 3), zyx in voxels.
        post: shape (m, 4), the row of its presynaptic site, then zyx in voxels.
        voxel_size: nm (zyx), None if it is not known.
        attributes: `pre_confidence`, `post_confidence` from 0 to 1, `pre_users`, `post_users`: a row of `users`, or -1.
        users: names.
    """

    line_name: ClassVar[str] = "syns"
    pre: Array
    post: Array = field(default_factory=lambda: np.zeros((0, 4), np.int32))
    voxel_size: VoxelSize | None = None
    attributes: Mapping[str, Array] = field(default_factory=dict)
    users: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_places(self.pre, "pre")
        check_places(self.post, "post", 4)
        for name, values in self.attributes.items():
            count = len(self.pre if name in _OF_PRE else self.post)
            if name not in _NUMBERS or np.shape(values) != (count,):
                raise ParameterError(f"{name} of shape {np.shape(values)}; known: {', '.join(_NUMBERS)}, of {count}")
            if name.endswith("confidence") and not ((values >= 0) & (values <= 1)).all():
                raise ParameterError(f"{name} reaches from {values.min()} to {values.max()}; give numbers from 0 to 1")
        rows = self.post[:, 0]
        if not ((rows >= 0) & (rows < len(self.pre))).all():
            wrong = rows[(rows < 0) | (rows >= len(self.pre))][0]
            raise ParameterError(f"a post names row {wrong} of pre, which has {len(self.pre):,}")

    def __repr__(self) -> str:
        return f"<Synapses {len(self.pre):,} pre, {len(self.post):,} post in {self.box}>"

    @property
    def places(self) -> Array:
        return np.concatenate([self.pre, self.post[:, 1:]])

    def kept(self, keep: Array) -> Synapses:
        """Return the presynaptic sites that `keep`, a mask, names, with what belongs to them."""
        rows = np.cumsum(keep) - 1
        post = keep[self.post[:, 0].astype(np.int64)]
        attributes = {name: values[keep if name in _OF_PRE else post] for name, values in self.attributes.items()}
        left = self.post[post].copy()
        left[:, 0] = rows[left[:, 0].astype(np.int64)]
        return replace(self, pre=self.pre[keep], post=left, attributes=attributes)

    def within(self, box: BoundingBox) -> Synapses:
        """Return the presynaptic sites in a box, itself without its stop, with what belongs to them."""
        start, stop = np.array(box.start), np.array(box.stop)
        return self.kept(np.all((self.pre >= start) & (self.pre < stop), axis=1))

    def flipped(self) -> Synapses:
        """Return them with axes in the other order."""
        size = None if self.voxel_size is None else as_voxel_size(self.voxel_size[::-1])
        post = np.concatenate([self.post[:, :1], self.post[:, :0:-1]], axis=1)
        return replace(self, pre=self.pre[:, ::-1], post=post, voxel_size=size)


def decode_synapses(data: bytes, name: str) -> Synapses:
    """Return the synapses in a file: HDF5, JSON of either of chunkflow's forms, or a list of DVID; of nothing, none.

    Raises:
        CorruptChunkError: it holds something else.
    """
    if not data:
        return Synapses(np.zeros((0, 3), np.int32))
    try:
        if data.startswith(b"\x89HDF"):
            return _from_hdf5(data)
        found = json.loads(data)
        if isinstance(found, list):
            return _from_dvid(found)
        return synapses_of(found, found.get("users", ())) if "pre" in found else _from_sites(found)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OSError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else "values have other forms"
        raise CorruptChunkError(
            f"{name} holds no synapses that can be read: {error if isinstance(error, ValueError | OSError) else why};"
            " known are HDF5 and JSON of chunkflow, and lists of DVID"
        ) from error


def _from_hdf5(data: bytes) -> Synapses:
    with load_h5py().File(io.BytesIO(data), "r") as file:
        arrays = {name: file[name][...] for name in ("pre", "tbars", "post", "resolution", *_NUMBERS) if name in file}
        users = str(file.attrs["users"]).split(";") if "users" in file.attrs else ()
    arrays["pre"] = arrays["pre"] if "pre" in arrays else arrays["tbars"]
    return synapses_of(arrays, users)


def synapses_of(arrays: Mapping[str, Any], users: Sequence[str]) -> Synapses:
    """Return synapses from arrays by chunkflow's names.

    Raises:
        ValueError: they have other forms.
    """
    size = arrays.get("resolution")
    return Synapses(
        _rows(arrays["pre"], 3),
        _rows(arrays.get("post", ()), 4),
        None if size is None else as_voxel_size(size),
        {name: np.asarray(arrays[name], dtype) for name, dtype in _NUMBERS.items() if arrays.get(name) is not None},
        tuple(users),
    )


def _rows(values: Any, columns: int) -> Array:
    found = np.asarray(values, dtype=None if hasattr(values, "dtype") else object)
    try:
        rows = found.reshape(-1, columns).astype(np.float64)
    except (ValueError, TypeError):
        raise ValueError(f"places are rows of {columns} numbers") from None
    wrong = (rows % 1 != 0) | (abs(rows) >= 2**31)
    if wrong.any():
        raise ValueError(f"places are whole voxels below 2^31, not {rows[wrong][0]:g}")
    return rows.astype(np.int32)


def _from_sites(found: Mapping[str, Any]) -> Synapses:
    """Return what chunkflow reads from JSON: sites by name, with the order of axes and the resolution."""
    order, size = found["order"], found.get("resolution")
    if order not in (["z", "y", "x"], ["x", "y", "z"]):
        raise ValueError(f"unknown order {order}; known orders: zyx, xyz")
    sites = [value for key, value in found.items() if key not in ("order", "resolution")]
    post = [[row, *place] for row, site in enumerate(sites) for place in site.get("postsynapses") or ()]
    size = None if size is None else as_voxel_size(size)
    synapses = Synapses(_rows([site["coord"] for site in sites], 3), _rows(post, 4), size)
    return synapses if order[0] == "z" else synapses.flipped()


def _from_dvid(found: Sequence[Mapping[str, Any]]) -> Synapses:
    """Return a list of DVID's, whose places are xyz; a post whose pre is not in the list is left out."""
    pre = [one for one in found if "Pre" in one["Kind"]]
    rows = {tuple(one["Pos"]): row for row, one in enumerate(pre)}
    if len(rows) < len(pre):
        raise ValueError(f"{len(pre) - len(rows):,} of {len(pre):,} presynaptic sites are at the place of another")
    post: list[Mapping[str, Any]] = []
    parents: list[int] = []
    for one in found:
        row = rows.get(tuple(one["Rels"][0]["To"])) if "Post" in one["Kind"] and one.get("Rels") else None
        if row is not None:
            post.append(one)
            parents.append(row)
    lost = sum("Post" in one["Kind"] for one in found) - len(post)
    if lost:
        _log.warning("%s postsynaptic sites have no presynaptic one in the list, and are left out", f"{lost:,}")
    users = sorted({one["Prop"]["user"] for one in (*pre, *post) if "user" in one.get("Prop", {})})
    attributes = {}
    for name, sites in (("pre", pre), ("post", post)):
        told = [one.get("Prop", {}) for one in sites]
        attributes[f"{name}_confidence"] = np.array([float(one.get("conf", 1)) for one in told], "f4")
        numbers = [users.index(one["user"]) if "user" in one else _UNKNOWN for one in told]
        attributes[f"{name}_users"] = np.array(numbers, "i4")
    posts = [[row, *one["Pos"][::-1]] for row, one in zip(parents, post, strict=True)]
    return Synapses(_rows([one["Pos"][::-1] for one in pre], 3), _rows(posts, 4), None, attributes, tuple(users))


def encode_synapses(synapses: Synapses, kind: str) -> bytes:
    """Return a file, ``h5``, ``json`` or ``dvid``; the first two as chunkflow writes them."""
    if kind == "dvid":
        return json.dumps(_to_dvid(synapses)).encode()
    arrays: dict[str, Any] = {"pre": synapses.pre, "post": synapses.post, **synapses.attributes}
    if synapses.voxel_size is not None:
        arrays["resolution"] = np.array(synapses.voxel_size)
    if kind == "json":
        users = {"users": list(synapses.users)} if synapses.users else {}
        return json.dumps({name: values.tolist() for name, values in arrays.items()} | users).encode()
    return encode_arrays(arrays, {"users": ";".join(synapses.users)} if synapses.users else {})


def encode_arrays(arrays: Mapping[str, Array], attributes: Mapping[str, str]) -> bytes:
    """Return an HDF5 file of arrays by name; the same ones give the same bytes."""
    stream = io.BytesIO()
    with load_h5py().File(stream, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, track_times=False)
        file.attrs.update(attributes)
    return stream.getvalue()


def _to_dvid(synapses: Synapses) -> list[dict[str, Any]]:
    """Return the list that DVID takes for many synapses: places are xyz."""
    pre, post = (places[:, ::-1].tolist() for places in (synapses.pre, synapses.post[:, 1:]))
    parents = synapses.post[:, 0].tolist()
    children: list[list[Any]] = [[] for _ in pre]
    for place, parent in zip(post, parents, strict=True):
        children[parent].append({"Rel": "PreSynTo", "To": place})
    sites = [("PreSyn", "pre", row, place, children[row]) for row, place in enumerate(pre)]
    sites += [
        ("PostSyn", "post", row, place, [{"Rel": "PostSynTo", "To": pre[parent]}])
        for row, (place, parent) in enumerate(zip(post, parents, strict=True))
    ]
    return [
        {"Kind": kind, "Pos": place, "Prop": _told(synapses, of, row), "Rels": rels, "Tags": []}
        for kind, of, row, place, rels in sites
    ]


def _told(synapses: Synapses, of: str, row: int) -> dict[str, str]:
    confidence, users = (synapses.attributes.get(f"{of}_{name}") for name in ("confidence", "users"))
    told = {} if confidence is None else {"conf": f"{float(confidence[row]):.7g}"}
    return told if users is None or users[row] < 0 else told | {"user": synapses.users[users[row]]}
