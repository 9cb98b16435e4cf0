"""The commands by which a line is looked at: in Neuroglancer, or in napari."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from daskflow.cli.chain import Chain, Step
from daskflow.cli.options import Numbers, WordCommand

if TYPE_CHECKING:
    from daskflow.geometry import VoxelSize

_VOXEL_SIZE = click.option(
    "-v", "--voxel-size", type=Numbers(float), help="Of all that is shown, in nm (zyx), in place of what they state."
)
_NAME = click.option("--name", "step_name", metavar="NAME", help="What messages call this command.")


@click.command(cls=WordCommand, short_help="Show volumes in Neuroglancer, served from this machine.")
@click.option(
    "-i",
    "-c",
    "--inputs",
    metavar="NAMES",
    help="Layers, with commas, each with options in brackets: em,affs[color=red,opacity=0.5]; by default chunk, or else"
    " the last.",
)
@click.option("-s", "--segments", type=Numbers(int), default=(), metavar="LABELS", help="To show in 3D, with commas.")
@click.option("--objects", multiple=True, metavar="DIR", help="Meshes or skeletons that are in no layer; repeatable.")
@_VOXEL_SIZE
@click.option("-p", "--port", type=int, default=0, help="Port to listen on; a free one by default.")
@click.option("--bind", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on.")
@_NAME
def neuroglancer(
    inputs: str | None,
    segments: tuple[int, ...],
    objects: tuple[str, ...],
    voxel_size: VoxelSize | None,
    port: int,
    bind: str,
    step_name: str | None,
) -> Step:
    """Show volumes, points, synapses and skeletons in Neuroglancer, served from this machine alone, until Ctrl-C.

    What was saved in the same line is shown from its layer, precomputed layers on this machine with their meshes and
    skeletons; anything else is computed when it is looked at. The options of a layer are color, opacity (0 to 1),
    range=LOW:HIGH (the values of an image that are black and white), size (of points, in pixels) and visible=no.
    """

    def apply(chain: Chain) -> None:
        from daskflow.view.look import read_layers

        looks = read_layers(inputs or chain.usual("chunk", object) or "chunk")
        shown = _named(chain, looks, voxel_size)
        _serve_after(chain, shown, looks=looks, segments=segments, objects=objects, port=port, bind=bind)

    return Step(step_name or "neuroglancer", apply)


@click.command(cls=WordCommand, short_help="Show the sections of an image, and labels over it, in the browser.")
@click.option("-i", "--image-chunk-name", metavar="NAME", help="Name of the image; by default chunk, or else the last.")
@click.option("--segmentation-chunk-name", metavar="NAME", help="Name of labels that are shown over it.")
@click.option("-p", "--port", type=int, default=0, help="Port on 127.0.0.1; a free one by default.")
@_NAME
def view(image_chunk_name: str | None, segmentation_chunk_name: str | None, port: int, step_name: str | None) -> Step:
    """Show the sections of an image, and labels over it, in the browser, served from this machine until Ctrl-C.

    It is Neuroglancer with sections alone; `neuroglancer` shows more.
    """

    def apply(chain: Chain) -> None:
        from daskflow.volume import load_operator

        shown = _named(chain, [image_chunk_name or chain.usual("chunk", object) or "chunk"])
        if segmentation_chunk_name is not None:
            ((name, labels),) = _named(chain, [segmentation_chunk_name]).items()
            declare = load_operator("declare").function
            is_known = labels.spec.kind == "segmentation"
            shown[name] = labels if is_known else declare(labels, layer_type="segmentation")
        _serve_after(chain, shown, layout="xy", port=port)

    return Step(step_name or "view", apply)


@click.command(cls=WordCommand, short_help="Show volumes in napari.")
@click.option("-i", "--inputs", metavar="NAMES", help="Layers, with commas; by default chunk, or else the last.")
@_VOXEL_SIZE
@_NAME
def napari(inputs: str | None, voxel_size: VoxelSize | None, step_name: str | None) -> Step:
    """Show volumes and points in napari, in a window of its own, until that is closed.

    What is in the window is computed when it is looked at. `napari LAYER` opens a layer without daskflow's command.
    """

    def apply(chain: Chain) -> None:
        shown = _named(chain, (inputs or chain.usual("chunk", object) or "chunk").split(","), voxel_size)

        def show(_: Any) -> None:
            from daskflow.view.napari import show

            show(shown)

        chain.after.append(show)

    return Step(step_name or "napari", apply)


def _named(chain: Chain, names: Iterable[str], voxel_size: VoxelSize | None = None) -> dict[str, Any]:
    """Return volumes and objects of a line by their names, with another voxel size, unless they are counted in nm."""
    from daskflow.geometry import as_voxel_size
    from daskflow.stores.objects.located import Located, SkeletonSet
    from daskflow.volume import Volume, load_operator

    shown = {name: chain.volumes_named(name, Volume | Located)[0] for name in names}
    if voxel_size is None:
        return shown
    declare: Callable[..., Any] = load_operator("declare").function
    size = as_voxel_size(voxel_size)
    for name, layer in shown.items():
        if layer.voxel_size != size and not isinstance(layer, SkeletonSet):
            is_volume = isinstance(layer, Volume)
            shown[name] = declare(layer, voxel_size=size) if is_volume else dataclasses.replace(layer, voxel_size=size)
    return shown


def _serve_after(chain: Chain, shown: dict[str, Any], **how: Any) -> None:
    def show(_: Any) -> None:
        from daskflow.view import neuroglancer as open_viewer

        viewer = open_viewer(shown, **how)
        click.echo(f"{viewer.url}\nCtrl-C ends.")
        viewer.wait()

    chain.after.append(show)


COMMANDS = {"napari": napari, "neuroglancer": neuroglancer, "view": view}
