"""The JSON of OME-Zarr 0.4 and 0.5 multiscales: scales and translations into voxel sizes and offsets, and back.

OME-Zarr places the centre of voxel ``i`` at ``scale * i + translation``; daskflow, like precomputed, counts corners.
With ``s`` the scale of a level, ``s0`` that of the finest, and the origin half a finest voxel before OME-Zarr's,

    finest   |  0  |  1  |  2  |  3  |      translation = s * offset + (s - s0) / 2
    level    |     0     |     1     |      offset = translation / s - (s - s0) / (2 * s)

Writers that take coarse levels by striding leave the half voxels out: where only ``translation / s`` is whole, that is
the offset.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskflow.errors import CorruptChunkError, ParameterError
from daskflow.geometry import VolumeSpec, Zyx
from daskflow.stores.axes import SPATIAL, Axes, name_of
from daskflow.stores.stated import is_whole, nm_per, whole_voxels

VERSIONS = ("0.5", "0.4")
Floats = tuple[float, ...]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Level:
    """One resolution of an image; numbers per stored axis, in the units of the axes.

    The scale is None where the metadata do not say, as those before version 0.4; the translation is where the centre of
    the first voxel lies.
    """

    path: str
    scale: Floats | None
    translation: Floats


@dataclass(frozen=True)
class Image:
    """What an OME-Zarr group says of its image.

    Attributes:
        version: of OME-Zarr, "0.1" to "0.5".
        names: of the stored axes; empty where the metadata do not say.
        units: of the stored axes, None where there is none.
        levels: finest first.
        outer: scale and translation that hold for every level, after its own.
    """

    version: str
    names: tuple[str, ...]
    units: tuple[str | None, ...]
    levels: tuple[Level, ...]
    outer: tuple[Floats, Floats]


def ome_of(attributes: dict[str, Any], version: int) -> dict[str, Any]:
    """Return the OME part of a group's attributes: `ome` in zarr v3, the attributes themselves in v2.

    An image that a writer described in the place of the other version is found there.
    """
    inside = attributes.get("ome", {})
    inside = inside if isinstance(inside, dict) else {}
    right, other = (inside, attributes) if version == 3 else (attributes, inside)
    elsewhere = other.get("multiscales")
    misplaced = isinstance(elsewhere, list) and elsewhere and isinstance(elsewhere[0], dict)
    return other if misplaced and "multiscales" not in right else right


def parse_image(attributes: dict[str, Any], version: int, url: str) -> Image | None:
    """Return the image that a group's attributes describe, None when they describe none."""
    ome = ome_of(attributes, version)
    listed = ome.get("multiscales")
    if not listed:
        return None
    try:
        image = listed[0]
        datasets = [_without_cosem(level) for level in image["datasets"]]
        listed_axes = image.get("axes") or (datasets[0].get("axes") if datasets else None) or ()
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in listed_axes]
        usual = "0.5" if version == 3 else "0.4" if axes else "0.1"
        stated = str(image.get("version") or ome.get("version") or usual)
        names = tuple(name_of(axis) for axis in axes)
        levels = tuple(
            Level(str(level["path"]), *_level_transform(level.get("coordinateTransformations"), len(names)))
            for level in datasets
        )
        outer = _transform(image.get("coordinateTransformations") or (), len(names))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CorruptChunkError(f"{url} has multiscales against the OME-Zarr specification: {error!r}") from error
    if not levels:
        raise CorruptChunkError(f"{url} has multiscales without any dataset")
    units = tuple(axis.get("unit") for axis in axes)
    return Image(stated, names, units, levels, outer)


def scaled_by(image: Image, shapes: Sequence[Sequence[int]]) -> Image:
    """Return an image in which levels without a scale are as much coarser as their arrays are smaller.

    Without a scale of the finest level units mean nothing. The axes of versions 0.1 and 0.2 are tczyx.
    """
    levels = []
    for level, shape in zip(image.levels, shapes, strict=True):
        factors = tuple(float(max(1, round(a / max(1, b)))) for a, b in zip(shapes[0], shape, strict=True))
        translation = level.translation or (0.0,) * len(factors)
        levels.append(dataclasses.replace(level, scale=level.scale or factors, translation=translation))
    ndim = len(shapes[0])
    names = image.names or (("t", "c", *SPATIAL) if image.version in ("0.1", "0.2") and ndim == 5 else ())
    units = image.units if image.names and image.levels[0].scale is not None else (None,) * ndim
    outer = image.outer if image.names else ((1.0,) * ndim, (0.0,) * ndim)
    return dataclasses.replace(image, names=names, units=units, levels=tuple(levels), outer=outer)


