"""Whole skeletons of the fragments that tasks have written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.jobs import Job
from daskflow.operators.objects.skeletonize.pieces import Piece, unique_edges
from daskflow.operators.objects.skeletonize.prune import prune
from daskflow.stores import kvstore
from daskflow.stores.objects.files import require_file, write_file
from daskflow.stores.objects.layer_objects import load_object_info
from daskflow.stores.objects.skeleton_files import Skeleton, decode_skeleton, encode_skeleton, skeleton_info
from daskflow.volume import BlockResult, Flag, Stage, Task, numbered, operator
from daskflow.volume.stage import Output

_SHORTEST, _TICK = 1000.0, 3500.0  # nm


@operator()
def aggregate_skeleton_fragments(
    *,
    fragments_path: Annotated[str, Flag("-f")],
    output_path: Annotated[str | None, Flag("-o")] = None,
    prefix: Annotated[str | None, Flag("-p")] = None,
    shortest: float = _SHORTEST,
    tick_length: float = _TICK,
) -> Job:
    """Join the skeleton fragments of each label, where their vertices meet.

    Fragments are files LABEL:BOX, as chunkflow and igneous write them. Loops, short components and short branches are
    cut. `skeletonize` makes whole skeletons in one job, without this.

    Args:
        fragments_path: path or URL of the directory of fragments.
        output_path: path or URL of the directory for skeletons; by default that of the fragments.
        prefix: only labels that begin with these digits.
        shortest: components with less cable (nm) are left out.
        tick_length: terminal branches shorter than this (nm) are cut.

    Returns:
        The job; its report counts skeletons.

    Raises:
        ParameterError: a prefix of other characters than digits.
    """
    if prefix is not None and not (prefix.isdecimal() and prefix[0] != "0"):
        raise ParameterError(f"prefix {prefix!r} must be the first digits of labels")
    source = kvstore.normalise(fragments_path)
    output = source if output_path is None else kvstore.normalise(output_path)
    numbers = tuple(range(1, 10)) if prefix is None else (int(prefix),)
    task = JoinFragments(source, output, numbers, shortest, tick_length)
    stage = Stage("join-skeleton-fragments", numbered(len(numbers)), task, numbered=True)
    kind = "skeletons" if prefix is None else f"skeletons of {prefix}..."
    home = f"{output}-joined{prefix or ''}.daskflow/"
    return Job((stage,), home, name="aggregate skeleton fragments", makes=(Output(output, kind),))


@dataclass(frozen=True)
class JoinFragments(Task):
    """Join the fragments of the labels that begin with a number."""

    source: str
    output: str
    numbers: tuple[int, ...]
    shortest: float
    tick: float

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        number = self.numbers[box.start[0]]
        made, info = 0, self._info
        for label, names in _fragments_by_label(self.source, number).items():
            parts = [decode_skeleton(require_file(self.source, name), info) for name in names]
            skeleton = self._joined(parts)
            if len(skeleton.vertices):
                write_file(self.output, str(label), encode_skeleton(skeleton, info.get("vertex_attributes", ())))
                made += 1
        return BlockResult(empty=not made, counts={"skeletons": made})

    @property
    def _info(self) -> dict[str, Any]:
        return load_object_info(self.source) or skeleton_info()

    def _joined(self, parts: Sequence[Skeleton]) -> Skeleton:
        vertices = np.concatenate([part.vertices for part in parts])
        first = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
        edges = np.concatenate([part.edges + np.uint32(start) for part, start in zip(parts, first, strict=True)])
        places, rows, inverse = np.unique(vertices, axis=0, return_index=True, return_inverse=True)
        names = parts[0].attributes
        attributes = {name: np.concatenate([part.attributes[name] for part in parts])[rows] for name in names}
        joined = Piece(places, unique_edges(inverse.reshape(-1)[edges]), attributes)
        piece = prune(joined, (1, 1, 1), shortest=self.shortest, tick=self.tick)
        return Skeleton(np.asarray(piece.vertices, np.float32), piece.edges, piece.attributes)

    def check(self) -> None:
        transform = self._info.get("transform")
        if transform not in (None, skeleton_info()["transform"]):
            raise ParameterError(f"fragments are moved by {transform}, as their info says; they must be in nm")
        kvstore.check_writable(self.output)
        if not kvstore.exists(f"{self.output}/info"):
            kvstore.write_bytes(f"{self.output}/info", json.dumps(self._info).encode())

    def describe(self) -> dict[str, Any]:
        cut = [self.shortest, self.tick]
        return {"does": "JoinFragments", "source": self.source, "numbers": self.numbers, "cut": cut}


def _fragments_by_label(directory: str, prefix: int) -> dict[int, list[str]]:
    """Return the names of fragments of labels that begin so, in order."""
    labels: dict[int, list[str]] = {}
    for listed in kvstore.list_names(directory, str(prefix)):
        name = listed.removesuffix(".gz").removesuffix(".br")
        label, _, rest = name.partition(":")
        if rest and "/" not in name and label.isdecimal():
            labels.setdefault(int(label), []).append(name)
    return {label: sorted(set(names)) for label, names in sorted(labels.items())}
