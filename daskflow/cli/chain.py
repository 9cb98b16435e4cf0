"""Named volumes that a line of commands passes on, and the jobs that it ends in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from daskflow.errors import ParameterError

if TYPE_CHECKING:
    from daskflow.jobs import Job
    from daskflow.volume import Volume


@dataclass
class Chain:
    """What the commands of one line have made so far.

    Attributes:
        volumes: lazy volumes by name.
        jobs: what the sinks have asked for; run together when the line has ended.
        after: what is to be shown once the jobs have run.
    """

    volumes: dict[str, Volume] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    after: list[Callable[[], None]] = field(default_factory=list)

    def volumes_named(self, names: str | None) -> list[Volume]:
        """Return the volumes that a comma-separated list names.

        Raises:
            ParameterError: there is no volume of a name; the message says which there are.
        """
        found = []
        for name in (names or "").split(","):
            if not name:
                continue
            if name not in self.volumes:
                there = ", ".join(sorted(self.volumes)) or "none yet: begin with open, load-... or create-chunk"
                raise ParameterError(f"there is no volume {name!r}; there are: {there}")
            found.append(self.volumes[name])
        return found

    def take(self, result: Any, name: str | None) -> None:
        """Keep what an operator returned: a volume under its name, a job for the end of the line."""
        from daskflow.volume import Volume

        if isinstance(result, Volume):
            self.volumes[name or "chunk"] = result
        else:
            self.jobs.append(result)


@dataclass(frozen=True)
class Step:
    """One command of the line.

    Attributes:
        command: its name.
        apply: what it does to the chain.
    """

    command: str
    apply: Callable[[Chain], None]

    def __call__(self, chain: Chain) -> None:
        """Apply the command; its name is put before what it complains of, unless that begins with it."""
        from daskflow.errors import DaskflowError

        try:
            self.apply(chain)
        except DaskflowError as error:
            named = str(error).startswith((f"{self.command} ", f"{self.command}: "))
            raise click.ClickException(str(error) if named else f"{self.command}: {error}") from error
