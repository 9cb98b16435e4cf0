"""A precomputed layer's ``info`` file: what daskflow reads from it and writes to it, and the forms of its values.

The JSON is xyz and this module is where it turns into zyx. What precomputed has no word for is kept under the key
``daskflow``: ``layer_type``, ``channel_names``, ``channel_axis``; for chunk files with CloudVolume's names
``compression`` by scale key; and in buckets ``stamps`` by scale key, what `info_state` was before a mip was added.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import numpy as np

from daskflow.errors import ParameterError, StoreError, StoreNotFoundError, UnknownFormatError
from daskflow.geometry import BoundingBox, LayerType, VolumeSpec, Zyx, as_zyx
from daskflow.stores import kvstore, states
from daskflow.stores.base import DEFAULT_CHUNK, Layout
from daskflow.stores.compressed import SUFFIXES
from daskflow.stores.encodings import ENCODINGS, WRITTEN, Encoding
from daskflow.stores.refusals import (
    OBJECT,
    TEXT,
    check_forms,
    is_number,
    list_of,
    one_of,
    parse_object,
    refuse_cast,
    refuse_mismatch,
    refuse_unknown_size,
    values_of,
    whole,
)
from daskflow.stores.sharding import check_sharding, shard_shape, sharding_spec

_INFO = {
    "scales": list_of(OBJECT),
    "daskflow": OBJECT,
    "type": TEXT,
    "data_type": TEXT,
    "num_channels": whole(1, 2**31),
}
_EXTRA = {
    "channel_names": list_of(TEXT),
    "compression": values_of(one_of(*SUFFIXES)),
    "background": values_of((is_number, "a number")),
    "stamps": values_of((lambda value: value is None or isinstance(value, str), "text")),
}
_SCALE = {
    "key": TEXT,
    "encoding": TEXT,
    "rois": list_of(list_of(whole(-(2**48), 2**48), 6)),
    "compressed_segmentation_block_size": list_of(whole(1, 2**16), 3),
}
DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")
FILE_COMPRESSIONS = ("gzip", "br")
KINDS = ("mesh", "skeletons")  # of objects, whose directories the info names
Info = dict[str, Any]
_LARGEST_SIZE = 1e100  # nm of a voxel
_FAR = 2**48  # voxels, beyond which sizes are damaged: products of three and of bytes are to be numbers still


def parse_info(data: bytes, name: str) -> dict[str, Any]:
    """Return a parsed ``info``."""
    info = parse_object(data, name)
    if "scales" not in info and isinstance(info.get("@type"), str):
        raise UnknownFormatError(
            f"{name} describes {info['@type']}, not a volume; Neuroglancer opens annotations as precomputed://URL, and"
            " meshes and skeletons with the segmentation that they are of"
        )
    check_forms(info, _INFO, name, required=("scales",))
    check_forms(info.get("daskflow", {}), _EXTRA, f"daskflow in {name}")
    for mip, scale in enumerate(info["scales"]):
        segments = str(scale.get("encoding")).lower() == "compressed_segmentation"
        options = ("compressed_segmentation_block_size",) if segments else ()
        check_forms(scale, _SCALE, f"mip {mip} in {name}", required=("key", "encoding", *options))
    return info


def load_info(url: str) -> Info:
    """Return the parsed ``info`` of a layer."""
    data = kvstore.read_bytes(info_url(url))
    if data is None:
        raise StoreNotFoundError(f"no precomputed layer at {kvstore.redact(url)}: it has no info file")
    return parse_info(data, kvstore.redact(info_url(url)))


def save_info(url: str, info: Info) -> None:
    """Write the ``info`` of a layer, atomically."""
    kvstore.write_bytes(info_url(url), json.dumps(info, indent=2).encode())


@contextlib.contextmanager
def _editing(url: str) -> Iterator[None]:
    """Let no other process or thread on a local disk edit the ``info`` of a layer meanwhile, so that no edit is lost.

    In buckets, and where the file system knows no locks, the last to write wins.
    """
    path = kvstore.local_path(url)
    if path is None or not path.is_dir() or os.name != "posix":
        yield
        return
    import fcntl

    directory = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def edit_info(url: str, edit: Callable[[Info], Info]) -> None:
    """Change what the ``info`` of a layer says of other things than voxels: jobs that read these notice nothing.

    `edit` leaves the info that it gets as it is, and keeps what it does not know.
    """
    with _editing(url):
        info = load_info(url)
        changed = edit(info)
        if changed == info:
            return
        save_info(url, changed if kvstore.local_path(url) is not None else _with_states(changed, info, url))


def info_url(url: str) -> str:
    """Return the URL of a layer's ``info``."""
    return kvstore.join(url, "info")


