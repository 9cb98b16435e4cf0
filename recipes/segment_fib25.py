"""Segment real EM: FIB-25 image, 3D U-Net, connected components, evaluation against the proofread neurons.

    python recipes/segment_fib25.py --data DIR --output out/fib25

DIR holds fib25_image.tif and fib25_labels.h5 (FIB-SEM of Drosophila medulla, 10 nm voxels). The network in
affinity_unet.safetensors has seen z < 125 of that volume; everything here runs on z >= 125. The scores are printed
beside those of the over-segmentation that comes with the data. Connected components of thresholded affinities are the
simplest segmentation there is: one hole in a membrane merges two neurons.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import daskflow

HERE = Path(__file__).parent
HELD_OUT = 125
CHUNK = (25, 50, 50)
BLOCK = (75, 150, 150)
THRESHOLD = 0.9
GROW = 2
SCORES = ("vi_split", "vi_merge", "rand_index", "adjusted_rand_index")


def weakest(affinities: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the lowest of the affinities (czyx) of each voxel, zyx."""
    return affinities.min(axis=0)


def grow(labels: np.ndarray[Any, Any], steps: int) -> np.ndarray[Any, Any]:
    """Return labels (zyx) grown into the background by `steps` voxels; where two meet, the greater label wins."""
    for _ in range(steps):
        padded = np.pad(labels, 1)
        around = [np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for shift in (-1, 1)]
        labels = np.where(labels == 0, np.max(around, axis=0), labels)
    return labels


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data", help="folder of the data")
    parser.add_argument("--output", type=Path, default=Path("out/fib25"), help="folder for the layers")
    parser.add_argument("--threshold", type=float, default=THRESHOLD, help="least affinity inside a neuron")
    parser.add_argument("--grow", type=int, default=GROW, help="voxels that segments grow into the membranes")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    options = parser.parse_args()

    image = daskflow.open(options.data / "fib25_image.tif", voxel_size=(10, 10, 10))[HELD_OUT:]
    affinities = daskflow.inference(
        image,
        input_patch_size=(32, 96, 96),
        output_patch_overlap=(8, 32, 32),
        convnet_model=str(HERE / "affinity_unet.py"),
        convnet_weight_path=str(HERE / "affinity_unet.safetensors"),
        framework="pytorch",
    )
    with daskflow.connect("local", workers=options.workers) as client:
        print(affinities.save(options.output / "affinities", chunk=CHUNK, block=BLOCK).run(client))
        stored = daskflow.open(options.output / "affinities").with_block(BLOCK)
        interior = stored.map_blocks(weakest, channels=None, dtype=np.float32, layer_type="probability_map")
        components = daskflow.connected_components(interior, threshold=options.threshold)
        grown = components.map_overlap(
            grow, depth=options.grow, dtype=components.dtype, steps=options.grow, layer_type="segmentation"
        )
        print(grown.save(options.output / "segmentation", chunk=CHUNK, block=BLOCK).run(client))
        report(options, client)


def report(options: argparse.Namespace, client: Any) -> None:
    """Print the scores of the segmentation and of the over-segmentation that comes with the data."""
    labels = options.data / "fib25_labels.h5"
    truth = daskflow.open(labels, dataset="main", voxel_size=(10, 10, 10))[HELD_OUT:]
    compared = {
        "this segmentation": daskflow.open(options.output / "segmentation"),
        "over-segmentation": daskflow.open(labels, dataset="oversegmentation", voxel_size=(10, 10, 10))[HELD_OUT:],
    }
    print(f"\nz >= {HELD_OUT}, against the proofread neurons; VI in bits, voxels that are 0 in either left out")
    print(f"{'':20}" + "".join(f"{name.replace('_', ' '):>22}" for name in SCORES))
    for name, segmentation in compared.items():
        scores = daskflow.evaluate_segmentation(segmentation, truth).run(client, progress=False).results["scores"]
        print(f"{name:20}" + "".join(f"{scores[score]:22.3f}" for score in SCORES))


if __name__ == "__main__":
    main()
