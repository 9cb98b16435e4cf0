"""A convolutional net over a volume."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, LayerType, VolumeSpec, as_zyx
from daskflow.inference.blend import infer
from daskflow.inference.network import ModelFile, Network
from daskflow.inference.patches import PatchGrid
from daskflow.volume import Flag, Volume, operator


@operator(takes="image")
def inference(
    volume: Volume,
    *,
    input_patch_size: Annotated[Sequence[int], Flag("-s")],
    output_patch_size: Annotated[Sequence[int] | None, Flag("-z")] = None,
    output_patch_overlap: Annotated[Sequence[int], Flag("-v")] = (4, 64, 64),
    output_crop_margin: Sequence[int] | None = None,
    convnet_model: Annotated[str | os.PathLike[str] | None, Flag("-m")] = None,
    convnet_weight_path: Annotated[str | os.PathLike[str] | None, Flag("-w")] = None,
    num_output_channels: Annotated[int, Flag("-c")] = 3,
    framework: Annotated[Literal["universal", "identity", "pytorch"], Flag("-f")] = "universal",
    batch_size: Annotated[int, Flag("-b")] = 1,
    dtype: Annotated[Literal["float32", "float16", "bfloat16"], Flag("-d")] = "float32",
    device: str = "auto",
    nan: Literal["error", "zero", "keep"] = "error",
    blend: Literal["bump", "none"] = "bump",
    net_output: str | int | None = None,
    compile: bool = False,  # noqa: A002 (torch's name)
) -> Volume:
    """Run a convolutional net over overlapping patches and blend its outputs.

    Patches lie on a grid anchored to the volume, and their weights are normalised over the whole volume, so the result
    does not depend on the blocks of work. Patches whose input is zero everywhere are not run and answer zeros. A volume
    smaller than a patch is reflected at its edges. Integers reach the net divided by the greatest of their type.

    Args:
        volume: the image, zyx or czyx.
        input_patch_size: voxels the net sees (zyx).
        output_patch_size: voxels it answers for, from the middle of those it sees (zyx); as many unless given.
        output_patch_overlap: voxels that the outputs of neighbouring patches share (zyx).
        output_crop_margin: voxels left out at each side of the volume (zyx); unless given, those no patch answers for.
        convnet_model: the model: a chunkflow model file (.py), TorchScript (.pt) or an exported program (.pt2).
        convnet_weight_path: the weights of a Python model: .safetensors, or a state dict that torch saved.
        num_output_channels: channels the net answers.
        framework: what runs the model: a PatchInferencer file (universal), torch (pytorch), or nothing (identity).
        batch_size: patches per call of the net.
        dtype: what torch computes in where precision allows; the result is float32 always.
        device: where torch computes: auto (a GPU if there is one), cpu, cuda, cuda:1.
        nan: NaN and infinities of the net fail the block (error), become zero and are counted (zero), or stay (keep).
        blend: overlapping answers become their weighted mean, float32 (bump); or each voxel takes the answer of the
            patch in which it lies deepest, in the net's own type, e.g. classes (none).
        net_output: index or name of the answer to take, of a net that answers a tuple, a list or a dict.
        compile: compile the net with torch.compile, which takes a minute or so on each worker; needs framework pytorch.

    Returns:
        A volume czyx: float32, or the net's own type with blend none, for which the net is run on one patch at once.
        Three channels of floats make an affinity map, others a probability map; one channel of integers or bool a
        segmentation, several an image.

    Raises:
        ModelError: a file of the model cannot be read.
        ParameterError: patch, overlap or margin sizes that do not fit together.
    """
    patch = as_zyx(input_patch_size, name="input_patch_size")
    output = patch if output_patch_size is None else as_zyx(output_patch_size, name="output_patch_size")
    grid = PatchGrid(volume.box, patch, output, as_zyx(output_patch_overlap, name="output_patch_overlap"))
    network = Network(
        framework,
        patch,
        output,
        channels=num_output_channels,
        input_channels=volume.channels or 1,
        model=ModelFile.at(convnet_model) if convnet_model else None,
        weights=ModelFile.at(convnet_weight_path) if convnet_weight_path else None,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        blend=blend,
        net_output=None if net_output is None else str(net_output),
        compile=compile,
    )
    box = _result_box(grid, output_crop_margin)
    answered = np.dtype(np.float32) if blend == "bump" else network.answer_dtype()
    spec = VolumeSpec(
        box,
        answered,
        channels=num_output_channels,
        voxel_size=volume.voxel_size,
        coarseness=volume.spec.coarseness,
        layer_type=_layer_type(answered, num_output_channels),
    )
    return volume.map_boxes(
        infer,
        reads=grid.reads,
        spec=spec,
        memory=network.memory,
        dear=True,
        gpu=network.gpu,
        grid=grid,
        network=network,
        nan=nan,
        dtype=answered.name,
    )


def _layer_type(dtype: np.dtype[Any], channels: int) -> LayerType:
    if np.issubdtype(dtype, np.floating):
        return "affinity_map" if channels == 3 else "probability_map"
    return "segmentation" if channels == 1 else "image"


def _result_box(grid: PatchGrid, margin: Sequence[int] | None) -> BoundingBox:
    if margin is None:
        return grid.covered
    box = grid.box.shrink(as_zyx(margin, name="output_crop_margin"))
    if box.empty or box not in grid.covered:
        raise ParameterError(
            f"output_crop_margin {tuple(margin)} zyx leaves {box}; patches of this size answer for {grid.covered}"
            " (z0-z1_y0-y1_x0-x1): leave it out to get that, or crop more"
        )
    return box
