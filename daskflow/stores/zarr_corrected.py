"""The metadata of zarr arrays and OME-Zarr images with another kind, voxel size or offset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from daskflow.errors import ParameterError
from daskflow.geometry import VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.axes import Axes
from daskflow.stores.ome_metadata import ome_of, parse_image, placed
from daskflow.stores.zarr_attributes import OWN_KEY, corrected_attributes, own
from daskflow.stores.zarr_nodes import Node, read_node

Files = dict[str, bytes]


def corrected_files(
    url: str, axes: Axes, before: Sequence[VolumeSpec], specs: Sequence[VolumeSpec], *, moved: bool
) -> Files:
    """Return the metadata files of the array or image at `url`, as `Store.corrected` does.

    Args:
        url: of the layer.
        axes: which stored axis is which.
        before: what its levels are.
        specs: what they shall be.
        moved: whether the offset is stated.

    Raises:
        ParameterError: a level of an image.
    """
    node = read_node(url)
    assert node is not None
    if node.kind == "array":
        image = read_node(url.rpartition("/")[0])
        if image is not None and parse_image(image.attributes, image.version, image.url) is not None:
            name = kvstore.redact(image.url)
            raise ParameterError(f"{kvstore.redact(url)} is a level of an image; name {name}")
        return _attributes(node, corrected_attributes(node.attributes, specs[0], axes))
    return _attributes(node, _image_attributes(node, axes, before, specs, moved=moved))


def _image_attributes(
    node: Node, axes: Axes, before: Sequence[VolumeSpec], specs: Sequence[VolumeSpec], *, moved: bool
) -> dict[str, Any]:
    image = parse_image(node.attributes, node.version, kvstore.redact(node.url))
    assert image is not None
    ome = dict(ome_of(node.attributes, node.version))
    if moved or any(new.voxel_size != old.voxel_size for new, old in zip(specs, before, strict=True)):
        first, *others = ome["multiscales"]
        starts = [spec.box.start for spec in specs] if moved else None
        ome["multiscales"] = [placed(first, image, axes, [s.spacing for s in specs], starts), *others]
    kind = specs[0].layer_type
    if kind == "segmentation":
        ome.setdefault("image-label", {"version": "0.4"} if node.version == 2 else {})
    else:
        ome.pop("image-label", None)
    kept = {OWN_KEY: {**own(node.attributes), **({} if kind is None else {"layer_type": kind})}}
    if node.version == 3:
        return {**node.attributes, "ome": ome, **kept}
    return {**ome, **kept}


def _attributes(node: Node, attributes: dict[str, Any]) -> Files:
    """Return the files that hold the attributes of a zarr node, with others in them."""
    if node.version == 3:
        whole = {**node.metadata, "attributes": attributes}
        return {kvstore.join(node.url, "zarr.json"): json.dumps(whole, indent=2).encode()}
    files: Files = {kvstore.join(node.url, ".zattrs"): json.dumps(attributes, indent=2).encode()}
    name = kvstore.join(node.url, ".zmetadata")
    consolidated = kvstore.read_bytes(name)
    if consolidated is not None:
        content = json.loads(consolidated)
        content["metadata"][".zattrs"] = attributes
        files[name] = json.dumps(content, indent=2).encode()
    return files
