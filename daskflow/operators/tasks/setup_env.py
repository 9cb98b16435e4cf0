"""The sizes of a production run of a network: of tasks, of stored blocks and margins; its layers and its tasks."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec, Zyx, as_voxel_size, as_zyx
from daskflow.operators.stores.create_info import CreateLevels
from daskflow.operators.tasks._listed import PublishedTasks
from daskflow.stores import Layout, kvstore
from daskflow.volume import Flag, Tasks, operator

_LEAST_THUMBNAIL = 5


@operator()
def setup_env(
    *,
    volume_start: Sequence[int],
    volume_stop: Sequence[int] | None = None,
    volume_size: Annotated[Sequence[int] | None, Flag("-s")] = None,
    layer_path: Annotated[str, Flag("-l")],
    max_ram_size: Annotated[float, Flag("-r")] = 15,
    output_patch_size: Annotated[Sequence[int], Flag("-z")],
    input_patch_size: Annotated[Sequence[int] | None, Flag("-i")] = None,
    channel_num: Annotated[int, Flag("-c")] = 1,
    dtype: Annotated[Literal["uint8", "float16", "float32"], Flag("-d")] = "float32",
    output_patch_overlap: Annotated[Sequence[int] | None, Flag("-o")] = None,
    crop_chunk_margin: Sequence[int] | None = None,
    mip: Annotated[int, Flag("-m")] = 0,
    thumbnail_mip: Annotated[int, Flag("-b")] = 6,
    max_mip: Annotated[int, Flag("-x")] = 8,
    queue_name: Annotated[str | None, Flag("-q")] = None,
    visibility_timeout: Annotated[int, Flag("-t")] = 3600,
    thumbnail: bool = True,
    encoding: Annotated[Literal["raw", "jpeg", "compressed_segmentation", "fpzip", "kempressed"], Flag("-e")] = "raw",
    voxel_size: Annotated[Sequence[int], Flag("-v")] = (40, 4, 4),
    overwrite_info: bool = False,
) -> Tasks:
    """Choose the sizes of a run of a network, make the layers it writes, and send its tasks to a queue.

    A task is as many patches as fill half of the memory as float32, and a multiple of what the levels above need; all
    tasks together cover the volume. The layer of the result, and one for thumbnails in it, are made unless they are
    there and agree. The line to run for the tasks is printed. Levels are halved in y and x, not in z.

        expand margin | crop margin | task ... | crop margin | expand margin

    Args:
        volume_start: first voxel of the volume (zyx), in voxels of level 0.
        volume_stop: where the volume ends (zyx), in voxels of level 0, itself outside.
        volume_size: voxels of the volume (zyx), of level 0, instead of a stop.
        layer_path: path or URL of the precomputed layer of the result.
        max_ram_size: memory of a worker in GB (10^9 bytes).
        output_patch_size: voxels the net answers for (zyx), of level `mip`; y and x are the same.
        input_patch_size: voxels the net sees (zyx), of level `mip`; by default as in the output patch.
        channel_num: channels the net answers.
        dtype: dtype of the layer.
        output_patch_overlap: voxels of level `mip` that neighbouring patches share (zyx); by default half a patch.
        crop_chunk_margin: voxels of level `mip` at each side of a task (zyx) that few patches answer for; by default
            the overlap.
        mip: level that the net reads and writes.
        thumbnail_mip: level of the thumbnails, at least 5.
        max_mip: coarsest level that is made of the result later, of which a task is whole voxels.
        queue_name: SQS queue for the tasks, which is made if there is none; without, the line itself runs them.
        visibility_timeout: seconds for which a queue that is made hides a task that was fetched.
        thumbnail: make a layer for thumbnails.
        encoding: encoding of the layer's chunks.
        voxel_size: nm per voxel (zyx) of level 0.
        overwrite_info: replace what the layers say of themselves where it differs.

    Returns:
        The tasks; nothing has been stored or sent.

    Raises:
        ParameterError: the volume is not given, sizes that do not fit, or no task fits into the memory.
    """
    if (volume_stop is None) == (volume_size is None):
        raise ParameterError("give one of volume_size and volume_stop, in voxels of level 0 (zyx)")
    start = as_zyx(volume_start, name="volume_start")
    if volume_size is not None:
        volume = BoundingBox.from_size(start, volume_size)
    else:
        volume = BoundingBox(start, as_zyx(volume_stop or (), name="volume_stop"))
    patch = as_zyx(output_patch_size, name="output_patch_size")
    overlap = as_zyx([n // 2 for n in patch] if output_patch_overlap is None else output_patch_overlap)
    sizes = Sizes.of(
        patch if input_patch_size is None else as_zyx(input_patch_size, name="input_patch_size"),
        patch,
        overlap,
        overlap if crop_chunk_margin is None else as_zyx(crop_chunk_margin, name="crop_chunk_margin"),
        memory=max_ram_size,
        channels=channel_num,
        mip=mip,
        max_mip=max_mip,
        thumbnail_mip=max(thumbnail_mip, _LEAST_THUMBNAIL) if thumbnail else thumbnail_mip,
    )
    floats = dtype != "uint8"
    spec = VolumeSpec(
        volume,
        np.dtype(dtype),
        channels=channel_num if channel_num > 1 else None,
        voxel_size=as_voxel_size(voxel_size),
        layer_type="image" if not floats else "affinity_map" if channel_num == 3 else "probability_map",
    )
    region = volume.coarsen((1, 2**mip, 2**mip))
    grid = BlockGrid(region.align(sizes.task, region.start), sizes.task)
    halves = (1, 2, 2)
    layers = [CreateLevels.of(layer_path, spec, mip, Layout(chunk=sizes.block, encoding=encoding), halves)]
    if thumbnail:
        grey = spec.replace(dtype=np.dtype(np.uint8), channels=None, layer_type="image")
        place = kvstore.join(kvstore.normalise(layer_path), "thumbnail")
        raw = Layout(chunk=sizes.thumbnail_block, encoding="raw")
        layers.append(CreateLevels.of(place, grey, sizes.thumbnail_mip, raw, halves))
    tasks = (grid, range(len(grid)), None, queue_name, visibility_timeout)
    return Production(*tasks, sizes=sizes, layers=tuple(layers), replace=overwrite_info)


@dataclass(frozen=True, kw_only=True)
class Production(PublishedTasks):
    """The tasks of a run of a network, its sizes, and the layers that it writes."""

    sizes: Sizes
    layers: tuple[CreateLevels, ...]
    replace: bool

    def publish(self, say: Callable[[str], None]) -> None:
        make = CreateLevels.replace if self.replace else CreateLevels.check
        for how in (kvstore.rehearsing(), contextlib.nullcontext()):  # nothing is lost for what is refused
            with how:
                for layer in self.layers:
                    make(layer)
        say(str(self))
        super().publish(say)

    def __str__(self) -> str:
        return f"{self.sizes}\n{self.counted}\n\n{self._line}"

    @property
    def _line(self) -> str:
        """The line that runs the tasks."""
        sizes, layer = self.sizes, self.layers[0].levels[-1]
        fetch = f"fetch-task-from-sqs -q {self.queue_name}" if self.queue_name else "generate-tasks ..."
        done = " delete-task-in-queue" if self.queue_name else ""
        thumbnail = " --create-thumbnail" if len(self.layers) > 1 else ""
        return " \\\n    ".join(
            [
                f"daskflow --mip {layer.mip} {fetch}",
                f"load-precomputed -v IMAGE --fill-missing --expand-margin-size {_spaced(sizes.margin)}",
                f"inference -m MODEL -w WEIGHTS {sizes.options} -c {layer.spec.channels or 1}",
                f"save-precomputed -v {layer.url} --upload-log{thumbnail}{done}",
            ]
        )


@dataclass(frozen=True)
class Sizes:
    """The sizes of a run, in voxels of the level that the net reads (zyx).

    Attributes:
        patches: per task and axis.
        task: what a task writes.
        margin: what is read around that.
        block: the chunk of the layer that is written.
        thumbnail_block: the chunk of the layer of thumbnails, of which a task is one.
        memory: bytes of a task as float32, with its channels.
    """

    input_patch: Zyx
    output_patch: Zyx
    overlap: Zyx
    crop: Zyx
    patches: Zyx
    task: Zyx
    margin: Zyx
    block: Zyx
    thumbnail_block: Zyx
    thumbnail_mip: int
    memory: int

    @classmethod
    def of(
        cls,
        inputs: Zyx,
        outputs: Zyx,
        overlap: Zyx,
        crop: Zyx,
        *,
        memory: float,
        channels: int,
        mip: int,
        max_mip: int,
        thumbnail_mip: int,
    ) -> Sizes:
        """Choose as many patches as fill half of the memory in GB best, of a quarter to three quarters of a cube.

        Raises:
            ParameterError: patches that are not square, or no number of them makes a task that fits.
        """
        if inputs[1] != inputs[2] or outputs[1] != outputs[2]:
            raise ParameterError(
                f"patches must be square in y and x; the input is {inputs}, the output {outputs} (zyx)"
            )
        stride = _each(outputs, overlap, int.__sub__)
        if min(stride) < 1 or min(channels, memory) <= 0 or any(i < o for i, o in zip(inputs, outputs, strict=True)):
            raise ParameterError(
                f"an output patch {outputs} must be larger than its overlap {overlap} and not larger than the input"
                f" {inputs} (zyx), and memory {memory:g} GB and channels {channels} above 0"
            )
        ideal = int(memory * 1e9 / 2 / 4 / channels / math.prod(stride))
        least = int(ideal ** (1 / 3) / 2)

        def size(count: int, axis: int) -> int:
            return count * stride[axis] + overlap[axis] - 2 * crop[axis]

        counts = range(max(1, least), 3 * least)
        across = [n for n in counts if size(n, 2) > 0 and size(n, 2) % 2**max_mip == 0]
        along = [n for n in counts if size(n, 0) > 0 and size(n, 0) % 2**mip == 0]
        if not across or not along:
            raise ParameterError(
                f"no task of {counts.start} to {counts.stop - 1} patches per axis is a multiple of {2**max_mip} voxels"
                f" in y and x and of {2**mip} in z; change max_ram_size {memory:g}, max_mip {max_mip}, the overlap"
                " or the crop margin"
            )
        xy, z = min(((xy, z) for xy in across for z in along), key=lambda n: (n[0] * n[0] * n[1] / ideal - 1) ** 2)
        task = as_zyx([size(n, axis) for axis, n in enumerate((z, xy, xy))])
        margin = as_zyx([c + (i - o) // 2 for c, i, o in zip(crop, inputs, outputs, strict=True)])
        middle = (mip + thumbnail_mip) // 2
        return cls(
            inputs,
            outputs,
            overlap,
            crop,
            (z, xy, xy),
            task,
            margin,
            block=(task[0] // 2**mip, task[1] // 2**middle, task[2] // 2**middle),
            thumbnail_block=(task[0] // 2**mip, task[1] // 2**thumbnail_mip, task[2] // 2**thumbnail_mip),
            thumbnail_mip=thumbnail_mip,
            memory=4 * channels * math.prod(task),
        )

    @property
    def reads(self) -> Zyx:
        """What a task reads, its margin included."""
        return _each(self.task, self.margin, lambda n, m: n + 2 * m)

    @property
    def options(self) -> str:
        """The options of `inference` for these patches."""
        return f"-s {_spaced(self.input_patch)} -z {_spaced(self.output_patch)} -v {_spaced(self.overlap)}"

    @property
    def utilization(self) -> float:
        """Which part of the voxels that the patches of a task answer for is written."""
        return math.prod(self.task) / math.prod(self.patches) / math.prod(self.output_patch)

    def __str__(self) -> str:
        rows = {
            "patches per task": self.patches,
            "a task writes": self.task,
            "a task reads": self.reads,
            "expand margin": self.margin,
            "crop margin": self.crop,
            "block (chunk) of the layer": self.block,
        }
        lines = [f"{name:<28}{_spaced(value)}" for name, value in rows.items()]
        lines += [
            f"{'memory of a result':<28}{self.memory / 2**30:.3f} GiB",
            f"{'utilization':<28}{self.utilization:.2f}",
        ]
        return "\n".join([*lines, "(zyx, in voxels of the level that the net reads)"])


def _each(first: Zyx, second: Zyx, function: Callable[[int, int], int]) -> Zyx:
    z, y, x = map(function, first, second)
    return z, y, x


def _spaced(values: Zyx) -> str:
    return " ".join(map(str, values))
