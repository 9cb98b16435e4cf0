"""What goes into a job and what comes out of it: volumes with their dtype, kind and voxel size."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from daskflow.geometry import VolumeSpec
from daskflow.jobs.sinks import FileSink, LayerSink
from daskflow.stores import Store, kvstore
from daskflow.volume import Expression, Stage
from daskflow.volume.node import Source, Stored, Waiting

_LONGEST = 36


def flows(stages: Sequence[Stage]) -> tuple[str, ...]:
    """Return a line for each volume that stages read, then for each that they write, of at most 80 characters or so."""
    found = [one for stage in stages for one in _found(stage.task)]
    inputs = [_line("in", *_input(one)) for one in found if isinstance(one, Store | Source)]
    outputs = [
        _line("out", _named(one.url, getattr(one, "mip", 0)), one.spec)
        for one in found
        if isinstance(one, LayerSink | FileSink) and "://" in one.url  # scratch data have no place yet
    ]
    return tuple(dict.fromkeys(inputs + outputs))


def inside(value: object, *kinds: type[Any]) -> Iterator[Any]:
    """Yield what is of some kinds among tasks and the dataclasses that they are made of."""
    if isinstance(value, kinds):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from inside(one, *kinds)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from inside(getattr(value, field.name), *kinds)


def _found(task: object) -> Iterator[Store | Source | LayerSink | FileSink]:
    """Yield the sources and the sinks that a task holds; no scratch data."""
    for one in inside(task, Store, LayerSink, FileSink, Expression):
        if isinstance(one, Expression):
            yield from (node for node in one.nodes if isinstance(node, Source) and not isinstance(node, Waiting))
        else:
            yield one


def _input(source: Store | Source) -> tuple[str, VolumeSpec]:
    store = source.store if isinstance(source, Stored) else source
    if isinstance(store, Store) and store.opened is not None:
        return _named(store.url, store.mip), store.spec
    return "array", store.spec


def _named(url: str, mip: int) -> str:
    name = kvstore.redact(url).rstrip("/")
    name = name if len(name) <= _LONGEST else f"...{name[3 - _LONGEST :]}"
    return f"{name} mip {mip}" if mip else name


def _line(way: str, name: str, spec: VolumeSpec) -> str:
    channels = "" if spec.channels is None else f" x {spec.channels}"
    kind = "" if spec.layer_type is None else f" {spec.layer_type}"
    return f"{way:<3} {name}: {spec.dtype}{channels}{kind}, {spec.size_text}"
