"""From a raw EM volume to the affinities of a network: stretch the contrast of every section, then infer.

    python recipes/infer_em.py --image ../shared/data/fib25_image.tif --voxel-size 10 10 10 --output out/affinities

The same on the command line:

    daskflow open fib25_image.tif --voxel-size 10 10 10 contrast-levels --output levels
    daskflow open fib25_image.tif --voxel-size 10 10 10 contrast inference -f pytorch \
        -m recipes/affinity_unet.py -w recipes/affinity_unet.safetensors -s 32 96 96 -v 8 32 32 save out/affinities
"""

from __future__ import annotations

import argparse
from pathlib import Path

import daskflow

HERE = Path(__file__).parent


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True, help="path or URL of the volume")
    parser.add_argument("--voxel-size", type=float, nargs=3, help="nm (zyx), where the image does not say it")
    parser.add_argument("--sections", type=int, nargs=2, help="first section, and one past the last; all by default")
    parser.add_argument("--output", default="out/affinities", help="layer that is written")
    parser.add_argument("--cluster", default="local", help="where to run, as in daskflow --cluster")
    parser.add_argument("--workers", type=int, help="worker processes")
    return parser.parse_args()


def main() -> None:
    """Run the recipe."""
    options = parse()
    image = daskflow.open(options.image, voxel_size=options.voxel_size, layer_type="image")
    if options.sections:
        image = image[slice(*options.sections)]
    affinities = daskflow.inference(
        daskflow.contrast(image),
        input_patch_size=(32, 96, 96),
        output_patch_overlap=(8, 32, 32),
        convnet_model=str(HERE / "affinity_unet.py"),
        convnet_weight_path=str(HERE / "affinity_unet.safetensors"),
        framework="pytorch",
    )
    job = daskflow.save(affinities, options.output)
    print(job.plan())
    with daskflow.connect(options.cluster, workers=options.workers) as client:
        job.run(client)


if __name__ == "__main__":
    main()
