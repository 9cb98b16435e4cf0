"""A volume into a store."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from daskflow.config import parse_bytes
from daskflow.errors import AlignmentError, BoundsError, ParameterError
from daskflow.geometry import BoundingBox, LayerType, VolumeSpec, Zyx, as_zyx
from daskflow.jobs import Job
from daskflow.jobs.arrange import evaluate_stage, file_stages
from daskflow.jobs.evaluate import assumed_voxel_size, sources
from daskflow.jobs.report import Finish
from daskflow.jobs.sinks import FileSink, LayerSink, NoteBackground, Sink, safe_name
from daskflow.layers.provenance import WriteProvenance, notes_in_sources
from daskflow.operators import options
from daskflow.operators.stores._transcoding import transcoding_stage
from daskflow.operators.stores.downsample.kernels import Carried, Downsampling
from daskflow.operators.stores.downsample.levels import NewLevels, chosen_method, passes, sensible_levels, unit_of_all
from daskflow.operators.stores.downsample.passes import Levels, Pass, stages_after
from daskflow.stores import Layout, kvstore
from daskflow.stores.opening import find_store, format_named, split_dataset, target_format
from daskflow.stores.sharding import default_shard
from daskflow.volume import BlockResult, Estimate, Flag, Volume, in_order, operator
from daskflow.volume.kinds import without_negatives
from daskflow.volume.node import Array, Saved
from daskflow.volume.stage import Storing

_CHUNK: Zyx = (64, 64, 64)


@operator()
def save(
    volume: Volume,
    url: str | os.PathLike[str],
    *,
    mip: options.Mip = 0,
    format: str | None = None,  # noqa: A002
    chunk: options.Chunk | None = None,
    shard: options.Shard | None = None,
    encoding: options.Encoding | None = None,
    quality: options.Quality | None = None,
    effort: options.Effort | None = None,
    compression: options.Compression | None = None,
    block: Annotated[Sequence[int] | None, Flag("-b")] = None,
    levels: int | Literal["auto"] = 0,
    factor: options.Factor = (1, 2, 2),
    method: options.Method = "auto",
    sparse: options.Sparse = False,
    delete_background: options.DeleteBackground = False,
    background: options.Background = 0,
    overwrite: options.Overwrite = False,
    bounds: Sequence[int] | Literal["source"] | None = None,
    complete: bool = False,
    memory: options.Memory = "512MB",
    note_source: bool = False,
    upload_log: bool = False,
) -> Job:
    """Write a volume to a store, as a job that can be stopped and resumed.

    A volume goes to its place in the layer, of which it may be a part; several jobs may fill parts that share no chunk.
    The format follows from the ending (.zarr, .h5, .tif, .nii.gz, ...) and is precomputed without one. A layer that
    exists and agrees is written into; one that differs is refused. Integers of 32 and 64 bits whose layer type is
    unknown are saved as a segmentation, as the plan says. Labels must not be negative.

    Args:
        volume: what is written.
        url: path or URL of the layer or file; ``file.h5:dataset`` names a dataset.
        mip: pyramid level that is written, 0 is the finest.
        format: precomputed, ome-zarr, ome-zarr-0.4, zarr3, zarr2, n5, hdf5, npy, nifti, nrrd, png or tiff, to override
            the ending.
        block: voxels per block of work (zyx), whole chunks and shards.
        levels: how many coarser levels to write in the same pass, as `downsample` makes them; auto for as many as it
            takes until a chunk holds the volume along the axes that shrink.
        bounds: box of the level in a new layer, where the volume is a part of it: start and stop as z y x each, or a
            stop alone; source for that of the whole layer that the volume is read from. By default that of the volume
            or of the existing layer.
        complete: let chunks that the volume fills in part keep what else they hold, instead of refusing them. Jobs that
            share a chunk must run one after the other.
        note_source: note in the provenance of the layers that are read what was made of them.
        upload_log: store how many seconds the stages took in ``log/z0-z1_y0-y1_x0-x1.json`` in the layer.

    Returns:
        The job; nothing has been written.

    Raises:
        AlignmentError: a block would share a chunk or shard with another, or with what else the layer holds.
        BoundsError: the volume reaches outside the bounds.
        ParameterError: the format cannot hold the volume, or it would overwrite what it is computed from.
        MetadataMismatchError: when the job is checked, as `--plan` does, or run, if the layer exists and differs.
        AlreadyStoredError: then, too, if chunks that this job has not written lie where it writes.
    """
    target, rest = target_format(url, format)
    rest, dataset = split_dataset(rest)
    location = kvstore.normalise(rest)
    if mip < 0:
        raise ParameterError(f"mip {mip} of what is written must be at least 0 (the finest level)")
    _refuse_own_source(volume, location, mip)
    spec, notes = _stated(volume.spec, location, target.name)
    if spec.layer_type == "segmentation":
        volume = without_negatives(volume)
    asked = options.layout_of(chunk, shard, encoding, quality, effort, compression)
    work = None if block is None else as_zyx(block, name="block")
    leaf = safe_name(location)
    finish: tuple[Finish, ...] = notes_in_sources(volume, location) if note_source else ()
    if not target.store.of_chunks:
        if mip or levels:
            raise ParameterError(f"{target.name} files have no mips; got mip={mip}, levels={levels}")
        if (bounds is not None and not isinstance(bounds, BoundingBox)) or complete or upload_log:
            raise ParameterError(f"{target.name} files are whole: bounds, complete and upload_log are for layers")
        gathered = FileSink(location, spec, target.name, asked, dataset, overwrite=overwrite)
        files = file_stages(leaf, volume, gathered, block=work)
        stages = (*volume.expression.stages, *files)
        home = f"{location}.{volume.box}.daskflow/" if target.store.sections else f"{location}.daskflow/"
        written = WriteProvenance(target.store.provenance_url(location), mip, 1)
        return Job(stages, home, name=f"save-{leaf}", finish=(written, *finish), notes=notes)
    target.store.check_layout(spec, asked)
    asked = _keeping(volume, asked, location, target.name, mip)
    spec = spec.replace(box=level_box(volume, bounds, location, target.name, mip), chunk_origin=None)
    part = spec.box != volume.box
    named = [location, *([f"mip{mip}"] if mip else []), *([str(volume.box)] if part else []), "daskflow/"]
    directory = ".".join(named)
    budget = parse_bytes(memory)
    sharding = budget if shard == "auto" else None
    step = as_zyx(factor, name="factor")
    base = LayerSink(
        location,
        spec,
        mip,
        target.name,
        _completed(asked, spec, location, target.name, mip, sharding),
        drop=spec.held(background) if delete_background else None,
        overwrite=overwrite,
        complete=complete,
        finer=finer_levels(volume, spec, step, location, target.name, mip),
    )
    assert base.unit is not None
    if part:
        notes = (*notes, f"{volume.box} is written of the level {spec.box} (z0-z1_y0-y1_x0-x1)")
    count = levels if levels != "auto" else _levels_to_fit(base, step)
    written = WriteProvenance(target.store.provenance_url(location), mip, 1 + count)
    finish = (written, *finish)
    if upload_log:
        from daskflow.layers.log import UploadLog

        finish = (*finish, UploadLog(location, mip, volume.box, f"save-{leaf}"))
    warnings = assumed_voxel_size(volume) if target.store.needs_voxel_size else ()
    saved = None if part else Volume(Saved(volume.spec.replace(layer_type=spec.layer_type), volume.node, base))
    said: dict[str, Any] = {"name": f"save-{leaf}", "notes": notes, "warnings": warnings, "volume": saved}
    if not count:
        if not complete:
            refuse_shared(
                volume.box,
                base.unit,
                spec.box,
                "write that, choose other chunks, or let chunks keep what else they hold: save --complete",
            )
        finish = (*(() if part else (NoteBackground((base,)),)), *finish)
        copied = transcoding_stage(f"save-{leaf}", volume, base, work)
        alone = copied or evaluate_stage(f"save-{leaf}", volume, base, block=work)
        if copied is not None:
            said["notes"] = (
                *notes,
                f"chunks become {base.layout.encoding} without a loss, and can become what they are",
            )
        return Job((*volume.expression.stages, alone), directory, finish=finish, **said)
    how = Downsampling(step, chosen_method(spec, method), sparse)
    how.check(spec.dtype)
    new = NewLevels(location, target.name, mip, count, how, asked, base.layout, sharding, base.drop, overwrite)
    sinks = new.sinks(spec)
    first, *others = passes(how, spec, sinks, memory=budget, base=base.unit)
    if part:
        z, y, x = map(math.lcm, base.unit, unit_of_all((first, *others)))
        refuse_shared(volume.box, (z, y, x), spec.box, "crop to that, or make the levels afterwards, with downsample")
    finish = (*(() if part else (NoteBackground((base, *sinks)),)), *finish)
    whole = evaluate_stage(f"save-{leaf}", volume, PyramidSink.of(base, first), block=work)
    stages = (*volume.expression.stages, *in_order((whole, *stages_after(first, others, volume.box if part else None))))
    return Job(stages, directory, finish=finish, **said)


def _levels_to_fit(base: LayerSink, factor: Zyx) -> int:
    """Return how many levels it takes until a chunk holds the volume along the axes that shrink."""
    size, chunk = base.spec.box.shape, base.layout.chunk
    assert chunk is not None
    small = all(f == 1 or n <= c for f, n, c in zip(factor, size, chunk, strict=True))
    return 0 if small else sensible_levels(size, chunk, factor)


def _stated(spec: VolumeSpec, location: str, format_name: str) -> tuple[VolumeSpec, tuple[str, ...]]:
    """Return what is saved, its kind stated, and what the plan says of that.

    What is written into a layer is what the layer says it holds; wide integers whose kind is unknown are labels.
    """
    if spec.layer_type is not None or spec.kind != "segmentation":
        return spec, ()
    kind: LayerType | None = "segmentation"
    why = f"as integers of {8 * spec.dtype.itemsize} bits are unless their layer type is stated"
    if format_named(format_name).store.of_chunks:
        there = find_store(location, format=format_name)
        if there is not None:
            kind, why = there.spec.layer_type, "as the layer that is there says"
    return spec.replace(layer_type=kind), (f"{spec.dtype} is saved as {kind or 'voxels of unknown kind'}, {why}",)


def _refuse_own_source(volume: Volume, location: str, mip: int) -> None:
    """Refuse to write where the volume is read from: a block would read what its neighbour has overwritten."""
    place = kvstore.resolved(location)
    for node in sources(volume):
        if (kvstore.resolved(node.store.url), node.store.mip) == (place, mip):
            raise ParameterError(
                f"{location} is what the volume is computed from; write to another layer or another mip"
            )


def _keeping(volume: Volume, asked: Layout, location: str, format_name: str, mip: int) -> Layout:
    """Return what is asked, with the encoding of the layer of this format that is copied, if it loses nothing."""
    source = volume.stored
    if source is None or source.opened is None or source.opened.format != format_name:
        return asked
    kept = source.options
    if source.lossy or kept == Layout() or (asked.encoding, asked.quality, asked.effort) != (None, None, None):
        return asked
    there = find_store(location, mip=mip, format=format_name) or source
    if there.options != kept:
        return asked
    return dataclasses.replace(asked, encoding=kept.encoding, quality=kept.quality, effort=kept.effort)


def _completed(
    layout: Layout, spec: VolumeSpec, location: str, format_name: str, mip: int, shard_memory: int | None
) -> Layout:
    """Return the layout with the chunk and shard that an existing layer, or else the source, has."""
    chunk, shard = layout.chunk, layout.shard
    if chunk is None:
        there = find_store(location, mip=mip, format=format_name)
        if there is None:
            chunk = _within((spec.chunk or _CHUNK) if shard is None else _CHUNK, spec.box)
        else:
            chunk, shard = there.spec.chunk, shard or there.spec.shard
    assert chunk is not None
    if shard_memory is not None:
        shard = default_shard(spec.box.shape, chunk, spec.dtype.itemsize * (spec.channels or 1), memory=shard_memory)
    if shard is not None:
        shard = format_named(format_name).store.effective_shard(spec.box.shape, chunk, shard)
    return dataclasses.replace(layout, chunk=chunk, shard=shard)


def _within(block: Zyx, box: BoundingBox) -> Zyx:
    z, y, x = (max(1, min(b, s)) for b, s in zip(block, box.shape, strict=True))
    return z, y, x


@dataclass(frozen=True)
class PyramidSink(Sink):
    """Where the blocks of a volume go together with their levels."""

    verifiable = True
    base: LayerSink
    levels: Pass

    @classmethod
    def of(cls, base: LayerSink, levels: Pass) -> PyramidSink:
        """Return the sink for a layer and the pass that makes levels of it."""
        return cls(base.url, base.spec, base, levels)

    @property
    def unit(self) -> Zyx | None:
        assert self.base.unit is not None
        z, y, x = map(math.lcm, self.base.unit, self.levels.unit)
        return z, y, x

    @property
    def origin(self) -> Zyx:
        return self.base.origin

    @property
    def through(self) -> tuple[Storing, ...]:
        return self.base, self.levels

    def compute(self, box: BoundingBox, arrays: list[Array]) -> tuple[Array, Levels]:
        array = self.base.compute(box, arrays)
        return array, self.levels.run(box, Carried(array))

    def write(self, box: BoundingBox, outputs: tuple[Array, Levels]) -> BlockResult:
        array, made = outputs
        result = self.base.write(box, array)
        self.levels.write(box, made)
        return result

    def further(self, box: BoundingBox) -> Estimate:
        levels = self.levels.estimate(box)
        return dataclasses.replace(levels, bytes_written=levels.bytes_written + self.spec.nbytes_of(box))

    def describe(self) -> dict[str, Any]:
        return {**self.base.describe(), "levels": self.levels.describe()}


def level_box(
    volume: Volume, bounds: Sequence[int] | BoundingBox | str | None, location: str, format_name: str, mip: int
) -> BoundingBox:
    """Return the box of the level that a volume is written into.

    Bounds are start and stop (zyx), "source", or None for those of a level that is there and holds the volume, or else
    the volume's; a box is what a level gets where none is there.
    """
    if bounds is None or isinstance(bounds, BoundingBox):
        there = find_store(location, mip=mip, format=format_name)
        return there.spec.box if there is not None and volume.box in there.spec.box else bounds or volume.box
    if isinstance(bounds, str):
        boxes = {node.store.spec.box for node in sources(volume) if node.store.spec.ratio(volume.spec) == (1, 1, 1)}
        if bounds != "source" or len(boxes) != 1:
            found = ", ".join(map(str, sorted(boxes))) or "none"
            raise ParameterError(
                f"bounds {bounds!r} is not clear: sources with the volume's voxel size have the boxes {found}"
                " (z0-z1_y0-y1_x0-x1); give start and stop as six numbers"
            )
        (box,) = boxes
    elif len(bounds) in (3, 6):
        box = BoundingBox(as_zyx(bounds[:-3] or (0, 0, 0), name="bounds"), as_zyx(bounds[-3:], name="bounds"))
    else:
        raise ParameterError(f"bounds {tuple(bounds)} are {len(bounds)} numbers; give start and stop, z y x each")
    if volume.box not in box:
        raise BoundsError(f"the volume {volume.box} reaches outside the bounds {box} (z0-z1_y0-y1_x0-x1)")
    return box


def finer_levels(
    volume: Volume, level: VolumeSpec, factor: Zyx, location: str, format_name: str, mip: int
) -> tuple[VolumeSpec, ...]:
    """Return the levels that a new layer gets, without chunks, so that the first one written has its number.

    They are as in the layer that the volume is read from at that mip, else by `factor` finer from level to level. A
    layer that is there gets none.
    """
    levelled = format_named(format_name).store.levelled
    if not mip or not levelled or find_store(location, format=format_name) is not None:
        return ()
    alike = [
        node.store for node in sources(volume) if node.store.mip == mip and node.store.spec.spacing == level.spacing
    ]
    found = []
    for number in range(mip):
        by = [float(f ** (mip - number)) for f in factor]
        if alike:
            by = list(level.ratio(alike[0].mips[number]))
        whole = [max(1, round(b)) for b in by]
        box = level.box.refine(whole)
        if alike and level.box in alike[0].spec.box:
            box = box.clip(alike[0].mips[number].box)
        size = {
            "coarseness" if level.voxel_size is None else "voxel_size": [
                v / b for v, b in zip(level.spacing, by, strict=True)
            ]
        }
        found.append(level.replace(box=box, chunk=None, shard=None, chunk_origin=None, **size))
    return tuple(found)


def refuse_shared(box: BoundingBox, unit: Zyx, level: BoundingBox, advice: str) -> None:
    """Raise unless a volume is whole units of the level that it goes into, naming the nearest boxes that are."""
    nearest = box.align(unit, level.start).clip(level)
    if nearest == box:
        return
    start = [o - (o - a) // u * u for a, o, u in zip(box.start, level.start, unit, strict=True)]
    stop = [
        b if b == end else o + (b - o) // u * u
        for b, end, o, u in zip(box.stop, level.stop, level.start, unit, strict=True)
    ]
    fits = all(a < b for a, b in zip(start, stop, strict=True))
    inner = f" or, inside, {BoundingBox((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))}" if fits else ""
    raise AlignmentError(
        f"box {box} (z0-z1_y0-y1_x0-x1) fills chunks or shards of {unit} voxels (zyx) of {level} only in part; nearest"
        f" is {nearest}{inner}; {advice}"
    )
