"""What is asked of a cluster: its size, and options by name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from daskflow.config import parse_bytes
from daskflow.errors import ParameterError

SIZES = ("workers", "threads", "memory")

_THREAD_MEMORY = 4 * 10**9
_RANGE = re.compile(r"(\d+)(?::(\d+))?")
_GROUP = re.compile(r"[a-z][a-z0-9-]*")
_OWN = ("workers", "resources")  # which a group does not take over


@dataclass(frozen=True)
class Request:
    """What is asked of a cluster.

    Attributes:
        workers: the fewest and the most worker processes; None leaves it to the kind of cluster.
        threads: threads per worker.
        memory: limit of each worker, in bytes.
        options: what else was said, by names of the kind of cluster.
    """

    workers: tuple[int, int] | None = None
    threads: int | None = None
    memory: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Request:
        """Read sizes as people write them out of all that was said; None says nothing.

        Raises:
            ParameterError: a size below 1, or one that cannot be read.
        """
        left = {name.replace("-", "_"): value for name, value in options.items() if value is not None}
        workers, threads, memory = (left.pop(name, None) for name in SIZES)
        return cls(
            None if workers is None else _range(workers),
            None if threads is None else _positive("threads", threads),
            None if memory is None else parse_bytes(memory),
            left,
        )

    @property
    def said(self) -> tuple[str, ...]:
        """Names of what was said."""
        return (*(name for name in SIZES if getattr(self, name) is not None), *self.options)

    def groups(self) -> dict[str, Request]:
        """Return what is asked of each group of workers by name: "" is the first, others are those of `groups`.

        They take over what is said beside `groups`, except the number of workers and their resources.

        Raises:
            ParameterError: names or options of groups that cannot be.
        """
        options = {name: value for name, value in self.options.items() if name != "groups"}
        found = {"": replace(self, options=options)}
        shared = {"threads": self.threads, "memory": self.memory, **options}
        said = self.options.get("groups") or {}
        if not isinstance(said, Mapping) or not all(isinstance(own, Mapping) for own in said.values()):
            raise ParameterError(
                f"groups {said!r} must have options by name, e.g. {{gpu: {{workers: 0:4, resources: {{GPU: 1}}}}}}"
            )
        for name, own in said.items():
            if not _GROUP.fullmatch(name):
                raise ParameterError(f"group {name!r} must be named by small letters, digits and -, e.g. gpu")
            own = {option.replace("-", "_"): value for option, value in own.items()}
            workers = _range(own.pop("workers", 1), fewest=0)
            both = {**{option: value for option, value in shared.items() if option not in _OWN}, **own}
            found[name] = replace(Request.of(both), workers=workers)
        return found

    def memory_of(self, threads: int) -> int:
        """Return the bytes of a worker of so many threads, where machines of others run it."""
        return self.memory or _THREAD_MEMORY * threads

    def fixed_workers(self, kind: str) -> int | None:
        """Return the number of workers where it cannot vary.

        Raises:
            ParameterError: a range was said.
        """
        if self.workers is None:
            return None
        least, most = self.workers
        if least != most:
            raise ParameterError(f"workers {least}:{most}: {kind} starts a fixed number; say {most}")
        return most


def check_names(
    kind: str, said: Iterable[str], known: Collection[str], instead: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Refuse options that a kind of cluster does not know.

    Args:
        kind: its name.
        said: names of options.
        known: those it takes.
        instead: what to say instead of some that it does not take.

    Raises:
        ParameterError: one is not known; the message has the nearest ones that are.
    """
    for name in said:
        if name in instead:
            raise ParameterError(f"{kind} takes no option {name!r} here: say {instead[name]}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=2)
            meant = f"did you mean {' or '.join(near)}?" if near else f"known options: {', '.join(sorted(known))}"
            raise ParameterError(f"unknown option {name!r} of {kind}; {meant}")


def read_resources(said: Any) -> dict[str, float]:
    """Return the resources that each worker of a group declares, by name.

    Raises:
        ParameterError: they are not numbers by name.
    """
    try:
        return {str(name): float(amount) for name, amount in (said or {}).items()}
    except (AttributeError, TypeError, ValueError):
        raise ParameterError(f"resources {said!r} must be numbers by name, e.g. {{GPU: 1}}") from None


def declaring(resources: Mapping[str, float]) -> list[str]:
    """Return the words by which `dask worker` declares resources."""
    amounts = ",".join(f"{name}={amount:g}" for name, amount in resources.items())
    return ["--resources", amounts] if amounts else []


def _range(workers: int | str, *, fewest: int = 1) -> tuple[int, int]:
    match = _RANGE.fullmatch(str(workers).strip())
    if match is None:
        raise ParameterError(f"workers {workers!r} must be a number, e.g. 4, or the fewest and the most, e.g. 2:50")
    least = _positive("workers", match[1], fewest)
    most = _positive("workers", match[2] or match[1])
    if most < least:
        raise ParameterError(f"workers {workers}: the most must not be below the fewest")
    return least, most


def _positive(name: str, value: int | str, fewest: int = 1) -> int:
    try:
        number = int(value)
    except ValueError:
        number = -1
    if number < fewest:
        raise ParameterError(f"{name} {value} must be at least {fewest}")
    return number
