"""Trace the skeletons of a segmentation, and write them as SWC files and as a table of cable lengths.

    python recipes/export_skeletons.py --segmentation out/objects/segmentation --output out/swc

The same on the command line:

    daskflow open out/objects/segmentation skeletonize --table out/swc.csv
    daskflow download-skeleton out/objects/segmentation out/swc
"""

from __future__ import annotations

import argparse

import daskflow


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segmentation", required=True, help="precomputed layer")
    parser.add_argument("--dust", type=int, default=1000, help="voxels that an object has at least")
    parser.add_argument("--output", default="out/swc", help="folder of the SWC files; the table is beside it")
    parser.add_argument("--cluster", default="local", help="where to run, as in daskflow --cluster")
    parser.add_argument("--workers", type=int, help="worker processes")
    return parser.parse_args()


def main() -> None:
    """Run the recipe."""
    options = parse()
    segmentation = daskflow.open(options.segmentation)
    with daskflow.connect(options.cluster, workers=options.workers) as client:
        daskflow.skeletonize(segmentation, dust=options.dust, table=f"{options.output}.csv").run(client)
        daskflow.download_skeleton(options.segmentation, options.output).run(client)


if __name__ == "__main__":
    main()
