"""Segment real EM: FIB-25 image, 3D U-Net, watershed, agglomeration, scores, meshes and skeletons of large neurons.

    python recipes/segment_fib25.py --data DIR --output out/fib25

DIR holds fib25_image.tif and fib25_labels.h5 (FIB-SEM of Drosophila medulla, 10 nm voxels). The network in
affinity_unet.safetensors has seen z < 125 of that volume. The threshold of agglomeration is chosen there, too, as that
with the least variation of information; the scores are those of the other half, beside those of the over-segmentation
that comes with the data. Objects below 500 voxels are mostly bits of membrane: their voxels go to the neighbours that
the affinities lead to.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import daskflow
from daskflow import Volume
from daskflow.view import side_by_side

HERE = Path(__file__).parent
SEEN, HELD_OUT = (0, 125), (125, 250)
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)
LEVELS = tuple(np.linspace(1, 0, 12))
SCORES = ("vi_split", "vi_merge", "variation_of_information", "adapted_rand_error", "rand_index")


@dataclass(frozen=True)
class Setting:
    """How one kind of image is segmented; lengths in voxels, zyx.

    Attributes:
        net: the network's files here, without their suffixes.
        patch: what it sees at once.
        overlap: of neighbouring patches.
        chunk: of what is stored.
        block: of work.
        dust: objects of at most so many voxels go to their neighbours.
        levels: of the weakest affinity, one per step, down to which neighbours take the voxels of these and others
            without a label.
        axes: those along which objects go on, of zyx.
        turned: take the mean over the eight turns and mirror images of each section.
    """

    net: str
    patch: tuple[int, int, int]
    overlap: tuple[int, int, int]
    chunk: tuple[int, int, int]
    block: tuple[int, int, int]
    dust: int
    levels: tuple[float, ...] = LEVELS
    axes: tuple[int, ...] = (0, 1, 2)
    turned: bool = False


FIB25 = Setting("affinity_unet", (48, 96, 96), (16, 32, 32), (25, 50, 50), (75, 150, 150), dust=500)


def weakest(affinities: np.ndarray[Any, Any], axes: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return the lowest of the affinities (czyx, channels in the order x, y, z) of each voxel along some axes, zyx."""
    return affinities[[2 - axis for axis in axes]].min(axis=0)


def grow(
    labels: np.ndarray[Any, Any], interior: np.ndarray[Any, Any], levels: tuple[float, ...], axes: tuple[int, ...]
) -> np.ndarray[Any, Any]:
    """Return labels (zyx) grown into the background, where the affinities are strong first.

    In every step the voxels whose weakest affinity reaches the level take the greatest label among their two neighbours
    per axis, so a voxel's label depends on the voxels within as many as there are levels and on nothing else.
    """
    for level in levels:
        padded = np.pad(labels, 1)
        around = [np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1] for axis in axes for shift in (-1, 1)]
        labels = np.where((labels == 0) & (interior >= level), np.max(around, axis=0), labels)
    return labels