def _without_cosem(level: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of a level in which what COSEM states as `transform` stands as in OME-Zarr."""
    stated = level.get("transform")
    if not isinstance(stated, dict) or "coordinateTransformations" in level:
        return level
    steps = [{"type": "scale", "scale": stated["scale"]}, {"type": "translation", "translation": stated["translate"]}]
    axes = [{"name": name, "unit": unit} for name, unit in zip(stated["axes"], stated["units"], strict=True)]
    return {**level, "axes": axes, "coordinateTransformations": steps}


def _level_transform(steps: Any, ndim: int) -> tuple[Floats | None, Floats]:
    if steps and not ndim:
        raise ValueError("scales without axes")
    scale, translation = _transform(steps or (), ndim)
    return scale if any(step["type"] == "scale" for step in steps or ()) else None, translation


def _transform(steps: Sequence[dict[str, Any]], ndim: int) -> tuple[Floats, Floats]:
    """Return the scale and translation that a list of transformations comes to."""
    scale, translation = (1.0,) * ndim, (0.0,) * ndim
    for step in steps:
        kind = step["type"]
        if kind == "scale":
            factors = [float(value) for value in step["scale"]]
            if not all(0 < factor < float("inf") for factor in factors):
                raise ValueError(f"scale {factors} must be positive")
            scale = tuple(s * f for s, f in zip(scale, factors, strict=True))
            translation = tuple(t * f for t, f in zip(translation, factors, strict=True))
        elif kind == "translation":
            translation = tuple(t + float(by) for t, by in zip(translation, step["translation"], strict=True))
        elif kind != "identity":
            raise ValueError(f"transformation {kind!r} is none of scale, translation, identity")
    return scale, translation


def nm_per_unit(image: Image, axes: Axes) -> Triple | None:
    """Return the nm in the units of z, y and x, None when one of them has no unit of length."""
    z, y, x = (nm_per(image.units[i if i >= 0 else axes.spatial[1]]) for i in axes.spatial)
    return None if z is None or y is None or x is None else (z, y, x)


def scales_of(image: Image, axes: Axes) -> list[Triple]:
    """Return the distance between voxels of every level, zyx, in the units of the axes."""
    return [axes.zyx([s * o for s, o in zip(_scale(level), image.outer[0], strict=True)]) for level in image.levels]


def _scale(level: Level) -> Floats:
    assert level.scale is not None, "see scaled_by"
    return level.scale


def offsets_of(image: Image, axes: Axes, url: str) -> list[Zyx]:
    """Return the voxel offset of every level (zyx); what lies between voxels is rounded, and warned of in the log."""
    scales = scales_of(image, axes)
    offsets = []
    for level, translation, scale in zip(image.levels, _translations(image, axes), scales, strict=True):
        corners = [_corner(t, s, s0) for t, s, s0 in zip(translation, scale, scales[0], strict=True)]
        offsets.append(whole_voxels(corners, f"{url}/{level.path}"))
    return offsets


def _translations(image: Image, axes: Axes) -> list[Triple]:
    """Return where the centre of the first voxel of every level lies, zyx, in the units of the axes."""
    levels = (zip(level.translation, *image.outer, strict=True) for level in image.levels)
    return [axes.zyx([t * s + by for t, s, by in along], 0.0) for along in levels]


def _left_over(image: Image, axes: Axes) -> list[float]:
    """Return how far the origin of an image lies from the corner of a whole voxel, zyx, in the units of the axes."""
    first = zip(_translations(image, axes)[0], scales_of(image, axes)[0], strict=True)
    return [t - s * math.floor(t / s + 0.5) if not is_whole(t / s) else 0.0 for t, s in first]


def _corner(translation: float, scale: float, finest: float) -> float:
    bare = translation / scale
    centred = bare - (scale - finest) / (2 * scale)
    return bare if is_whole(bare) and not is_whole(centred) else centred


def translation_of(offset: float, scale: float, finest: float) -> float:
    """Return where the centre of the first voxel lies whose corner is `offset` voxels of this level from the origin."""
    return scale * offset + (scale - finest) / 2


def axes_json(spec: VolumeSpec) -> list[dict[str, str]]:
    """Return the axes of a new image: czyx or zyx, in nanometers."""
    channel = [] if spec.channels is None else [{"name": "c", "type": "channel"}]
    return [*channel, *({"name": name, "type": "space", "unit": "nanometer"} for name in SPATIAL)]


def level_json(path: str, spec: VolumeSpec, image: Image | None, axes: Axes) -> dict[str, Any]:
    """Return the entry of one more level: of `image`, in its units, or the first of a new one, in nanometers."""
    nm = (nm_per_unit(image, axes) if image else None) or (1.0, 1.0, 1.0)
    finest = scales_of(image, axes)[0] if image else spec.spacing
    outer = [axes.zyx(values) for values in image.outer] if image else [(1.0,) * 3, (0.0,) * 3]
    left = _left_over(image, axes) if image else (0.0,) * 3
    total = [size / unit for size, unit in zip(spec.spacing, nm, strict=True)]
    at = [translation_of(o, s, s0) + r for o, s, s0, r in zip(spec.box.start, total, finest, left, strict=True)]
    scale = [s / by for s, by in zip(total, outer[0], strict=True)]
    translation = [(t - plus) / by for t, by, plus in zip(at, *outer, strict=True)]
    lead = [] if spec.channels is None else [1.0]
    steps = _steps([*lead, *scale], [*(0.0 for _ in lead), *translation])
    return {"path": path, "coordinateTransformations": steps}


def placed(
    multiscale: dict[str, Any], image: Image, axes: Axes, sizes: Sequence[Triple], starts: Sequence[Zyx] | None
) -> dict[str, Any]:
    """Return the JSON of an image, in nanometers, with other places of its levels; all else in it is kept.

    `sizes` are nm, `starts` the first voxels of the levels; None leaves each level where it is, in its own voxels.
    """
    if any(level.scale is None for level in image.levels):
        raise ParameterError(f"OME-Zarr {image.version} has no voxel sizes; save the image as OME-Zarr 0.4 or 0.5")
    if -1 in axes.order:
        raise ParameterError("an image without z has no place for its voxel size; save it as a volume of one section")
    datasets = []
    for number, (level, dataset, size) in enumerate(zip(image.levels, multiscale["datasets"], sizes, strict=True)):
        if starts is None:
            before = zip(_translations(image, axes)[number], scales_of(image, axes)[number], size, strict=True)
            at = [t / old * new for t, old, new in before]
        else:
            at = [translation_of(o, s, s0) for o, s, s0 in zip(starts[number], size, sizes[0], strict=True)]
        steps = _steps(axes.with_zyx(_scale(level), size), axes.with_zyx(level.translation, at))
        datasets.append({**dataset, "coordinateTransformations": steps})
    units = [{**axis, "unit": "nanometer"} if i in axes.spatial else axis for i, axis in enumerate(multiscale["axes"])]
    changed = {**multiscale, "axes": units, "datasets": datasets}
    if multiscale.get("coordinateTransformations"):
        scale, translation = image.outer
        steps = _steps(axes.with_zyx(scale, (1.0,) * 3), axes.with_zyx(translation, (0.0,) * 3))
        changed["coordinateTransformations"] = steps
    return changed


def _steps(scale: list[float], translation: list[float]) -> list[dict[str, Any]]:
    return [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]


def omero_json(spec: VolumeSpec) -> dict[str, Any]:
    """Return names and display ranges of the channels, as viewers of OME-Zarr read them."""
    high = 1 if spec.dtype.kind in "bf" else np.iinfo(spec.dtype).max
    window = {"min": 0, "max": int(high), "start": 0, "end": int(high)}
    return {
        "channels": [
            {"label": name, "color": "FFFFFF", "active": True, "window": window} for name in spec.channel_names
        ],
        "rdefs": {"model": "color" if len(spec.channel_names) > 1 else "greyscale"},
    }
