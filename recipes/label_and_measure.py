"""Label the objects of an image over the whole volume, and measure every one: size, place, axes, intensities.

    python recipes/label_and_measure.py --image nuclei.tif --voxel-size 1000 250 250 --threshold 80 --output out/nuclei

writes the labels to out/nuclei and the table to out/nuclei.csv. The same on the command line:

    daskflow open nuclei.tif --voxel-size 1000 250 250 -o image gaussian-filter -i image --sigma 1 \
        connected-components --threshold 80 --dust 100 save out/nuclei \
        region-properties --image image --output out/nuclei.csv
"""

from __future__ import annotations

import argparse

import daskflow


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True, help="path or URL of the volume")
    parser.add_argument("--voxel-size", type=float, nargs=3, help="nm (zyx), where the image does not say it")
    parser.add_argument(
        "--sigma", type=float, default=1.0, help="of the Gaussian before the threshold; voxels in a section"
    )
    parser.add_argument("--threshold", type=float, required=True, help="objects are brighter than this")
    parser.add_argument("--dust", type=int, default=100, help="voxels that an object has at least")
    parser.add_argument("--output", default="out/labels", help="layer of the labels; the table is beside it")
    parser.add_argument("--cluster", default="local", help="where to run, as in daskflow --cluster")
    parser.add_argument("--workers", type=int, help="worker processes")
    return parser.parse_args()


def main() -> None:
    """Run the recipe."""
    options = parse()
    image = daskflow.open(options.image, voxel_size=options.voxel_size, layer_type="image")
    smooth = daskflow.gaussian_filter(image, sigma=options.sigma)
    labels = daskflow.connected_components(smooth, threshold=options.threshold, dust=options.dust)
    with daskflow.connect(options.cluster, workers=options.workers) as client:
        daskflow.save(labels, options.output).run(client)
        stored = daskflow.open(options.output)
        daskflow.region_properties(stored, image, output=f"{options.output}.csv").run(client)


if __name__ == "__main__":
    main()