def arguments(about: str | None, name: str) -> argparse.ArgumentParser:
    """Return what a command line may have."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data", help="folder of the data")
    parser.add_argument("--output", type=Path, default=Path("out") / name, help="folder for the layers")
    parser.add_argument("--cluster", default="local", help="where to run, as in daskflow --cluster")
    parser.add_argument("--workers", type=int, help="worker processes")
    return parser


def main() -> None:
    """Run the recipe."""
    parser = arguments(__doc__, "fib25")
    parser.add_argument("--threshold", type=float, help="mean affinity that merges; by default chosen on z < 125")
    options = parser.parse_args()
    with daskflow.connect(options.cluster, workers=options.workers) as client:
        threshold = options.threshold
        if threshold is None:
            image, truth, _ = opened(options.data, SEEN)
            threshold = chosen(image, truth, options.output / "seen", FIB25, client)
        home = options.output / "held-out"
        image, truth, given = opened(options.data, HELD_OUT)
        neurons = saved(segment(image, home, (threshold,), FIB25, client)[threshold], home / "neurons", FIB25, client)
        found = {"daskflow": scored(neurons, truth, client), "over-segmentation": scored(given, truth, client)}
        report(f"Sections {HELD_OUT[0]} to {HELD_OUT[1]}, threshold {threshold:g}", found)
        objects(neurons, client)
    picture(options.output / "segmentation.png", image, daskflow.open(home / "affinities"), neurons, truth)


def opened(data: Path, sections: tuple[int, int]) -> tuple[Volume, Volume, Volume]:
    """Return image, proofread neurons and over-segmentation of some sections."""
    files = ("fib25_image.tif", None), ("fib25_labels.h5", "main"), ("fib25_labels.h5", "oversegmentation")
    image, truth, given = (
        daskflow.open(data / file, dataset=dataset, voxel_size=(10, 10, 10))[slice(*sections)]
        for file, dataset in files
    )
    return image, truth, given


def chosen(image: Volume, truth: Volume, home: Path, setting: Setting, client: Any) -> float:
    """Return the threshold with the least variation of information; print the scores of all, plot them as merged."""
    made = segment(image, home, THRESHOLDS, setting, client)
    tree = {"tree": home / "tree.parquet", "thresholds": THRESHOLDS, "plot": home / "sweep.svg"}
    daskflow.evaluate_segmentation(daskflow.open(home / "fragments"), truth, **tree).run(client, overwrite=True)
    found = {one: scored(volume, truth, client) for one, volume in made.items()}
    report("Sections that the network has seen", {f"threshold {one:g}": scores for one, scores in found.items()})
    threshold = min(found, key=lambda one: found[one]["variation_of_information"])
    print(f"least variation of information at threshold {threshold:g}\n")
    return threshold


def segment(
    image: Volume, home: Path, thresholds: tuple[float, ...], setting: Setting, client: Any
) -> dict[float, Volume]:
    """Return the neurons at some thresholds."""
    affinities = daskflow.inference(
        image,
        input_patch_size=setting.patch,
        output_patch_overlap=setting.overlap,
        convnet_model=HERE / f"{setting.net}.py",
        convnet_weight_path=HERE / f"{setting.net}.safetensors",
        framework="pytorch",
        augment=setting.turned,
        augment_affinities=setting.turned,
    )
    affinities = saved(affinities, home / "affinities", setting, client)
    fragments = saved(daskflow.watershed(affinities), home / "fragments", setting, client)
    found = daskflow.agglomerate(affinities, fragments, threshold=thresholds, tree=home / "tree.parquet")
    places = {one: home / f"objects-{one:g}" for one in thresholds}
    layout = {"chunk": setting.chunk, "block": setting.block}
    jobs = [one.save(place, **layout) for one, place in zip(found, places.values(), strict=True)]
    daskflow.merge(jobs).run(client)
    stored = {one: daskflow.open(place).with_block(setting.block) for one, place in places.items()}
    return {one: cleaned(volume, affinities, setting) for one, volume in stored.items()}


def saved(volume: Volume, place: Path, setting: Setting, client: Any) -> Volume:
    """Save a volume and return what was saved."""
    volume.save(place, chunk=setting.chunk, block=setting.block).run(client)
    return daskflow.open(place).with_block(setting.block)


def cleaned(objects: Volume, affinities: Volume, setting: Setting) -> Volume:
    """Return objects without the small ones, whose voxels go to their neighbours."""
    axes = setting.axes
    interior = affinities.map_blocks(weakest, channels=None, dtype=np.float32, layer_type="probability_map", axes=axes)
    large = daskflow.mask_out_objects(objects, dust_size_threshold=setting.dust)
    depth = tuple(len(setting.levels) if axis in axes else 0 for axis in range(3))
    return large.map_overlap(grow, interior, depth=depth, dtype=large.dtype, levels=setting.levels, axes=axes)


def scored(segmentation: Volume, truth: Volume, client: Any) -> dict[str, float]:
    """Return the scores of a segmentation."""
    scores: dict[str, float] = (
        daskflow.evaluate_segmentation(segmentation, truth).run(client, progress=False).results["scores"]
    )
    return scores


def report(title: str, found: dict[str, dict[str, float]]) -> None:
    """Print scores of these names side by side."""
    print(f"\n{title}, against the truth (VI in bits):")
    print(f"{'':20}" + "".join(f"{name.replace('variation_of_information', 'vi_sum'):>20}" for name in SCORES))
    for name, scores in found.items():
        print(f"{name:20}" + "".join(f"{scores[score]:20.3f}" for score in SCORES))


def objects(neurons: Volume, client: Any) -> None:
    """Make meshes and skeletons of the ten largest neurons, in the layer."""
    counted = daskflow.voxel_counts(neurons).run(client, progress=False).results["largest_labels"]
    largest = [int(name.removeprefix("label ")) for name in counted][:10]
    daskflow.mesh(neurons, labels=largest).run(client)
    daskflow.skeletonize(neurons, labels=largest).run(client)


def picture(path: Path, *volumes: Volume) -> None:
    """Write the middle section of image, affinities, neurons and truth side by side."""
    z = sum(volumes[0].box.start[:1] + volumes[0].box.stop[:1]) // 2
    path.write_bytes(side_by_side([(one[z : z + 1].read(), one.layer_type or "image") for one in volumes]))
    print(f"image, affinities, neurons and truth side by side: {path}")


if __name__ == "__main__":
    main()