def info_state(url: str, key: str) -> str | None:
    """Return what changes when a layer's ``info`` is rewritten, but not when a mip is added beside the scale `key`."""
    extra = load_info(url).get("daskflow", {})
    kept: str | None = extra.get("stamps", {}).get(key)
    return kept or states.object_state(info_url(url))


def _with_states(info: Info, before: Info, url: str) -> Info:
    """Return the info with what `info_state` shall go on to say of the scales that were there before."""
    left = {scale["key"] for scale in info["scales"]}
    kept = {scale["key"]: info_state(url, scale["key"]) for scale in before["scales"] if scale["key"] in left}
    return {**info, "daskflow": {**info.get("daskflow", {}), "stamps": kept}}


def specs_of(info: Info, url: str) -> tuple[VolumeSpec, ...]:
    """Return the spec of every scale, as listed (finest first)."""
    try:
        finest, *others = (_spec_of(info, scale) for scale in info["scales"])
        return (finest, *(other.beginning_at(finest.corner) for other in others))
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise StoreError(f"{kvstore.redact(url)}/info does not describe a precomputed volume: {error!r}") from error


def _spec_of(info: Info, scale: Info) -> VolumeSpec:
    extra = info.get("daskflow", {})
    channels = int(info["num_channels"])
    size, chunk = _zyx(scale["size"]), _zyx(scale["chunk_sizes"][0])
    x, y, z = scale["resolution"]
    if max(x, y, z) >= _LARGEST_SIZE or bool in map(type, (x, y, z)):
        raise ValueError(f"resolution {[x, y, z]} is not one of numbers below {_LARGEST_SIZE:g}")
    sharding = scale.get("sharding") and check_sharding(scale["sharding"])
    return VolumeSpec(
        box=BoundingBox.from_size(_zyx(scale.get("voxel_offset", (0, 0, 0))), size),
        dtype=np.dtype(info["data_type"]),
        channels=channels if channels > 1 or extra.get("channel_axis") else None,
        voxel_size=(z, y, x),
        chunk=chunk,
        shard=shard_shape(size, chunk, sharding) if sharding else None,
        layer_type=extra.get("layer_type") or next((t for t in get_args(LayerType) if t == info.get("type")), None),
        channel_names=tuple(extra.get("channel_names", ())),
    )


def _zyx(xyz: Any) -> Zyx:
    voxels = [int(v) for v in xyz]
    if voxels != list(xyz) or bool in map(type, xyz) or max(map(abs, voxels)) >= _FAR:
        raise ValueError(f"{xyz} are not whole numbers below {_FAR:,}")
    return as_zyx(reversed(voxels))


def driver_metadata(info: Info, mip: int, url: str) -> dict[str, Any]:
    """Return one scale as tensorstore's neuroglancer_precomputed driver takes it, so that it need not read the info.

    An encoding that the driver does not know is there all the same, with the keys of the scale that are its options.
    """
    scale = info["scales"][mip]
    encoding = scale["encoding"].lower()
    if encoding not in ENCODINGS:
        raise UnknownFormatError(
            f"{kvstore.redact(url)} mip {mip} is encoded as {encoding}; daskflow decodes {', '.join(ENCODINGS)}"
        )
    kvstore.join(url, scale["key"])
    kept = {
        "key": scale["key"],
        "size": scale["size"],
        "resolution": scale["resolution"],
        "voxel_offset": scale.get("voxel_offset", [0, 0, 0]),
        "chunk_size": scale["chunk_sizes"][0],
        "encoding": encoding,
        "sharding": scale.get("sharding") and check_sharding(scale["sharding"]),
    }
    if encoding == "compressed_segmentation":
        kept["compressed_segmentation_block_size"] = scale["compressed_segmentation_block_size"]
    kept.update({key: scale[key] for key in ENCODINGS[encoding].keys if scale.get(key) is not None})
    common = {"type": info.get("type", "image"), "data_type": info["data_type"], "num_channels": info["num_channels"]}
    return {"multiscale_metadata": common, "scale_metadata": kept}


def _way_to_forget(url: str, mip: int, count: int) -> str:
    levels = ",".join(map(str, range(mip, count)))
    return f"remove it (daskflow remove {kvstore.redact(url)} --mip {levels} --forget) or write elsewhere"


