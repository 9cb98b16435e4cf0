"""Which files of a numbered sequence are not there."""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

_NUMBER = re.compile(r"(\d+)")


def with_skipped(files: Sequence[Path]) -> list[Path]:
    """Return the files and, in their places, those whose numbers are skipped: ``z3.tif`` between z2 and z4.

    That takes names which differ in one number only; its step is the largest that meets all of them, so that every
    tenth section is no gap. Numbers that skip more than there are files, such as dates, are no sequence.
    """
    names = [_NUMBER.split(file.name) for file in files]
    at = _place(names)
    if at is None:
        _warn_of_a_grid(files, names)
        return list(files)
    numbers = [int(parts[at]) for parts in names]
    step = math.gcd(*(b - a for a, b in itertools.pairwise(numbers)))
    every = range(numbers[0], numbers[-1] + 1, step)
    if len(every) > 2 * len(files):
        logger.warning(
            "%s: the numbers %d to %d in the names of %d files are taken for no sequence, since most would be missing",
            files[0].parent,
            numbers[0],
            numbers[-1],
            len(files),
        )
        return list(files)
    known = dict(zip(numbers, files, strict=True))
    head, width, tail = "".join(names[0][:at]), len(names[0][at]), "".join(names[0][at + 1 :])
    return [known.get(number) or files[0].with_name(f"{head}{number:0{width}d}{tail}") for number in every]


def _warn_of_a_grid(files: Sequence[Path], names: Sequence[Sequence[str]]) -> None:
    """Say in the log when names count two numbers, each with each: sections and channels, or sections of wafers."""
    if len({len(parts) for parts in names}) != 1:
        return
    counts = [len(set(column)) for column in zip(*names, strict=True)]
    if sum(count > 1 for count in counts) > 1 and math.prod(counts) == len(names):
        logger.warning(
            "%s: the names of %d files count %s; all are read as sections, in the order %s, ...: if a number counts"
            " channels or tiles, keep the files of one in a directory of their own",
            files[0].parent,
            len(files),
            " x ".join(str(count) for count in counts if count > 1),
            ", ".join(file.name for file in files[:3]),
        )


def _place(names: Sequence[Sequence[str]]) -> int | None:
    """Return which part of names, split at their numbers, is the number that counts up; None without one."""
    if len(names) < 2 or len({len(parts) for parts in names}) != 1:
        return None
    differing = [i for i, column in enumerate(zip(*names, strict=True)) if len(set(column)) > 1]
    if len(differing) != 1 or differing[0] % 2 == 0:
        return None
    numbers = [int(parts[differing[0]]) for parts in names]
    return differing[0] if all(a < b for a, b in itertools.pairwise(numbers)) else None
