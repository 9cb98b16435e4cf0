"""Where a volume goes in the level of a layer that is larger than it."""

from __future__ import annotations

from collections.abc import Sequence

from daskflow.errors import AlignmentError, BoundsError, ParameterError, StoreNotFoundError
from daskflow.geometry import BoundingBox, VolumeSpec, Zyx
from daskflow.jobs.evaluate import sources
from daskflow.stores.opening import format_named, open_store
from daskflow.volume import Volume


def level_box(
    volume: Volume, bounds: Sequence[int] | str | None, location: str, format_name: str, mip: int
) -> BoundingBox:
    """Return the box of the level that a volume is written into.

    Args:
        volume: what is written.
        bounds: start and stop (zyx), "source", or None for those of a level that is there and holds the volume, or
            else the volume's.
        location: URL of the layer.
        format_name: of the layer.
        mip: the level.

    Raises:
        BoundsError: the volume reaches outside.
        ParameterError: not six numbers, or nothing, or more than one thing, that "source" may mean.
    """
    if bounds is None:
        try:
            there = open_store(location, mip=mip, format=format_name).spec.box
        except StoreNotFoundError:
            return volume.box
        return there if volume.box in there else volume.box
    if isinstance(bounds, str):
        boxes = {node.store.spec.box for node in sources(volume) if node.store.spec.ratio(volume.spec) == (1, 1, 1)}
        if bounds != "source" or len(boxes) != 1:
            found = ", ".join(map(str, sorted(boxes))) or "none"
            raise ParameterError(
                f"bounds {bounds!r} is not clear: sources with the volume's voxel size have the boxes {found}"
                " (z0-z1_y0-y1_x0-x1); give start and stop as six numbers"
            )
        (box,) = boxes
    elif len(bounds) == 6:
        box = BoundingBox((bounds[0], bounds[1], bounds[2]), (bounds[3], bounds[4], bounds[5]))
    else:
        raise ParameterError(f"bounds {tuple(bounds)} are {len(bounds)} numbers; give start and stop, z y x each")
    if volume.box not in box:
        raise BoundsError(f"the volume {volume.box} reaches outside the bounds {box} (z0-z1_y0-y1_x0-x1)")
    return box


def finer_levels(
    volume: Volume, level: VolumeSpec, factor: Zyx, location: str, format_name: str, mip: int
) -> tuple[VolumeSpec, ...]:
    """Return the levels that a new layer gets, without chunks, so that the first one written has its number.

    They are as in the layer that the volume is read from at that mip, else by `factor` finer from level to level. A
    layer that is there gets none.
    """
    if not mip or not format_named(format_name).store.levelled:
        return ()
    try:
        open_store(location, format=format_name)
    except StoreNotFoundError:
        pass
    else:
        return ()
    alike = [
        node.store for node in sources(volume) if node.store.mip == mip and node.store.spec.spacing == level.spacing
    ]
    found = []
    for number in range(mip):
        by = [float(f ** (mip - number)) for f in factor]
        if alike:
            by = list(level.ratio(alike[0].mips[number]))
        whole = [max(1, round(b)) for b in by]
        box = level.box.refine(whole)
        if alike and level.box in alike[0].spec.box:
            box = box.clip(alike[0].mips[number].box)
        size = {
            "coarseness" if level.voxel_size is None else "voxel_size": [
                v / b for v, b in zip(level.spacing, by, strict=True)
            ]
        }
        found.append(level.replace(box=box, chunk=None, shard=None, chunk_origin=None, **size))
    return tuple(found)


def refuse_shared(box: BoundingBox, unit: Zyx, level: BoundingBox, advice: str) -> None:
    """Raise unless a volume is whole units of the level that it goes into.

    Raises:
        AlignmentError: it is not; the message names the nearest boxes that are.
    """
    nearest = box.align(unit, level.start).clip(level)
    if nearest == box:
        return
    start = [o - (o - a) // u * u for a, o, u in zip(box.start, level.start, unit, strict=True)]
    stop = [
        b if b == end else o + (b - o) // u * u
        for b, end, o, u in zip(box.stop, level.stop, level.start, unit, strict=True)
    ]
    fits = all(a < b for a, b in zip(start, stop, strict=True))
    inner = f" or, inside, {BoundingBox((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))}" if fits else ""
    raise AlignmentError(
        f"box {box} (z0-z1_y0-y1_x0-x1) fills chunks or shards of {unit} voxels (zyx) of {level} only in part; nearest"
        f" is {nearest}{inner}; {advice}"
    )
