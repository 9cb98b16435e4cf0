"""Segment real EM: FIB-25 image, 3D U-Net, connected components, evaluation against the proofread neurons.

    python recipes/segment_fib25.py --data DIR --output out/fib25

DIR holds fib25_image.tif and fib25_labels.h5 (FIB-SEM of Drosophila medulla, 10 nm voxels). The network in
affinity_unet.safetensors has seen z < 125 of that volume, and the threshold was chosen there (--sections 0 125); the
scores are those of the other half, beside those of the over-segmentation that comes with the data. Connected components
of thresholded affinities are the simplest segmentation there is: one hole in a membrane merges two neurons.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import daskflow
from daskflow import Volume

HERE = Path(__file__).parent
HELD_OUT = (125, 250)
CHUNK = (25, 50, 50)
BLOCK = (75, 150, 150)
THRESHOLD = 0.92
GROW = 12
SCORES = ("vi_split", "vi_merge", "rand_index", "adjusted_rand_index")


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
    parser.add_argument("--sections", type=int, nargs=2, default=HELD_OUT, help="first section, and one past the last")
    parser.add_argument("--threshold", type=float, default=THRESHOLD, help="least affinity inside a neuron")
    parser.add_argument("--grow", type=int, default=GROW, help="voxels that segments grow into the membranes")
    parser.add_argument("--cluster", default="local", help="where to run, as in daskflow --cluster")
    parser.add_argument("--workers", type=int, help="worker processes")
    return parser.parse_args()


def main() -> None:
    """Run the recipe."""
    options = parse()
    first, last = options.sections
    labels = options.data / "fib25_labels.h5"
    image, truth, given = (
        daskflow.open(file, dataset=dataset, voxel_size=(10, 10, 10))[first:last]
        for file, dataset in (
            (options.data / "fib25_image.tif", None),
            (labels, "main"),
            (labels, "oversegmentation"),
        )
    )
    home = options.output / f"z{first}-{last}"
    with daskflow.connect(options.cluster, workers=options.workers) as client:
        affinities = daskflow.inference(
            image,
            input_patch_size=(32, 96, 96),
            output_patch_overlap=(8, 32, 32),
            convnet_model=str(HERE / "affinity_unet.py"),
            convnet_weight_path=str(HERE / "affinity_unet.safetensors"),
            framework="pytorch",
        )
        print(affinities.save(home / "affinities", chunk=CHUNK, block=BLOCK).run(client))
        made = segment(daskflow.open(home / "affinities"), options.threshold, options.grow)
        layers = {name: home / f"{name}-{options.threshold:g}" for name in made}
        jobs = [made[name].save(layers[name], chunk=CHUNK, block=BLOCK) for name in made]
        print(daskflow.merge(jobs).run(client))
        print(f"\nSections {first} to {last}, threshold {options.threshold:g}, against the proofread neurons.")
        report(
            {**{name: daskflow.open(layer) for name, layer in layers.items()}, "over-segmentation": given},
            truth,
            client,
        )


def segment(affinities: Volume, threshold: float, steps: int) -> dict[str, Volume]:
    """Return the connected components of strong affinities, and the same grown into the membranes."""
    interior = affinities.with_block(BLOCK).map_blocks(
        weakest, channels=None, dtype=np.float32, layer_type="probability_map"
    )
    components = daskflow.connected_components(interior, threshold=threshold)
    grown = components.map_overlap(grow, interior, depth=steps, dtype=components.dtype, steps=steps)
    return {"components": components, "grown": grown}


def report(segmentations: dict[str, Volume], truth: Volume, client: Any) -> None:
    """Print the scores of segmentations."""
    print("VI in bits, over the voxels that have a segment in both. Components alone leave the membranes out, where")
    print("mistakes are likeliest: compare the grown ones with the over-segmentation that comes with the data.")
    print(f"{'':20}{'labelled':>10}" + "".join(f"{name.replace('_', ' '):>21}" for name in SCORES))
    for name, segmentation in segmentations.items():
        scores = daskflow.evaluate_segmentation(segmentation, truth).run(client, progress=False).results["scores"]
        labelled = float((segmentation.data > 0).mean().compute())
        print(f"{name:20}{labelled:10.1%}" + "".join(f"{scores[score]:21.3f}" for score in SCORES))


if __name__ == "__main__":
    main()
