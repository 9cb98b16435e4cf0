"""Sections in another order."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.stores import kvstore
from daskflow.volume import Volume, operator
from daskflow.volume.node import Gathered


@operator()
def reorder_sections(volume: Volume, *, mapping: str | os.PathLike[str] | Mapping[int, int]) -> Volume:
    """Put the z sections of a volume in another order.

    Sections that the mapping does not name stay where they are. A block reads only the sections that go into it.

    Args:
        volume: the volume.
        mapping: path or URL of a JSON file ``{"old z": new z, ...}``; in Python also a mapping of integers.

    Returns:
        The same sections, each at its new z.

    Raises:
        ParameterError: the mapping would lose a section: it puts two at one z, or one where another stays; or it names
            a z outside the volume, or is not a mapping of integers.
    """
    moves = {old: new for old, new in _moves(mapping).items() if old != new}
    first, last = volume.box.start[0], volume.box.stop[0] - 1
    outside = sorted(z for z in {*moves, *moves.values()} if not first <= z <= last)
    if outside:
        raise ParameterError(f"section {outside[0]} is outside the volume, which has z {first} to {last}")
    sources: dict[int, int] = {}
    for old, new in moves.items():
        if new in sources:
            raise ParameterError(f"sections {sources[new]} and {old} would both become {new}, and one of them be lost")
        sources[new] = old
    lost = sorted(set(sources) - set(moves))
    if lost:
        raise ParameterError(
            f"section {sources[lost[0]]} would become {lost[0]}, and section {lost[0]} be lost: say where it goes"
        )
    return Volume(Reordered(volume.spec, volume.node, sources), block=volume.block)


@dataclass(frozen=True, eq=False)
class Reordered(Gathered):
    """The sections of a volume in another order: `sources` has those that move, by their new z."""

    sources: Mapping[int, int]

    def parts(self, box: BoundingBox) -> Sequence[tuple[BoundingBox, BoundingBox]]:
        if box.empty:
            return []
        runs: list[list[int]] = []
        for new in range(box.start[0], box.stop[0]):
            old = self.sources.get(new, new)
            if runs and runs[-1][0] + new - runs[-1][1] == old:
                runs[-1][2] = new + 1
            else:
                runs.append([old, new, new + 1])
        (_, *low), (_, *high) = box.start, box.stop
        return [
            (
                BoundingBox((old, low[0], low[1]), (old + stop - new, high[0], high[1])),
                BoundingBox((new, low[0], low[1]), (stop, high[0], high[1])),
            )
            for old, new, stop in runs
        ]

    def describe(self) -> dict[str, Any]:
        return {"sections": sorted([new, old] for new, old in self.sources.items())}


def _moves(mapping: str | os.PathLike[str] | Mapping[int, int]) -> dict[int, int]:
    if not isinstance(mapping, Mapping):
        return _numbers(_loaded(os.fspath(mapping)), f"{mapping}")
    return _numbers(mapping, "the mapping")


def _loaded(path: str) -> Any:
    data = kvstore.read_bytes(path)
    if data is None:
        raise kvstore.missing(path)
    try:
        return json.loads(data)
    except ValueError as error:
        raise ParameterError(f"{kvstore.redact(path)} is not JSON: {error}") from error


def _numbers(mapping: Any, where: str) -> dict[int, int]:
    wanted = f'{where} must be of integers, like {{"10": 11, "11": 10}}'
    if not isinstance(mapping, Mapping):
        raise ParameterError(f"{wanted}; it is a {type(mapping).__name__}")
    moves: dict[int, int] = {}
    for old, new in mapping.items():
        try:
            z = int(old)
        except (TypeError, ValueError):
            raise ParameterError(f"{wanted}; got the section {old!r}") from None
        if isinstance(new, bool) or not isinstance(new, int):
            raise ParameterError(f"{wanted}; got {old!r}: {new!r}")
        if z in moves:
            raise ParameterError(f"{where} names section {z} twice")
        moves[z] = new
    return moves
