"""How long a job of a batch system may run, and when its workers retire."""

from __future__ import annotations

import re

from daskflow.errors import ParameterError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SAID = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?)", re.IGNORECASE)
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_MARGIN = 600.0  # seconds, for a block that runs and for data to move


def parse_walltime(text: str | int, *, plain: int, pair: int) -> int:
    """Return the seconds of ``"2h"``, ``"1:30:00"``, ``"1-12:00:00"`` or a number as batch systems write them.

    Args:
        text: the time.
        plain: seconds that a number alone counts.
        pair: seconds that the first of two numbers counts: 3600 for hours and minutes, 60 for minutes and seconds.

    Raises:
        ParameterError: it is none of these, or no time at all.
    """
    said = _SAID.fullmatch(str(text).strip())
    clock = _CLOCK.fullmatch(str(text).strip())
    if said:
        seconds = round(float(said[1]) * _UNITS[said[2][0].lower()])
    elif clock:
        seconds = _clock(*(None if part is None else int(part) for part in clock.groups()), plain=plain, pair=pair)
    else:
        seconds = 0
    if not seconds:
        raise ParameterError(f"walltime {text!r} must be a time like '2h', '90min' or '1:30:00'")
    return seconds


def _clock(days: int | None, first: int | None, second: int | None, third: int | None, *, plain: int, pair: int) -> int:
    assert first is not None
    if days is not None:
        return days * 86400 + first * 3600 + (second or 0) * 60 + (third or 0)
    if second is None:
        return first * plain
    if third is None:
        return first * pair + second * pair // 60
    return first * 3600 + second * 60 + third


def lifetime(walltime: float) -> tuple[int, int]:
    """Return after how many seconds a worker retires, and by how many that varies, so that not all do so at once.

    The last retires at half of the margin before its job would be killed.
    """
    margin = min(walltime / 4, _MARGIN)
    return round(walltime - margin), round(margin / 2)
