"""From a folder of TIFF sections to an OME-Zarr image with its pyramid, which every viewer opens.

    python recipes/ingest_sections.py --sections scans/ --voxel-size 40 4 4 --output out/image.ome.zarr

Sections are taken in the order of the numbers in their names. The same on the command line:

    daskflow open scans/ --voxel-size 40 4 4 save out/image.ome.zarr --levels 4 --factor 1 2 2
"""

from __future__ import annotations

import argparse

import daskflow


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", required=True, help="folder of the TIFF files")
    parser.add_argument("--voxel-size", type=float, nargs=3, help="nm (zyx), where the files do not say it")
    parser.add_argument("--levels", type=int, default=4, help="levels below the full resolution")
    parser.add_argument("--output", default="out/image.ome.zarr", help="image that is written")
    parser.add_argument("--cluster", default="local", help="where to run, as in daskflow --cluster")
    parser.add_argument("--workers", type=int, help="worker processes")
    return parser.parse_args()


def main() -> None:
    """Run the recipe."""
    options = parse()
    image = daskflow.open(options.sections, voxel_size=options.voxel_size, layer_type="image")
    print(image)
    job = daskflow.save(image, options.output, levels=options.levels, factor=(1, 2, 2))
    with daskflow.connect(options.cluster, workers=options.workers) as client:
        job.run(client)


if __name__ == "__main__":
    main()
