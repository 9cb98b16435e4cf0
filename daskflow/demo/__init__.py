"""The demo: a synthetic image through a network to a segmentation, judged against the truth."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import daskflow
from daskflow.clusters import connect
from daskflow.demo.phantom import phantom
from daskflow.errors import MissingDependencyError
from daskflow.geometry import BoundingBox
from daskflow.jobs import Job, merge
from daskflow.volume import Volume

Say = Callable[[str], Any]

SHAPE = (64, 256, 256)
VOXEL_SIZE = (16.0, 8.0, 8.0)
_CHUNK = (32, 64, 64)
_BLOCK = (32, 128, 128)
_PATCH = (16, 64, 64)
_OVERLAP = (4, 16, 16)
_THRESHOLD = 0.5
MODEL = Path(__file__).parent / "boundary_net.py"
WEIGHTS = MODEL.with_suffix(".safetensors")


def run(
    directory: str, cluster: str = "local", options: Mapping[str, Any] = MappingProxyType({}), *, view: bool, say: Say
) -> dict[str, Any]:
    """Run the whole pipeline and return the scores of the segmentation.

    Args:
        directory: path of a folder for the layers and the picture.
        cluster: what runs the blocks, as for `connect`.
        options: its options.
        view: serve the layers in Neuroglancer until Ctrl-C.
        say: takes the lines that are shown.

    Raises:
        MissingDependencyError: torch, or what the viewer needs, is not installed.
    """
    _check_installed(view=view)
    home = Path(directory)
    say(f"A synthetic volume of neurite-like tubes, {' x '.join(map(str, SHAPE))} voxels (z y x), goes into {home}/")
    pixels, labels = phantom(SHAPE, seed=0)
    image = Volume.from_array(pixels, voxel_size=VOXEL_SIZE, layer_type="image")
    truth = Volume.from_array(labels, voxel_size=VOXEL_SIZE, layer_type="segmentation")
    with connect(cluster, **options) as client:
        _step(merge([image.save(home / "image", chunk=_CHUNK), truth.save(home / "truth", chunk=_CHUNK)]), client, say)
        say("\nThe network sees overlapping patches and says how likely each voxel is inside a neurite.")
        interior = daskflow.inference(
            daskflow.open(home / "image"),
            input_patch_size=_PATCH,
            output_patch_overlap=_OVERLAP,
            convnet_model=MODEL,
            convnet_weight_path=WEIGHTS,
            num_output_channels=1,
            framework="pytorch",
            batch_size=2,
        )
        _step(interior.save(home / "interior", chunk=_CHUNK, block=_BLOCK), client, say)
        say("\nWhat is likelier inside than not is cut into connected components, over the whole volume.")
        components = daskflow.connected_components(
            daskflow.threshold(daskflow.open(home / "interior"), threshold=_THRESHOLD).with_block(_BLOCK)
        )
        _step(components.save(home / "segmentation", chunk=_CHUNK, block=_BLOCK), client, say)
        say("\nThe segmentation against the truth:")
        judged = daskflow.evaluate_segmentation(daskflow.open(home / "segmentation"), daskflow.open(home / "truth"))
        scores: dict[str, Any] = judged.run(client, progress=False).results["scores"]
    for name, value in scores.items():
        told = ", ".join(map(str, value)) if isinstance(value, list) else f"{value:.4g}"
        say(f"  {name.replace('_', ' '):<28}{told}")
    layers = {name: daskflow.open(home / name) for name in ("image", "interior", "segmentation", "truth")}
    picture = home / "demo.png"
    picture.write_bytes(_picture(layers))
    say(f"\nImage, network's answer, segmentation and truth side by side: {picture}")
    if view:
        _show(layers, say)
    return scores


def _step(job: Job, client: Any, say: Say) -> None:
    say(str(job.plan(client)))
    say(job.run(client).details)


def _check_installed(*, view: bool) -> None:
    for package, extra in [("torch", "torch"), ("safetensors", "torch")] + [("neuroglancer", "view")] * view:
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError.of(package, extra)


def _picture(layers: dict[str, Volume]) -> bytes:
    from daskflow.view import side_by_side

    z = SHAPE[0] // 2
    section = BoundingBox((z, 0, 0), (z + 1, *SHAPE[1:]))
    return side_by_side([(layer.read(section), layer.layer_type or "image") for layer in layers.values()])


def _show(layers: dict[str, Volume], say: Say) -> None:
    from daskflow.view import neuroglancer

    with contextlib.suppress(KeyboardInterrupt), neuroglancer(layers) as viewer:
        say(f"\nLook at it in a browser: {viewer.url}\n(this machine only; Ctrl-C ends)")
        viewer.wait()
