"""Neuroglancer precomputed volumes, sharded and not, on any URL."""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from daskflow.errors import MissingChunkError, ParameterError, StoreError, StoreNotFoundError
from daskflow.geometry import BoundingBox, VolumeSpec, Zyx
from daskflow.stores import kvstore, precomputed_info, states
from daskflow.stores.answers import translated
from daskflow.stores.base import Array, Layout, Opening, Store, StoredObject
from daskflow.stores.counting import count
from daskflow.stores.encoded_chunks import (
    ChunkFiles,
    ChunkObjects,
    ChunkShards,
    ChunkSource,
    EncodedChunks,
    has_other_names,
    peek_compression,
)
from daskflow.stores.encodings import ENCODINGS, Encoding
from daskflow.stores.precomputed_chunks import (
    chunks_of,
    missing_chunks,
    precomputed_objects,
    precomputed_units,
    read_box,
    shared_view,
    write_box,
    zero_chunks,
    zipped,
)
from daskflow.stores.refusals import check_mip
from daskflow.stores.sharding import shard_shape, sharding_spec

_STATED = {"axes", "voxel_size", "voxel_offset", "layer_type", "channel_names"}


class PrecomputedStore(Store):
    """One mip of a precomputed volume.

    The layer's Fortran-ordered xyzc is C-ordered czyx, so voxels are read and written through a transposed view.
    """

    of_chunks = True
    written = True
    needs_voxel_size = True
    encloses = True
    forgets = True

    def __init__(
        self,
        url: str,
        mips: Sequence[VolumeSpec],
        *,
        mip: int,
        fill_missing: bool,
        metadata: str,
        compression: str | None,
    ) -> None:
        super().__init__(url, mips, mip=mip, fill_missing=fill_missing)
        self._metadata = metadata
        self._compression = compression
        self._objects: ChunkObjects | None = None

    @classmethod
    def from_info(cls, url: str, info: dict[str, Any], *, mip: int = 0, fill_missing: bool = False) -> PrecomputedStore:
        """Return the store of level `mip` of a layer whose ``info`` was read."""
        mips = precomputed_info.specs_of(info, url)
        check_mip(mip, len(mips), kvstore.redact(url))
        metadata = precomputed_info.driver_metadata(info, mip, url)
        compression = info.get("daskflow", {}).get("compression", {}).get(metadata["scale_metadata"]["key"])
        text = json.dumps(metadata, sort_keys=True)
        store = cls(url, mips, mip=mip, fill_missing=fill_missing, metadata=text, compression=compression)
        background = info.get("daskflow", {}).get("background", {}).get(metadata["scale_metadata"]["key"])
        if background is not None:
            try:
                mips[mip].held(background)
            except (ParameterError, ValueError, OverflowError) as error:
                raise StoreError(
                    f"{kvstore.redact(url)}/info states {background} as the background of mip {mip}, which"
                    f" {mips[mip].dtype} cannot hold; correct it there"
                ) from error
        store.background = background
        encodings = [ENCODINGS.get(scale["encoding"].lower()) for scale in info["scales"]]
        store.shown = all(encoding is not None and encoding.shown for encoding in encodings)
        store.sources = dict.fromkeys(_STATED if mips[mip].layer_type else _STATED - {"layer_type"}, "info")
        return store

    @classmethod
    def open(cls, url: str, opening: Opening) -> Store:
        stated = {name: getattr(opening, name) for name in ("dataset", "voxel_size", "voxel_offset", "axes")}
        for name, value in stated.items():
            if value is not None:
                raise ParameterError(
                    f"{name} {value!r} for {kvstore.redact(url)}: a precomputed layer states its own; drop it"
                )
        if opening.time is not None:
            raise ParameterError(f"{kvstore.redact(url)} has no time axis; drop --time {opening.time}")
        store = cls.from_info(url, precomputed_info.load_info(url), mip=opening.mip, fill_missing=opening.fill_missing)
        if opening.layer_type is not None:
            store.mips = tuple(spec.replace(layer_type=opening.layer_type) for spec in store.mips)
            store.sources = {**store.sources, "layer_type": "option --layer-type"}
        return store

    @classmethod
    def create(cls, url: str, spec: VolumeSpec, mip: int, layout: Layout) -> Store:
        """Create one mip of a precomputed layer, or open it when it is there and agrees."""
        kvstore.refuse_http(url)
        try:
            precomputed_info.edit_info(url, lambda info: precomputed_info.add_scale(info, spec, mip, layout, url))
        except StoreNotFoundError:
            precomputed_info.save_info(url, precomputed_info.add_scale(None, spec, mip, layout, url))
        store = cls.from_info(url, precomputed_info.load_info(url), mip=mip)
        store.check_units()
        return store

    @classmethod
    def remains(cls, url: str) -> list[str]:
        """Return, a line each, where the chunks of every level lie, for a layer whose info makes no volume."""
        lines = []
        with contextlib.suppress(StoreError, AttributeError, KeyError, TypeError):
            for mip, scale in enumerate(precomputed_info.load_info(url)["scales"]):
                boxes = [one.box for one in precomputed_objects(kvstore.join(url, scale["key"])) if one.box is not None]
                if boxes:
                    bounds = functools.reduce(BoundingBox.union, boxes)
                    lines.append(f"mip {mip} has {len(boxes):,} chunks in {bounds} (z0-z1_y0-y1_x0-x1)")
        return lines

    @classmethod
    def recognises(cls, url: str) -> bool:
        """Return whether a volume's ``info`` is at `url`."""
        return kvstore.exists(precomputed_info.info_url(url))

    @property
    def compression(self) -> str | None:
        """How chunk files with CloudVolume's names are compressed, gzip or br; None for plain names."""
        directory = self._directory
        if self._compression is None and directory is not None and self.spec.shard is None:
            self._compression = peek_compression(directory)
        return None if self._compression == "none" else self._compression

    @property
    def layout(self) -> Layout:
        scale = self._scale
        if scale["sharding"] is None:
            compression = self.compression or "none"
        else:
            compression = "gzip" if self._zipped else "none"
        return replace(self.options, chunk=self.spec.chunk, shard=self.spec.shard, compression=compression)

    @property
    def options(self) -> Layout:
        return self.encoding.layout(self._scale)

    @property
    def lossy(self) -> bool:
        return not self.encoding.written or self.encoding.lossy(self.options.quality)

    @property
    def encoding(self) -> Encoding:
        """How chunks are encoded."""
        return ENCODINGS[self._scale["encoding"]]

    @property
    def directory(self) -> str:
        return kvstore.join(self.url, self._scale["key"])

    @functools.cached_property
    def _scale(self) -> dict[str, Any]:
        scale: dict[str, Any] = json.loads(self._metadata)["scale_metadata"]
        return scale

    @property
    def _directory(self) -> Path | None:
        """Where the chunk files of a local layer are."""
        path = kvstore.local_path(self.url)
        return None if path is None else path / self._scale["key"]

    @property
    def names_tell(self) -> bool:
        return self.spec.shard is None

    def _contents(self) -> Iterator[StoredObject]:
        return precomputed_objects(self.directory)

    def twins(self) -> Iterator[BoundingBox]:
        if self._directory is None or self.spec.shard is not None:
            return
        seen: set[BoundingBox | None] = set()
        for one in self._contents():
            if one.box is not None and one.box in seen:
                yield one.box
            seen.add(one.box)

    def objects(self) -> dict[str, str]:
        return precomputed_info.named_objects(self.url)

    def object_sets(self) -> list[tuple[str, str]]:
        from daskflow.stores.objects.layer_objects import object_sets

        named = list(self.objects().items())
        return [*named, *(one for one in sorted(object_sets(self.url)) if one not in named)]

    def corrected(
        self,
        specs: Sequence[VolumeSpec],
        *,
        moved: bool,  # noqa: ARG002
        objects: Mapping[str, str],
    ) -> dict[str, bytes]:
        info = {**precomputed_info.corrected_info(precomputed_info.load_info(self.url), specs, self.url), **objects}
        return {precomputed_info.info_url(self.url): json.dumps(info, indent=2).encode()}

    def forget(self, mips: Sequence[int], objects: Sequence[str]) -> None:
        precomputed_info.edit_info(self.url, lambda info: precomputed_info.without(info, mips, objects))

    @classmethod
    def check_layout(cls, spec: VolumeSpec, layout: Layout) -> None:
        precomputed_info.check_layout(spec, layout)

    @classmethod
    def effective_shard(cls, size: Zyx, chunk: Zyx, shard: Zyx) -> Zyx:
        return shard_shape(size, chunk, sharding_spec(size, chunk, shard))

    @property
    def chunks(self) -> EncodedChunks:
        """The chunks as bytes, for what tensorstore's driver does not do."""
        source: ChunkSource
        if self.spec.shard is not None:
            source = ChunkShards(self.url, self.spec, self._metadata, self._most)
        elif self._directory is not None:
            source = ChunkFiles(self._directory, self._most, self.compression or "none")
        else:
            self._objects = self._objects or ChunkObjects(self.directory, self._most)
            source = self._objects
        return EncodedChunks(source, self.spec, self._metadata)

    @property
    def _most(self) -> int:
        """Bytes that no encoded chunk exceeds: encodings add little to noise."""
        assert self.spec.chunk is not None
        return 2 * math.prod(self.spec.chunk) * self.spec.dtype.itemsize * (self.spec.channels or 1) + 2**16

    @property
    def _driven(self) -> bool:
        """Whether tensorstore's driver knows the encoding, knows how chunks are named, and is not the slower way."""
        if self._objects is not None and self._objects.renamed:
            return False
        raw_files = self.encoding.name == "raw" and self.spec.shard is None and self._directory is not None
        return self.encoding.driven and self.compression is None and not raw_files

    @functools.cached_property
    def _zipped(self) -> bool:
        """Whether shards hold gzip, which the driver would unpack whatever its size, and pack at its slowest level."""
        return zipped(self._metadata)

    def _read(self, box: BoundingBox) -> Array:
        if not self._driven or self._zipped or self._has_other_names(box):
            return self.chunks.read(box, fill_missing=self.fill_missing, background=self.background)
        try:
            with translated(self.url, f"read {box} of mip {self.mip} of"):
                array = read_box(self._view, self.spec, box, self.url)
                if self.spec.shard is not None:
                    self._account_for_missing(box, array)
                return array
        except MissingChunkError:
            return self.chunks.read(box, fill_missing=self.fill_missing, background=self.background)

    def _has_other_names(self, box: BoundingBox) -> bool:
        """Return whether a local chunk that a box reaches into is also, or only, there under a name of CloudVolume."""
        directory = None if self.spec.shard is not None else self._directory
        return directory is not None and has_other_names(directory, chunks_of(self.spec, box))

    def _account_for_missing(self, box: BoundingBox, array: Array) -> None:
        """Raise for, fill or count the chunks of shards that read as zeros because they were never written."""
        zeros = zero_chunks(self.spec, box, array)
        missing = missing_chunks(self.url, self._metadata, self.spec, zeros) if zeros else []
        if self.background is not None:
            for piece in missing:
                array[(..., *piece.slices(box))] = self.background
            return
        if missing and not self.fill_missing:
            raise MissingChunkError(
                f"chunk {missing[0]} (z0-z1_y0-y1_x0-x1) is in no shard of mip {self.mip} of {kvstore.redact(self.url)}"
            )
        count("missing_chunks", len(missing))

    def _write(self, box: BoundingBox, array: Array) -> None:
        kvstore.refuse_http(self.url)
        if not self._driven or self._zipped or (self.spec.shard is not None and zero_chunks(self.spec, box, array)):
            self.chunks.write(box, array)
            return
        with translated(self.url, f"write {box} of mip {self.mip} of"):
            write_box(self._view, self.spec, box, array, self.url)

    def _write_dropping(self, box: BoundingBox, array: Array, drop: float) -> None:
        self.chunks.write(box, array, drop=drop)

    def stored_chunks(self, box: BoundingBox) -> Iterator[BoundingBox]:
        return precomputed_units(self.directory, self.spec, self._scale["sharding"], box)

    def note_background(self, value: float) -> None:
        def noted(info: dict[str, Any]) -> dict[str, Any]:
            extra = info.get("daskflow", {})
            return {
                **info,
                "daskflow": {**extra, "background": {**extra.get("background", {}), self._scale["key"]: value}},
            }

        precomputed_info.edit_info(self.url, noted)
        self.background = value

    @property
    def _view(self) -> Any:
        return shared_view(self.url, self._metadata, self.spec)

    def check_units(self) -> None:
        """Make sure that the driver writes the shards that the spec promises."""
        metadata = json.loads(self._metadata)
        if not self.encoding.driven:
            options = self.encoding.keys
            kept = {key: value for key, value in metadata["scale_metadata"].items() if key not in options}
            metadata["scale_metadata"] = {**kept, "encoding": "raw"}
        unit = shared_view(self.url, json.dumps(metadata), self.spec).chunk_layout.write_chunk.shape[-3:]
        if tuple(unit) != self.spec.write_unit:
            raise StoreError(f"{self} would be written in units of {unit} zyx instead of {self.spec.write_unit}")

    def fingerprint(self) -> dict[str, Any]:
        """Return the location, the level, a hash of what the ``info`` says, and what changes when it is rewritten.

        A further mip changes nothing here: on a local disk the directory of the scale is looked at; elsewhere the
        ``info``, in which `create_precomputed` keeps how it looked before a mip was added.
        """
        key = json.loads(self._metadata)["scale_metadata"]["key"]
        written = {"provenance": states.provenance_state(self.provenance_url(self.url), self.mip)}
        directory = kvstore.local_path(self.url)
        if directory is not None:
            written["chunks"] = states.directory_state(directory / key)
        else:
            written["info"] = precomputed_info.info_state(self.url, key)
        return {
            "format": "precomputed",
            "url": kvstore.redact(self.url),
            "mip": self.mip,
            "metadata": states.digest(f"{self._metadata}{self.spec}"),
            "written": written,
        }

    def check_writable(self) -> None:
        kvstore.check_writable(self.url)
