"""The lazy Volume: geometry, and an expression that answers for any box."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from daskflow.config import format_bytes
from daskflow.errors import BoundsError, GeometryError
from daskflow.geometry import BlockGrid, BoundingBox, LayerType, VolumeSpec, VoxelSize, Zyx, as_voxel_size, as_zyx
from daskflow.stores.base import Store
from daskflow.stores.memory import ArrayStore
from daskflow.volume.as_array import AsArray, as_xarray
from daskflow.volume.boundary import BoundaryLike, DepthLike
from daskflow.volume.expression import Expression
from daskflow.volume.mapping import SAME, MappedAfter, MappedBoxes, Once, Same, map_overlap, same_box
from daskflow.volume.node import Array, Crop, DaskSource, Generated, Memory, Node, Stored, Waiting
from daskflow.volume.stage import Bound, Stage, default_block

if TYPE_CHECKING:
    import dask.array as da
    import xarray


class Volume(AsArray):
    """A lazy 3D volume, zyx or czyx, with global coordinates, voxel size and meaning.

    A volume is a small expression: it knows its geometry and how to answer for any box. Nothing is read or computed
    until it is asked: by `read`, by `compute` or `numpy.asarray`, through `data`, or by a job that `save` makes.

    Attributes:
        spec: box, dtype, channels, voxel size (nm, zyx), layer type and channel names.
        mips: the pyramid levels of the layer it was opened from, finest first; itself alone otherwise.
        block: voxels per block of work (zyx).

    Raises:
        GeometryError: an axis of size 0.
    """

    def __init__(self, node: Node, *, block: Zyx | None = None, mips: Sequence[VolumeSpec] = ()) -> None:
        if node.spec.box.empty:
            raise GeometryError(f"a volume of shape {node.spec.shape} over {node.spec.box} holds no voxel")
        self.node = node
        self.block: Zyx = block if block is not None else default_block(node.spec)
        self.mips: tuple[VolumeSpec, ...] = tuple(mips) or (node.spec,)

    @classmethod
    def from_store(cls, store: Store) -> Volume:
        """Return the volume that a store holds."""
        return cls(Stored(store.spec, store), mips=store.mips)

    @classmethod
    def from_array(cls, array: Any, **spec: Any) -> Volume:
        """Return a volume over a numpy array.

        Args:
            array: zyx or czyx.
            **spec: `voxel_offset` (zyx voxels), `voxel_size` (nm, zyx; by default unknown), `layer_type`,
                `channel_names`.
        """
        array = np.asarray(array)
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
        return cls.from_store(ArrayStore(array, _array_spec(array, **spec)))

    @classmethod
    def from_dask(cls, array: da.Array, **spec: Any) -> Volume:
        """Return a volume over a dask array (zyx or czyx); keywords as for `from_array`."""
        if any(np.isnan(size) for size in array.shape):
            raise GeometryError(f"dask array of unknown shape {array.shape}; call compute_chunk_sizes() on it first")
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        source = DaskSource(_array_spec(array, **spec), array)
        return cls(source, block=as_zyx([int(c[0]) for c in array.chunks[-3:]]))

    @classmethod
    def from_function(cls, function: Callable[..., Any], spec: VolumeSpec, **options: Any) -> Volume:
        """Return a volume whose voxels follow from where they lie: ``function(box, **options)``, of any box."""
        return cls(Generated(spec, function, options))

    @classmethod
    def waiting(cls, spec: VolumeSpec, store: Callable[[Any], Store], left: Bound, stages: Sequence[Stage]) -> Volume:
        """Return the volume that some stages leave in scratch data.

        Args:
            spec: what the volume will be.
            store: gives its store, given `left` once that knows where it lies; picklable.
            left: what the stages leave.
            stages: what must run first, in order: those of the volumes it is made from, then its own.
        """
        return cls(Waiting(spec, store, left, tuple(stages)))

    @property
    def spec(self) -> VolumeSpec:
        """Geometry and meaning."""
        return self.node.spec

    @property
    def box(self) -> BoundingBox:
        """The voxels it holds, in global coordinates (zyx)."""
        return self.spec.box

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as an array: zyx, or czyx with channels."""
        return self.spec.shape

    @property
    def ndim(self) -> int:
        """3 (zyx) or 4 (czyx)."""
        return self.spec.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a voxel."""
        return self.spec.dtype

    @property
    def channels(self) -> int | None:
        """Size of the channel axis; None without one."""
        return self.spec.channels

    @property
    def voxel_size(self) -> VoxelSize | None:
        """Nanometres per voxel (zyx); None when unknown."""
        return self.spec.voxel_size

    @property
    def layer_type(self) -> LayerType | None:
        """image, segmentation, affinity_map, probability_map, or None when unknown."""
        return self.spec.layer_type

    @property
    def channel_names(self) -> tuple[str, ...]:
        """One name per channel, or empty."""
        return self.spec.channel_names

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels, uncompressed."""
        return self.spec.nbytes

    @property
    def expression(self) -> Expression:
        """What answers for the volume."""
        return Expression([self.node])

    @property
    def stored(self) -> Store | None:
        """Where the volume lies, if it is (a part of) a level of a layer or of a file; None where it is computed."""
        return self.node.stored

    @property
    def stored_whole(self) -> Store | None:
        """The same, but None for a part."""
        store = self.stored
        return store if store is not None and store.spec.box == self.box else None

    @property
    def home(self) -> Store | None:
        """Where the volume lies, or will once the job that saves it has run: what is made of it belongs there."""
        saved = self.node.saved
        return self.stored if saved is None else saved.planned()

    @property
    def grid(self) -> BlockGrid:
        """The blocks of `data`: of `block` voxels, counted from where the store counts its chunks."""
        return BlockGrid(self.box, self.block, self.spec.chunk_origin)

    @functools.cached_property
    def data(self) -> da.Array:
        """The voxels as an ordinary dask array with local indices, one task per block."""
        from daskflow.volume.dask_array import dask_array

        return dask_array(self.expression, self.grid)

    def read(self, box: BoundingBox | None = None) -> Array:
        """Return the voxels of `box` (default: all), computed in this process.

        Returns:
            An array zyx, or czyx with channels.

        Raises:
            BoundsError: the box reaches outside the volume.
        """
        box = self.box if box is None else box
        self._check_inside(box)
        expression = self.expression
        if expression.stages:
            with tempfile.TemporaryDirectory(prefix="daskflow-") as directory:
                return np.array(expression.resolved(directory).evaluate([box])[0])
        return np.array(expression.evaluate([box])[0])

    def crop(self, box: BoundingBox) -> Volume:
        """Return the part inside `box`, which keeps its global coordinates.

        Raises:
            BoundsError: the box reaches outside the volume.
            GeometryError: the box is empty.
        """
        self._check_inside(box)
        if box.empty:
            raise GeometryError(f"box {box} holds no voxel")
        return Volume(Crop(self.spec.replace(box=box), self.node), block=self.block)

    @overload
    def __getitem__(self, key: slice | tuple[slice, ...]) -> Volume: ...

    @overload
    def __getitem__(self, key: int | tuple[int | slice, ...]) -> da.Array: ...

    def __getitem__(self, key: int | slice | tuple[int | slice, ...]) -> Volume | da.Array:
        """Return the part at global places z, y, x: slices give a volume, numbers a dask array without their axes.

        ``em[80]`` is the section z = 80, and ``data[...]`` counts from 0.

        Raises:
            BoundsError: a slice or number reaches outside the volume.
            GeometryError: a slice is empty, or has a step; or more than three.
        """
        keys = key if isinstance(key, tuple) else (key,)
        numbers = [isinstance(one, int | np.integer) for one in keys]
        slices = [slice(one, one + 1) if isinstance(one, int | np.integer) else one for one in keys]
        if len(slices) > 3 or not all(isinstance(s, slice) and s.step in (None, 1) for s in slices):
            raise GeometryError(f"index {key!r}: give at most three slices z, y, x in global voxels, without steps")
        slices += [slice(None)] * (3 - len(slices))
        start = [a if s.start is None else s.start for s, a in zip(slices, self.box.start, strict=True)]
        stop = [b if s.stop is None else s.stop for s, b in zip(slices, self.box.stop, strict=True)]
        part = self.crop(BoundingBox(as_zyx(start), as_zyx(stop)))
        if not any(numbers):
            return part
        kept = (0 if number else slice(None) for number in [*numbers, False, False][:3])
        return part.data[(..., *kept)]

    def map_blocks(self, function: Callable[..., Any], *others: Volume, **options: Any) -> Volume:
        """Return the volume whose blocks are `function` of the blocks of this one (and of `others`).

        The function must treat every voxel alike, as it is called for boxes of any size; see `map_overlap` for the
        arguments, of which `depth`, `boundary` and `trim` do not apply.
        """
        return self.map_overlap(function, *others, depth=0, **options)

    def map_overlap(
        self,
        function: Callable[..., Any],
        *others: Volume,
        depth: DepthLike | list[DepthLike],
        boundary: BoundaryLike | list[BoundaryLike] = "none",
        trim: bool = True,
        dtype: Any = None,
        channels: int | Same | None = SAME,
        factor: int | Sequence[int] = 1,
        layer_type: LayerType | Same | None = SAME,
        memory: Memory = None,
        **options: Any,
    ) -> Volume:
        """Return the volume whose blocks are `function` of blocks with context, as `dask.array.map_overlap` gives it.

        Args:
            function: gets one array per volume (zyx or czyx, read-only), halo included, and returns the block; with
                parameters named `box` or `read_box` it receives the global box of the result and of the first array.
            *others: further volumes over the same space, also at other mips: each is read at its own voxel size.
            depth: voxels read around a block: one number, one per axis (zyx) or a mapping of axis to number; a pair is
                (before, after). A list gives one for each volume.
            boundary: what stands beyond the edge: none (the block is smaller there), reflect (the edge voxel is
                repeated), nearest, periodic or a constant; a tuple gives one per axis, a list one per volume.
            trim: cut the halo off the result; otherwise the function returns the block alone.
            dtype: of the result; found by calling the function on a few ones when not given.
            channels: channels of the result: a number, or None for zyx; by default those of this volume.
            factor: voxels of this volume that make one of the result (zyx), when the function downsamples.
            layer_type: of the result; by default that of this volume.
            memory: bytes that the function takes while it runs, its arrays and result apart, for each voxel it is given
                of this volume; or a function that gives the bytes for a box of the result. By default as much again as
                arrays and result. Plans count with it.
            **options: handed to the function.

        Raises:
            GeometryError: a halo deeper than the volume where it mirrors or wraps, or volumes that do not match.
            ParameterError: a dtype that cannot be found.
        """
        result = map_overlap(
            function,
            [self.node, *(other.node for other in others)],
            depth=depth,
            boundary=boundary,
            trim=trim,
            dtype=dtype,
            channels=channels,
            factor=as_zyx(factor, name="factor"),
            layer_type=layer_type,
            memory=memory,
            options=options,
        )
        block = tuple(max(1, b // f) for b, f in zip(self.block, as_zyx(factor), strict=True))
        return Volume(result, block=as_zyx(block))

    def map_boxes(
        self,
        function: Callable[..., Any],
        *others: Volume,
        reads: Callable[[BoundingBox], BoundingBox] = same_box,
        spec: VolumeSpec,
        memory: Memory = None,
        dear: bool = False,
        gpu: bool = False,
        once: Once | None = None,
        **options: Any,
    ) -> Volume:
        """Return the volume whose boxes are `function` of boxes that `reads` chooses, e.g. a network's patches.

        Args:
            function: called as ``function(array, ..., box=, read_box=, **options)`` with the voxels of `read_box`, one
                array per volume.
            *others: further volumes over the same box.
            reads: gives the box of this volume that is needed for a box of the result, by default the same; clipped to
                the volume.
            spec: what the result is.
            memory: what the function takes while it runs; as for `map_overlap`.
            dear: a job that would evaluate it more than once keeps its voxels in scratch data instead.
            gpu: the function computes on a GPU where there is one, so that a job runs it on the workers of a cluster
                that declare GPUs, if any do.
            once: how a job evaluates it without computing parts of it in two blocks, where that pays.
            **options: handed to the function.
        """
        nodes = (self.node, *(other.node for other in others))
        boxes = {node.spec.box for node in nodes}
        if len(boxes) > 1:
            raise GeometryError(f"volumes over different boxes: {', '.join(map(str, sorted(boxes)))}; crop them to one")
        return Volume(MappedBoxes(spec, function, nodes, options, memory, reads, dear, gpu, once), block=self.block)

    def map_after(
        self,
        function: Callable[..., Any],
        *others: Volume,
        left: Bound,
        stages: Sequence[Stage],
        spec: VolumeSpec,
        memory: Memory = None,
        **options: Any,
    ) -> Volume:
        """Return the volume whose blocks are `function` of blocks of this one and of what some stages have left.

        Args:
            function: called as ``function(array, ..., box=, left=, **options)``; it treats every voxel alike.
            *others: further volumes over the same box.
            left: what the stages leave, e.g. a table in which the function looks voxels up.
            stages: what must run first, in order: those of the volumes that they are made from, then their own.
            spec: what the result is.
            memory: what the function takes while it runs; as for `map_overlap`.
            **options: handed to the function.
        """
        nodes = (self.node, *(other.node for other in others))
        return Volume(MappedAfter(spec, function, nodes, options, memory, left, tuple(stages)), block=self.block)

    def astype(self, dtype: Any) -> Volume:
        """Return the same volume cast to another dtype, as `numpy.ndarray.astype` casts."""
        return self.map_blocks(cast, dtype=np.dtype(dtype), to=np.dtype(dtype).name)

    def with_block(self, block: int | Sequence[int]) -> Volume:
        """Return the same volume with blocks of work of another size (zyx voxels)."""
        block = as_zyx(block, name="block")
        if min(block) < 1:
            raise GeometryError(f"block {block} zyx must be at least 1 on every axis")
        return Volume(self.node, block=block, mips=self.mips)

    def compute(self, **options: Any) -> Array:
        """Return all voxels, computed as `dask.compute` does it with the same keywords."""
        array: Array = self.data.compute(**options)
        return array

    def persist(self, **options: Any) -> Volume:
        """Return the volume with its voxels computed and held by the Dask workers."""
        return self._holding(self.data.persist(**options))

    def to_xarray(self) -> xarray.DataArray:
        """Return `data` with its axes named, global voxels as coordinates z, y, x, and channel names as c.

        Raises:
            MissingDependencyError: the package xarray is not installed.
        """
        return as_xarray(self)

    def visualize(self, filename: str = "mydask", format: str | None = None, **options: Any) -> Any:  # noqa: A002
        """Draw the graph of `data`, as `dask.visualize` does it."""
        return self.data.visualize(filename, format, **options)

    def save(self, url: str | os.PathLike[str], **options: Any) -> Any:
        """Return the job that writes the volume to `url`; see `daskflow.save`."""
        from daskflow.volume.registry import load_operator

        return load_operator("save").function(self, url, **options)

    def _holding(self, array: da.Array) -> Volume:
        return Volume(DaskSource(self.spec, array), block=self.block, mips=self.mips)

    def _check_inside(self, box: BoundingBox) -> None:
        if box not in self.box:
            raise BoundsError(f"box {box} reaches outside the volume {self.box} (z0-z1_y0-y1_x0-x1)")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "data"}

    def __dask_graph__(self) -> Any:
        return self.data.__dask_graph__()

    def __dask_keys__(self) -> Any:
        return self.data.__dask_keys__()

    def __dask_layers__(self) -> Any:
        return self.data.__dask_layers__()

    def __dask_tokenize__(self) -> Any:
        return self.data.__dask_tokenize__()

    @property
    def __dask_optimize__(self) -> Any:
        return self.data.__dask_optimize__

    @property
    def __dask_scheduler__(self) -> Any:
        return self.data.__dask_scheduler__

    def __dask_postcompute__(self) -> Any:
        return self.data.__dask_postcompute__()

    def __dask_postpersist__(self) -> Any:
        rebuild, arguments = self.data.__dask_postpersist__()
        return _rebuild, (self, rebuild, arguments)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        axes = "zyx" if self.channels is None else "czyx"
        shape = "x".join(map(str, self.shape))
        blocks = self.grid.count
        return (
            f"<Volume {axes} {shape} {self.dtype} · {self.spec.size_text} · {format_bytes(self.nbytes)}"
            f" · {blocks:,} block{'s' if blocks != 1 else ''}>"
        )

    def _repr_html_(self) -> str:
        from daskflow.volume.picture import html

        return html(self)


def cast(array: Array, to: str) -> Array:
    """Return an array as another dtype."""
    return array.astype(to)


def _rebuild(
    graph: Any, volume: Volume, rebuild: Callable[..., da.Array], arguments: Sequence[Any], **rename: Any
) -> Volume:
    return volume._holding(rebuild(graph, *arguments, **rename))


def _array_spec(
    array: Any,
    *,
    voxel_offset: Sequence[int] = (0, 0, 0),
    voxel_size: float | Sequence[float] | None = None,
    layer_type: LayerType | None = None,
    channel_names: Sequence[str] = (),
) -> VolumeSpec:
    if array.ndim not in (3, 4):
        raise GeometryError(f"array of shape {array.shape} has {array.ndim} axes; a volume is zyx or czyx")
    return VolumeSpec(
        BoundingBox.from_size(voxel_offset, array.shape[-3:]),
        array.dtype,
        channels=array.shape[0] if array.ndim == 4 else None,
        voxel_size=None if voxel_size is None else as_voxel_size(voxel_size),
        layer_type=layer_type,
        channel_names=tuple(channel_names),
    )
