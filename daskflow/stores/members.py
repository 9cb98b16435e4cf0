"""The arrays and images that a file or group holds, each of which `dataset` can name."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.errors import DaskflowError
from daskflow.stores import kvstore
from daskflow.stores.hdf5_contents import datasets_of, is_hdf5
from daskflow.stores.ome_metadata import ome_of
from daskflow.stores.ome_zarr import listed_images
from daskflow.stores.zarr_metadata import Node, array_shape, arrays_below, read_node

_MOST = 1000  # further ones are not listed


@dataclass(frozen=True)
class Member:
    """An array or image inside a file or group; its name is as `dataset` takes it, its shape as stored."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def members_of(url: str) -> tuple[Member, ...]:
    """Return what an HDF5 file or zarr group holds, at most 1000; nothing for what is one array or is damaged."""
    path = kvstore.local_path(url)
    found = _in_file(path) if path is not None and path.is_file() else _in_group(url)
    try:
        return tuple(itertools.islice(found, _MOST))
    except (DaskflowError, AttributeError, KeyError, TypeError, ValueError):
        return ()


def _in_file(path: Path) -> Iterator[Member]:
    if not is_hdf5(path):
        return
    import h5py

    with h5py.File(path, "r", locking="best-effort") as file:
        yield from (Member(name, item.shape or (), item.dtype) for name, item in datasets_of(file)[0].items())


def _in_group(url: str) -> Iterator[Member]:
    group = read_node(url)
    if group is None or group.kind == "array":
        return
    ome = _ome(group)
    names = [] if "multiscales" in ome else list(itertools.islice(listed_images(group), _MOST))
    names += [f"labels/{name}" for name in _ome(read_node(kvstore.join(url, "labels"))).get("labels", [])]
    if not names and "multiscales" not in ome:
        names = arrays_below(group) or []
    for name in names:
        node = read_node(kvstore.join(url, name))
        if node is not None and node.kind == "group":
            finest = _ome(node)["multiscales"][0]["datasets"][0]["path"]
            node = read_node(kvstore.join(node.url, finest))
        if node is not None:
            found = array_shape(node)
            yield Member(name, found.shape, found.dtype)


def _ome(node: Node | None) -> dict[str, Any]:
    return {} if node is None else ome_of(node.attributes, node.version)
