"""From a segmentation to what one looks at: levels, voxel counts, meshes, skeletons, Neuroglancer.

    python recipes/objects_fib25.py --data DIR --output out/objects --view

DIR holds fib25_image.tif and fib25_labels.h5 (FIB-SEM of Drosophila medulla, 10 nm voxels). Every step is a job that
can be killed and run again; what is done is not done twice. The same on the command line:

    daskflow open fib25_image.tif --voxel-size 10 10 10 save image --levels 2 --factor 2 2 2
    daskflow open fib25_labels.h5 --dataset main save segmentation --levels 2 --factor 2 2 2
    daskflow open segmentation voxel-counts mesh skeletonize
    daskflow open image -o image open segmentation -o segmentation neuroglancer -i image,segmentation
"""

from __future__ import annotations

import argparse
from pathlib import Path

import daskflow

HERE = Path(__file__).parent
VOXEL_SIZE = (10, 10, 10)


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data", help="folder of the data")
    parser.add_argument("--output", type=Path, default=Path("out/objects"), help="folder for the layers")
    parser.add_argument("--size", type=int, default=250, help="voxels of the cube that is taken")
    parser.add_argument("--cluster", default="local", help="where to run, as in daskflow --cluster")
    parser.add_argument("--workers", type=int, help="worker processes")
    parser.add_argument("--view", action="store_true", help="serve the result in Neuroglancer until Ctrl-C")
    return parser.parse_args()


def main() -> None:
    """Run the recipe."""
    options = parse()
    n = options.size
    image = daskflow.open(options.data / "fib25_image.tif", voxel_size=VOXEL_SIZE, layer_type="image")[:n, :n, :n]
    labels = daskflow.open(options.data / "fib25_labels.h5", dataset="main", voxel_size=VOXEL_SIZE)[:n, :n, :n]
    pyramid = {"levels": 2, "factor": (2, 2, 2), "chunk": (64, 64, 64)}
    places = {"image": options.output / "image", "segmentation": options.output / "segmentation"}
    with daskflow.connect(options.cluster, workers=options.workers) as client:
        for volume, place in zip((image, labels), places.values(), strict=True):
            print(daskflow.save(volume, place, **pyramid).run(client).headline)
        segmentation = daskflow.open(places["segmentation"])
        counts = daskflow.voxel_counts(segmentation).run(client)
        meshes = daskflow.mesh(segmentation).run(client)
        skeletons = daskflow.skeletonize(segmentation, table=str(options.output / "skeletons.csv")).run(client)
    for report in (counts, meshes, skeletons):
        print(report.headline)
        for name, found in report.results.items():
            print(f"  {name}: {found}")
    if options.view:
        layers = {name: daskflow.open(place) for name, place in places.items()}
        largest = [int(name.removeprefix("label ")) for name in counts.results["largest_labels"]]
        viewer = daskflow.view.neuroglancer(layers, segments=largest)
        print(viewer.url)
        viewer.wait()


if __name__ == "__main__":
    main()
