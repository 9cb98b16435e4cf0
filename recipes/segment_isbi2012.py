"""Segment real EM in sections: ISBI 2012 image, 2D U-Net, watershed, agglomeration, scores beside plain components.

    python recipes/segment_isbi2012.py --data DIR --output out/isbi2012

DIR holds isbi2012_image.tif and isbi2012_membranes.tif (serial sections of Drosophila larva, 4 x 4 x 50 nm). Their
truth is where membranes are, section by section: so the objects are profiles, what membranes part in one section, and
nothing joins them across. The network in section_unet.safetensors has seen z < 20, where the thresholds are chosen,
too; the rest is as in segment_fib25.py. Scores leave out what is membrane in the truth, as the challenge has it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import segment_fib25
import tifffile
from scipy import ndimage
from segment_fib25 import LEVELS, Setting, arguments, chosen, cleaned, picture, report, saved, scored, segment

import daskflow
from daskflow import Volume

SEEN, HELD_OUT = (0, 20), (20, 30)
SECTIONS = Setting(
    net="section_unet",
    patch=(1, 288, 288),
    overlap=(0, 64, 64),
    chunk=(5, 128, 128),
    block=(5, 256, 256),
    dust=100,
    levels=(*LEVELS, *[0.0] * 28),
    axes=(1, 2),
    turned=True,
)
AFFINITIES = (0.2, 0.3, 0.4, 0.5, 0.7)
WITHIN = np.array([[[0, 0, 0]] * 3, [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0, 0, 0]] * 3])


def main() -> None:
    """Run the recipe."""
    options = arguments(__doc__, "isbi2012").parse_args()
    cloudpickle.register_pickle_by_value(segment_fib25)  # workers elsewhere may not find it
    seen, home = options.output / "seen", options.output / "held-out"
    with daskflow.connect(options.cluster, workers=options.workers) as client:
        image, truth = opened(options.data, SEEN)
        threshold = chosen(image, truth, seen, SECTIONS, client)
        plain = {level: scored(components(seen, level), truth, client) for level in AFFINITIES}
        report("Components of the same affinities", {f"affinity {one:g}": scores for one, scores in plain.items()})
        level = min(plain, key=lambda one: plain[one]["variation_of_information"])
        image, truth = opened(options.data, HELD_OUT)
        neurons = saved(
            segment(image, home, (threshold,), SECTIONS, client)[threshold], home / "neurons", SECTIONS, client
        )
        found = {
            "daskflow": scored(neurons, truth, client),
            f"components, {level:g}": scored(components(home, level), truth, client),
        }
        report(f"Sections {HELD_OUT[0]} to {HELD_OUT[1]}, threshold {threshold:g}", found)
    picture(options.output / "segmentation.png", image, daskflow.open(home / "affinities"), neurons, truth)


def opened(data: Path, sections: tuple[int, int]) -> tuple[Volume, Volume]:
    """Return the image and the true profiles of some sections."""
    image, membranes = (
        tifffile.imread(data / f"isbi2012_{name}.tif")[slice(*sections)] for name in ("image", "membranes")
    )
    nanometres = {"voxel_size": (50, 4, 4)}
    return (
        daskflow.open(image, layer_type="image", **nanometres),
        daskflow.open(profiles(membranes), layer_type="segmentation", **nanometres),
    )


def profiles(membranes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return what membranes (zyx, 0 on them) part in each section: numbers from 1, unique over sections; else 0."""
    labels: np.ndarray[Any, Any] = ndimage.label(membranes, WITHIN)[0]
    return labels


def components(home: Path, level: float) -> Volume:
    """Return what affinities of at least a level join, grown; it is all that a watershed of one level joins."""
    affinities = daskflow.open(home / "affinities").with_block(SECTIONS.block)
    joined = daskflow.watershed(affinities, low=np.nextafter(level, 0), high=level)
    return cleaned(joined, affinities, dataclasses.replace(SECTIONS, dust=0))


if __name__ == "__main__":
    main()