def add_scale(info: Info | None, spec: VolumeSpec, mip: int, layout: Layout, url: str) -> Info:
    """Return the info with `spec` as its level `mip`; everything else in it is kept as it is.

    What `layout` leaves open is chosen for a new level, and taken as it is for a level that exists.
    """
    refuse_cast(spec.dtype, DTYPES, "a precomputed layer")
    location = f"{kvstore.redact(url)}/info"
    if info is None:
        info = _shared(spec)
    else:
        shared = _shared(spec)
        refuse_mismatch(location, info, {name: shared[name] for name in ("type", "data_type", "num_channels")})
        if info.get("daskflow", {}).keys() - {"stamps", "background"}:
            wanted = {name: shared.get("daskflow", {}).get(name) for name in ("layer_type", "channel_axis")}
            refuse_mismatch(f"{location} daskflow", info["daskflow"], wanted)
    scales = info["scales"]
    if mip > len(scales):
        raise ParameterError(f"{location} has {len(scales)} mips; create mip {len(scales)} before mip {mip}")
    if mip < len(scales):
        advice = {"advice": _way_to_forget(url, mip, len(scales))} if mip else {}
        refuse_unknown_size(f"mip {mip} of {kvstore.redact(url)}", _spec_of(info, scales[mip]), spec)
        refuse_mismatch(f"{location} mip {mip}", _facts(scales[mip]), _stated(spec, layout, scales[mip]), **advice)
        return info
    scale = _new_scale(spec, layout, url)
    if any(scale["resolution"] == other["resolution"] for other in scales):
        raise ParameterError(
            f"{location} has a mip of voxel size {spec.spacing} nm zyx already; mip {mip} needs another"
        )
    if any(scale["key"] == other["key"] for other in scales):  # of a level whose voxel size was corrected
        scale["key"] += f"_mip{mip}"
    changed = {**info, "scales": [*scales, scale]}
    if layout.compression in FILE_COMPRESSIONS and "sharding" not in scale:
        extra = info.get("daskflow", {})
        names = {**extra.get("compression", {}), scale["key"]: layout.compression}
        changed["daskflow"] = {**extra, "compression": names}
    noted = changed.get("daskflow", {}).get("background", {})
    if scale["key"] in noted:  # of a level that was removed
        left = {key: value for key, value in noted.items() if key != scale["key"]}
        changed["daskflow"] = {**changed["daskflow"], "background": left}
    return changed


def named_objects(layer: str) -> dict[str, str]:
    """Return the directories that a layer's info names, of mesh and skeletons."""
    info = load_info(layer)
    return {kind: info[kind] for kind in KINDS if info.get(kind)}


def corrected_info(info: Info, specs: Sequence[VolumeSpec], url: str) -> Info:
    """Return the info with the kind, voxel sizes and offsets of `specs`; scales keep their keys, where chunks are."""
    scales = []
    for mip, (scale, spec) in enumerate(zip(info["scales"], specs, strict=True)):
        placed = _geometry(spec)
        if placed["voxel_offset"] != scale.get("voxel_offset", [0, 0, 0]) and not scale.get("sharding"):
            raise ParameterError(
                f"chunk files of {kvstore.redact(url)} have the offset of the layer in their names; write a moved copy:"
                " open it, translate --offset, and save it"
            )
        encoding = _encoding(scale["encoding"].lower())
        layout = encoding.layout(scale)
        if spec.layer_type == "segmentation" and encoding.lossy(layout.quality):
            raise ParameterError(
                f"mip {mip} of {kvstore.redact(url)} is encoded as {encoding.name} of quality {layout.quality}, which"
                " changes values and cannot bear labels; segmentations are raw, compressed_segmentation or crackle"
            )
        scales.append({**scale, **placed})
    shared = _shared(specs[0])
    extra = {k: v for k, v in info.get("daskflow", {}).items() if k != "layer_type"}
    extra |= {k: v for k, v in shared.get("daskflow", {}).items() if k == "layer_type"}
    changed = {**info, "type": shared["type"], "scales": scales}
    return {**changed, "daskflow": extra} if extra or "daskflow" in info else changed


def without(info: Info, mips: Sequence[int], keys: Sequence[str]) -> Info:
    """Return the info without some levels and keys."""
    scales = [scale for mip, scale in enumerate(info["scales"]) if mip not in mips]
    return {k: v for k, v in info.items() if k not in keys} | {"scales": scales}


def check_layout(spec: VolumeSpec, layout: Layout) -> None:
    """Raise when precomputed chunks cannot hold a volume in the encoding that a layout states."""
    refuse_cast(spec.dtype, DTYPES, "a precomputed layer")
    if layout.encoding is not None:
        encoding = _encoding(layout.encoding)
        encoding.check(spec, layout.quality)
        encoding.asked(layout)


def _shared(spec: VolumeSpec) -> Info:
    """Return a new info without scales: what all levels share."""
    extra: dict[str, Any] = {}
    if spec.layer_type in ("affinity_map", "probability_map"):
        extra["layer_type"] = spec.layer_type
    if spec.channel_names:
        extra["channel_names"] = list(spec.channel_names)
    if spec.channels == 1:
        extra["channel_axis"] = True
    info: Info = {
        "@type": "neuroglancer_multiscale_volume",
        "type": "segmentation" if spec.layer_type == "segmentation" else "image",
        "data_type": spec.dtype.name,
        "num_channels": spec.channels or 1,
        "scales": [],
    }
    return {**info, "daskflow": extra} if extra else info


