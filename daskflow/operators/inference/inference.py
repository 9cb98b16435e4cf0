"""A convolutional net over a volume."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, LayerType, VolumeSpec, as_zyx
from daskflow.inference.blend import infer
from daskflow.inference.network import ModelFile, Network
from daskflow.inference.once import OncePerPatch
from daskflow.inference.patches import PatchGrid
from daskflow.operators.geometry.pick_channels import pick_channels
from daskflow.volume import Flag, Volume, operator

_log = logging.getLogger(__name__)


@operator(takes="image")
def inference(
    volume: Volume,
    *others: Volume,
    input_patch_size: Annotated[Sequence[int], Flag("-s")],
    output_patch_size: Annotated[Sequence[int] | None, Flag("-z")] = None,
    output_patch_overlap: Annotated[Sequence[int], Flag("-v")] = (4, 64, 64),
    output_crop_margin: Sequence[int] | None = None,
    patch_num: Annotated[Sequence[int] | None, Flag("-n")] = None,
    mask_output_chunk: bool | None = None,
    convnet_model: Annotated[str | os.PathLike[str] | Callable[..., Any] | None, Flag("-m")] = None,
    convnet_weight_path: Annotated[str | os.PathLike[str] | None, Flag("-w")] = None,
    num_input_channels: int | None = None,
    num_output_channels: Annotated[int | Sequence[int], Flag("-c")] = 3,
    framework: Annotated[
        Literal["universal", "identity", "pytorch", "onnx", "prebuilt", "general"], Flag("-f")
    ] = "universal",
    batch_size: Annotated[int, Flag("-b")] = 1,
    dtype: Annotated[Literal["float32", "float16", "bfloat16"], Flag("-d")] = "float32",
    device: str = "auto",
    nan: Literal["error", "zero", "keep"] = "error",
    blend: Literal["bump", "none"] = "bump",
    bump: Literal["wu", "zung", "gaussian"] = "wu",
    augment: bool = False,
    augment_affinities: bool = False,
    mask_myelin_threshold: Annotated[float | None, Flag("-y")] = None,
    net_output: str | int | None = None,
    compile: bool = False,  # noqa: A002 (torch's name)
    dry_run: bool = False,
) -> Volume:
    """Run a convolutional net over overlapping patches and blend its outputs.

    Patches lie on a grid anchored to the volume, and their weights are normalised over the whole volume, so the result
    does not depend on the blocks of work. Patches whose input is zero everywhere are not run and answer zeros. A volume
    smaller than a patch is reflected at its edges. Integers reach the net divided by the greatest of their type.

    Args:
        volume: the image, zyx or czyx.
        *others: further inputs of the net, over the same box, each with channels of its own.
        input_patch_size: voxels the net sees (zyx).
        output_patch_size: voxels it answers for, from the middle of those it sees (zyx); as many unless given.
        output_patch_overlap: voxels that the outputs of neighbouring patches share (zyx).
        output_crop_margin: voxels left out at each side of the volume (zyx); unless given, those no patch answers for.
        patch_num: patches along each axis (zyx), as chunkflow has it: they must fill the volume, and the margin, by
            default the overlap, is counted from what they answer for.
        mask_output_chunk: with no, the same rule as with patch_num; with yes, the usual one in spite of patch_num.
        convnet_model: the model: a chunkflow model file (.py), TorchScript (.pt), an exported program (.pt2), or .onnx.
            In Python also an object that is called with each batch (prebuilt).
        convnet_weight_path: the weights of a Python model: .safetensors, or a state dict that torch saved.
        num_input_channels: refuse an image with another number of channels.
        num_output_channels: channels the net answers; of each answer where net_output names several.
        framework: what runs the model: a PatchInferencer file (universal, once general), torch (pytorch), onnxruntime
            (onnx), an object in Python (prebuilt), or nothing (identity).
        batch_size: patches per call of the net.
        dtype: what torch computes in where precision allows; the result is float32 always.
        device: where the net computes: auto (a GPU if there is one), cpu, cuda, cuda:1.
        nan: NaN and infinities of the net fail the block (error), become zero and are counted (zero), or stay (keep).
        blend: overlapping answers become their weighted mean, float32 (bump); or each voxel takes the answer of the
            patch in which it lies deepest, in the net's own type, e.g. classes (none).
        bump: the weights of overlapping patches: chunkflow's (wu), DataProvider3's (zung), or MONAI's (gaussian).
        augment: answer the mean over the eight turns and mirror images of each patch in y and x, which must be as many;
            it takes eight times as long.
        augment_affinities: as `augment`, for a net whose channels begin with affinities to the voxel before in x, y, z:
            they are swapped and shifted as the patch is turned.
        mask_myelin_threshold: zero the first three of four channels where the fourth, of myelin, is at least this.
        net_output: index or name of the answer to take, of a net that answers a tuple, a list or a dict; several, with
            commas, are put one after the other as channels.
        compile: compile the net with torch.compile, which takes a minute or so on each worker; needs framework pytorch.
        dry_run: answer with the image, without loading the model, to try the rest of a line.

    Returns:
        A volume czyx: float32, or the net's own type with blend none, for which the net is run on one patch at once.
        Three channels of floats make an affinity map, others a probability map; one channel of integers or bool a
        segmentation, several an image.

    Raises:
        ModelError: a file of the model cannot be read.
        ParameterError: patch, overlap or margin sizes or numbers of channels that do not fit together.
    """
    _check_inputs(volume, others, num_input_channels)
    counts = tuple(int(count) for count in np.atleast_1d(num_output_channels))
    _check_outputs(counts, net_output, mask_myelin_threshold)
    if dry_run:
        volume, others = pick_channels(volume, channels=[0]), ()
        framework, convnet_model, convnet_weight_path = "identity", None, None
        augment = augment_affinities = compile = False  # noqa: A001
    patch = as_zyx(input_patch_size, name="input_patch_size")
    output = patch if output_patch_size is None else as_zyx(output_patch_size, name="output_patch_size")
    grid = PatchGrid(volume.box, patch, output, as_zyx(output_patch_overlap, name="output_patch_overlap"))
    inputs = tuple(one.channels or 1 for one in (volume, *others))
    if augment and not augment_affinities and counts == (3,):
        _log.warning("augment takes the mean of each channel by itself; if they are affinities: augment_affinities")
    network = Network(
        "universal" if framework == "general" else framework,
        patch,
        output,
        channels=sum(counts),
        input_channels=sum(inputs),
        model=ModelFile.at(convnet_model) if isinstance(convnet_model, str | os.PathLike) else None,
        weights=ModelFile.at(convnet_weight_path) if convnet_weight_path else None,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        blend=blend,
        net_output=None if net_output is None else str(net_output),
        compile=compile,
        bump=bump,
        augment="affinities" if augment_affinities else "channels" if augment else "none",
        inputs=inputs if others else (),
        outputs=counts if len(counts) > 1 else (),
        prebuilt=convnet_model if callable(convnet_model) else None,
    )
    aligned = mask_output_chunk is False or (mask_output_chunk is None and patch_num is not None)
    box = _aligned_box(grid, patch_num, output_crop_margin) if aligned else _result_box(grid, output_crop_margin)
    answered = np.dtype(np.float32) if blend == "bump" else network.answer_dtype()
    spec = VolumeSpec(
        box,
        answered,
        channels=sum(counts),
        voxel_size=volume.voxel_size,
        coarseness=volume.spec.coarseness,
        layer_type=_layer_type(answered, counts),
    )
    result = volume.map_boxes(
        infer,
        *others,
        reads=grid.reads,
        spec=spec,
        memory=network.memory,
        dear=True,
        gpu=network.gpu,
        once=None if network.framework == "identity" else OncePerPatch(grid, network, nan),
        grid=grid,
        network=network,
        nan=nan,
        dtype=answered.name,
    )
    if mask_myelin_threshold is None:
        return result
    return result.map_blocks(
        without_myelin, channels=3, layer_type=_layer_type(answered, (3,)), threshold=float(mask_myelin_threshold)
    )


def without_myelin(array: np.ndarray[Any, Any], threshold: float) -> np.ndarray[Any, Any]:
    """Return the first three of four channels, 0 where the fourth is at least a threshold."""
    return np.where(array[3] < threshold, array[:3], array.dtype.type(0))


def _check_inputs(volume: Volume, others: Sequence[Volume], wanted: int | None) -> None:
    if wanted is not None and wanted != (volume.channels or 1):
        raise ParameterError(f"num_input_channels {wanted} is said, and the volume has {volume.channels or 1}")
    sizes = [one.voxel_size for one in (volume, *others) if one.voxel_size is not None]
    if len(set(sizes)) > 1:
        raise ParameterError(f"the inputs have voxel sizes {', '.join(map(str, sizes))} nm zyx: give one level's")


def _check_outputs(counts: tuple[int, ...], net_output: str | int | None, threshold: float | None) -> None:
    names = [] if net_output is None else str(net_output).split(",")
    if len(counts) != max(1, len(names)):
        raise ParameterError(
            f"num_output_channels {' '.join(map(str, counts))} is of {len(counts)} answers, and net_output names"
            f" {len(names)}: give one number for each, e.g. --net-output 0,1 -c 3 1"
        )
    if threshold is not None and sum(counts) != 4:
        raise ParameterError(
            f"mask_myelin_threshold needs four channels, the last of myelin, and the net answers {sum(counts)}:"
            " set num_output_channels to 4 (-c 4), or leave the threshold out"
        )


def _layer_type(dtype: np.dtype[Any], counts: tuple[int, ...]) -> LayerType:
    if np.issubdtype(dtype, np.floating):
        return "affinity_map" if counts == (3,) else "probability_map"
    return "segmentation" if counts == (1,) else "image"


def _aligned_box(grid: PatchGrid, patch_num: Sequence[int] | None, margin: Sequence[int] | None) -> BoundingBox:
    """Return what is answered for where patches must fill the volume, as chunkflow has it without a mask."""
    there = tuple(map(len, grid.axes))
    wanted = there if patch_num is None else as_zyx(patch_num, name="patch_num")
    filled = tuple(axis.input + (count - 1) * axis.stride for axis, count in zip(grid.axes, wanted, strict=True))
    if filled != grid.box.shape:
        raise ParameterError(
            f"{'x'.join(map(str, wanted))} patches (zyx) fill {filled} voxels, the volume has {grid.box.shape}: give"
            " one of that shape, or leave out patch_num (-n) and no-mask-output-chunk, which only chunkflow needs"
        )
    cropped = grid.overlap if margin is None else as_zyx(margin, name="output_crop_margin")
    box = grid.covered.shrink(cropped)
    if box.empty:
        raise ParameterError(f"output_crop_margin {cropped} zyx leaves no voxel of {grid.covered}: crop less")
    return box


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
