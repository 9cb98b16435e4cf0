"""A synthetic volume that looks like electron microscopy of neural tissue, with its exact segmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Labels = NDArray[np.uint32]
    Zyx = tuple[int, int, int]

CYTOPLASM, MEMBRANE, MITOCHONDRION = 168.0, 62.0, 102.0
"""Mean grey values before blur and noise."""
MEMBRANE_LEVEL = 0.58


def phantom(shape: Zyx = (64, 256, 256), *, seed: int = 0) -> tuple[NDArray[np.uint8], Labels]:
    """Make a synthetic image of densely packed neurites, and the labels of their interiors.

    Nothing here is measured: curved, branching tubes of various calibre grow at random until they touch, dark
    membranes a few voxels thick are drawn where they meet, some tubes hold mitochondria and vesicles, and blur, noise
    and uneven staining are added. It serves to show and test a segmentation whose truth is known to the voxel.

    Args:
        shape: voxels per axis (zyx), each at least 16.
        seed: random seed; the same seed and shape give the same bytes.

    Returns:
        The image (zyx, uint8), and the labels (zyx, uint32): 0 on membranes, and from 1 on the 6-connected components
        of everything else.

    Raises:
        ValueError: when an axis is shorter than 16 voxels.
    """
    if len(shape) != 3 or min(shape) < 16:
        raise ValueError(f"a phantom needs three axes of at least 16 voxels, not {shape=}")
    rng = np.random.default_rng(seed)
    z, y, x = shape
    coarse: Zyx = (z // 2 + 2, y // 2 + 2, x // 2 + 2)
    territories = grow_territories(draw_tubes(coarse, rng))
    membrane = refine(draw_membranes(territories), shape)
    close_gaps(membrane, territories)
    labels = label_interiors(membrane < MEMBRANE_LEVEL)
    return draw_image(labels, membrane, rng), labels


def walk(start: Floats, direction: Floats, steps: int, rng: np.random.Generator) -> Floats:
    """Return the points (steps, zyx) of a smooth random curve of unit steps."""
    turns = rng.normal(0, 0.09, (steps, 3)).astype(np.float32)
    drift = np.cumsum(np.cumsum(turns, axis=0) * 0.25, axis=0) + direction
    drift /= np.linalg.norm(drift, axis=1, keepdims=True)
    path: Floats = start + np.cumsum(drift, axis=0)
    return path


def draw_tubes(shape: Zyx, rng: np.random.Generator) -> Labels:
    """Draw the cores of the neurites: one label per neurite, 0 elsewhere; later ones end at earlier ones."""
    size = np.array(shape, dtype=np.float32)
    seeds = np.zeros(shape, dtype=np.uint32)
    count = max(4, round(float(size.prod()) / 5500))
    length = round(0.7 * float(size.max()))
    bundle = rng.normal(0, 1, 3) * (0.7, 1, 1)
    for label in range(1, count + 1):
        radius = float(np.exp(rng.normal(0.55, 0.6)))
        start = (rng.random(3) * size).astype(np.float32)
        direction = (bundle * rng.normal(0, 1) + rng.normal(0, 0.6, 3)).astype(np.float32)
        direction /= np.linalg.norm(direction)
        paths = [walk(start, direction, length, rng), walk(start, -direction, length, rng)]
        if rng.random() < 0.4:
            branch = paths[0][rng.integers(length // 2)]
            paths.append(walk(branch, rng.normal(0, 1, 3).astype(np.float32), length // 2, rng))
        swell = radius * (1 + 0.35 * np.sin(np.arange(length) / rng.uniform(4, 9)))
        for path in paths:
            paint(seeds, path, swell[: len(path)], label)
    return seeds


def paint(seeds: Labels, path: Floats, radii: NDArray[np.float64], label: int) -> None:
    """Set `label` on the empty voxels within `radii` voxels of a path (points, zyx), in place."""
    reach = int(np.ceil(radii.max()))
    axis = np.arange(-reach, reach + 1)
    ball = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    distance = np.linalg.norm(ball, axis=1)
    inside = distance[None] <= np.maximum(radii, 0.5)[:, None]
    point, offset = np.nonzero(inside)
    where = np.round(path[point] + ball[offset]).astype(np.int64)
    where = where[((where >= 0) & (where < seeds.shape)).all(axis=1)]
    where = where[seeds[tuple(where.T)] == 0]
    seeds[tuple(where.T)] = label


def grow_territories(seeds: Labels) -> Labels:
    """Give every voxel the label of the nearest seed voxel: the tubes grow until they touch."""
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    grown: Labels = seeds[tuple(nearest)]
    return grown


def draw_membranes(territories: Labels) -> Floats:
    """Return 1 at the faces between territories, smoothed: above MEMBRANE_LEVEL is membrane."""
    from scipy import ndimage

    edge = np.zeros(territories.shape, dtype=np.float32)
    for axis in range(3):
        moved = np.moveaxis(territories, axis, 0)
        differs = moved[1:] != moved[:-1]
        view = np.moveaxis(edge, axis, 0)
        view[1:][differs] = 1
        view[:-1][differs] = 1
    smooth: Floats = ndimage.gaussian_filter(edge, 0.6)
    return smooth


def refine(coarse: Floats, shape: Zyx) -> Floats:
    """Return `coarse` at twice the resolution, linearly interpolated, cut to `shape` (zyx)."""
    fine = coarse
    for axis, length in enumerate(shape):
        moved = np.moveaxis(fine, axis, 0)
        between = np.empty((2 * len(moved) - 1, *moved.shape[1:]), dtype=np.float32)
        between[::2] = moved
        between[1::2] = (moved[1:] + moved[:-1]) / 2
        fine = np.moveaxis(between[1 : length + 1], 0, axis)
    return np.ascontiguousarray(fine)


def close_gaps(membrane: Floats, territories: Labels) -> None:
    """Set 1 wherever fine voxels of two territories of half the resolution would touch, in place."""
    fine = territories[np.ix_(*[(np.arange(length) + 1) // 2 for length in membrane.shape])]
    for axis in range(3):
        moved = np.moveaxis(fine, axis, 0)
        np.moveaxis(membrane, axis, 0)[:-1][moved[1:] != moved[:-1]] = 1


def label_interiors(interior: NDArray[np.bool_]) -> Labels:
    """Return the 6-connected components of the interior as labels from 1."""
    import cc3d

    return cc3d.connected_components(interior, connectivity=6).astype(np.uint32, copy=False)


def draw_image(labels: Labels, membrane: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint cytoplasm, organelles and membranes, then blur and add noise; returns uint8 zyx."""
    from scipy import ndimage

    tones = rng.normal(CYTOPLASM, 9, int(labels.max()) + 1).astype(np.float32)
    image = tones[labels]
    texture = rng.standard_normal(tuple(n // 2 + 2 for n in labels.shape), dtype=np.float32)
    image += 7 * refine(texture, (labels.shape[0], labels.shape[1], labels.shape[2]))
    draw_mitochondria(image, labels, rng)
    image += (MEMBRANE - image) * np.clip(membrane / MEMBRANE_LEVEL * 1.3 - 0.5, 0, 1)
    image = ndimage.gaussian_filter(image, (0.5, 0.8, 0.8), truncate=3)
    image += rng.standard_normal(image.shape, dtype=np.float32) * 9
    image += rng.normal(0, 2.5, (image.shape[0], 1, 1)).astype(np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def draw_mitochondria(image: Floats, labels: Labels, rng: np.random.Generator) -> None:
    """Draw dark ellipsoids with darker rims and a few vesicles into the wider tubes, in place."""
    count = round(image.size / 12000)
    for kind in range(2 * count):
        small = kind >= count
        centre = (rng.random(3) * labels.shape).astype(int)
        axes = rng.uniform(2, 3.5, 3) if small else rng.uniform(5, 8, 3) * rng.choice([1, 1, 1.8], 3)
        reach = np.ceil(axes).astype(int)
        low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, labels.shape)
        window = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        steps = [
            (np.arange(a, b, dtype=np.float32) - c) / s for a, b, c, s in zip(low, high, centre, axes, strict=True)
        ]
        radius = np.sqrt(steps[0][:, None, None] ** 2 + steps[1][:, None] ** 2 + steps[2] ** 2)
        owner = labels[tuple(centre)]
        inside = (radius < 1) & (labels[window] == owner)
        if owner == 0 or inside.sum() < 0.85 * (radius < 1).sum():
            continue
        rim = inside & (radius > (0.5 if small else 0.8))
        image[window][inside] = CYTOPLASM + 10 if small else MITOCHONDRION
        image[window][rim] = MITOCHONDRION - 25
