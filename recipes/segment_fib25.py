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
from pathlib import Path
from typing import Any

import numpy as np

import daskflow
from daskflow import Volume
from daskflow.view import side_by_side

HERE = Path(__file__).parent
SEEN, HELD_OUT = (0, 125), (125, 250)
CHUNK = (25, 50, 50)
BLOCK = (75, 150, 150)
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)
DUST, GROW = 500, 12
SCORES = ("vi_split", "vi_merge", "variation_of_information", "adapted_rand_error", "rand_index")


def weakest(affinities: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the lowest of the affinities (czyx) of each voxel, zyx."""
    return affinities.min(axis=0)


def grow(labels: np.ndarray[Any, Any], interior: np.ndarray[Any, Any], steps: int) -> np.ndarray[Any, Any]:
    """Return labels (zyx) grown into the background, where the affinities are strong first.

    In every step the voxels whose weakest affinity exceeds a level that falls to 0 take the greatest label among their
    six neighbours, so a voxel's label depends on the voxels within `steps` of it and on nothing else.
    """
    for level in np.linspace(1, 0, steps):
        padded = np.pad(labels, 1)
        around = [np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for shift in (-1, 1)]
        labels = np.where((labels == 0) & (interior >= level), np.max(around, axis=0), labels)
    return labels


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data", help="folder of the data")
    parser.add_argument("--output", type=Path, default=Path("out/fib25"), help="folder for the layers")
    parser.add_argument("--threshold", type=float, help="mean affinity that merges; by default chosen on z < 125")
    parser.add_argument("--cluster", default="local", help="where to run, as in daskflow --cluster")
    parser.add_argument("--workers", type=int, help="worker processes")
    return parser.parse_args()


def main() -> None:
    """Run the recipe."""
    options = parse()
    with daskflow.connect(options.cluster, workers=options.workers) as client:
        threshold = options.threshold
        if threshold is None:
            home = options.output / "seen"
            image, truth, _ = opened(options.data, SEEN)
            made = segment(image, home, THRESHOLDS, client)
            found = {f"threshold {one:g}": scored(volume, truth, client) for one, volume in made.items()}
            threshold = min(THRESHOLDS, key=lambda one: found[f"threshold {one:g}"]["variation_of_information"])
            report(f"Sections {SEEN[0]} to {SEEN[1]}, which the network has seen", found)
            print(f"least variation of information at threshold {threshold:g}\n")
        home = options.output / "held-out"
        image, truth, given = opened(options.data, HELD_OUT)
        made = segment(image, home, (threshold,), client)
        made[threshold].save(home / "neurons", chunk=CHUNK, block=BLOCK).run(client)
        neurons = daskflow.open(home / "neurons")
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


def segment(image: Volume, home: Path, thresholds: tuple[float, ...], client: Any) -> dict[float, Volume]:
    """Return the neurons at some thresholds."""
    affinities = daskflow.inference(
        image,
        input_patch_size=(48, 96, 96),
        output_patch_overlap=(16, 32, 32),
        convnet_model=str(HERE / "affinity_unet.py"),
        convnet_weight_path=str(HERE / "affinity_unet.safetensors"),
        framework="pytorch",
    )
    affinities.save(home / "affinities", chunk=CHUNK, block=BLOCK).run(client)
    affinities = daskflow.open(home / "affinities").with_block(BLOCK)
    daskflow.watershed(affinities).save(home / "fragments", chunk=CHUNK).run(client)
    fragments = daskflow.open(home / "fragments")
    found = daskflow.agglomerate(affinities, fragments, threshold=thresholds, tree=home / "tree.parquet")
    places = {one: home / f"objects-{one:g}" for one in thresholds}
    jobs = [one.save(place, chunk=CHUNK, block=BLOCK) for one, place in zip(found, places.values(), strict=True)]
    daskflow.merge(jobs).run(client)
    interior = affinities.map_blocks(weakest, channels=None, dtype=np.float32, layer_type="probability_map")
    return {one: cleaned(daskflow.open(place).with_block(BLOCK), interior) for one, place in places.items()}


def cleaned(objects: Volume, interior: Volume) -> Volume:
    """Return objects without the small ones, whose voxels go to their neighbours."""
    large = daskflow.mask_out_objects(objects, dust_size_threshold=DUST)
    return large.map_overlap(grow, interior, depth=GROW, dtype=large.dtype, steps=GROW)


def scored(segmentation: Volume, truth: Volume, client: Any) -> dict[str, float]:
    """Return the scores of a segmentation."""
    scores: dict[str, float] = (
        daskflow.evaluate_segmentation(segmentation, truth).run(client, progress=False).results["scores"]
    )
    return scores


def report(title: str, found: dict[str, dict[str, float]]) -> None:
    """Print scores side by side."""
    print(f"\n{title}, against the proofread neurons (VI in bits):")
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