def _geometry(spec: VolumeSpec) -> Info:
    return {
        "size": list(reversed(spec.box.shape)),
        "resolution": [int(v) if v.is_integer() else v for v in reversed(spec.spacing)],
        "voxel_offset": list(reversed(spec.box.start)),
    }


def _new_scale(spec: VolumeSpec, layout: Layout, url: str) -> Info:
    chunk = layout.chunk or spec.chunk or DEFAULT_CHUNK
    labels = spec.layer_type == "segmentation" and spec.dtype.name in ENCODINGS["compressed_segmentation"].dtypes
    encoding = _encoding(layout.encoding or ("compressed_segmentation" if labels else "raw"))
    encoding.check(spec, layout.quality)
    scale = _geometry(spec)
    scale = {
        "key": "_".join(kvstore.plain_number(v) for v in scale["resolution"]),
        **scale,
        "chunk_sizes": [list(reversed(chunk))],
        "encoding": encoding.name,
        **encoding.defaults,
        **encoding.asked(layout),
    }
    if encoding.name == "compressed_segmentation":
        scale["compressed_segmentation_block_size"] = [8, 8, 8]
    usual = "gzip" if layout.shard is not None and encoding.packed else "none"
    compression = layout.compression or usual
    if layout.shard is not None:
        if compression not in ("none", "gzip"):
            raise ParameterError(f"compression {compression!r} in precomputed shards; use gzip or none")
        data_encoding = "gzip" if compression == "gzip" else "raw"
        scale["sharding"] = sharding_spec(spec.box.shape, chunk, layout.shard, data_encoding=data_encoding)
    elif compression not in ("none", *FILE_COMPRESSIONS):
        raise ParameterError(f"compression {compression!r} of precomputed chunks; use gzip, br or none")
    elif compression != "none" and kvstore.local_path(url) is None:
        raise ParameterError(
            f"compression {compression!r} of unsharded chunks at {kvstore.redact(url)} is for local files; use shards"
        )
    return scale


def _encoding(name: str) -> Encoding:
    if name not in ENCODINGS:
        raise ParameterError(f"encoding {name!r} of precomputed chunks is none of {', '.join(WRITTEN)}")
    return ENCODINGS[name]


def _facts(scale: Info) -> Info:
    """Return what can disagree about an existing scale, in the words of `_stated`."""
    sharding = scale.get("sharding")
    size, chunk = _zyx(scale["size"]), _zyx(scale["chunk_sizes"][0])
    return {
        "size": scale["size"],
        "resolution": scale["resolution"],
        "voxel_offset": scale.get("voxel_offset", [0, 0, 0]),
        "chunk_sizes": scale["chunk_sizes"],
        "encoding": scale["encoding"].lower(),
        **{key: scale.get(key) for encoding in ENCODINGS.values() for key in encoding.keys},
        "shard (zyx)": shard_shape(size, chunk, sharding) if sharding else None,
    }


def _stated(spec: VolumeSpec, layout: Layout, scale: Info) -> Info:
    """Return what a caller asks of a scale that exists, without what is left open."""
    wanted = _geometry(spec)
    if layout.chunk is not None:
        wanted["chunk_sizes"] = [list(reversed(layout.chunk))]
    if layout.encoding is not None:
        wanted["encoding"] = layout.encoding
    if layout.quality is not None or layout.effort is not None:
        wanted.update(_encoding(layout.encoding or scale["encoding"].lower()).asked(layout))
    if layout.shard is not None and layout.chunk is not None:
        sharding = sharding_spec(spec.box.shape, layout.chunk, layout.shard)
        wanted["shard (zyx)"] = shard_shape(spec.box.shape, layout.chunk, sharding)
    return wanted


def write_rois(url: str, boxes: Sequence[BoundingBox]) -> None:
    """Replace the regions of interest of a layer, in voxels of its finest level; all else in its info stays."""
    kvstore.refuse_http(url)
    rois = [[*reversed(box.start), *(stop - 1 for stop in reversed(box.stop))] for box in boxes]

    def stated(info: Info) -> Info:
        first, *others = info["scales"]
        return {**info, "scales": [{**first, "rois": rois}, *others]}

    edit_info(url, stated)


def read_rois(url: str) -> list[BoundingBox]:
    """Return the regions of interest of a layer, in voxels of its finest level; none where it states none."""
    stated = [roi for scale in load_info(url)["scales"][:1] for roi in scale.get("rois", [])]
    return [BoundingBox((z0, y0, x0), (z1 + 1, y1 + 1, x1 + 1)) for x0, y0, z0, x1, y1, z1 in stated]
