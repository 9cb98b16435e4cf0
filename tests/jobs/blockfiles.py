"""Stage tasks that write one small file per block, and misbehave on request."""

from __future__ import annotations

import os
import signal
import time
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs import Job
from daskflow.volume.stage import BlockResult, Estimate, Scopes, Stage, Task


@dataclass(frozen=True)
class WriteFiles(Task):
    """Writes `value` and the box to a file per block, and logs every call; what goes wrong is chosen by block."""

    verifiable = True
    folder: Path
    value: int = 1
    seconds: float = 0.0
    slow: dict[str, float] = field(default_factory=dict)  # box -> seconds, where it takes longer than the others
    raises: dict[str, int] = field(default_factory=dict)  # box -> how often it raises, -1 for always
    kills: dict[str, int] = field(default_factory=dict)  # box -> how often it kills its process, -1 for always
    signal: int = signal.SIGKILL
    empty: frozenset[str] = frozenset()
    memory: int = 1000
    scratch: str = ""

    def read(self, box: BoundingBox) -> int:
        self.count("read", box)
        self.count("within", os.environ.get("SLURM_JOB_ID"))
        return self.value

    def compute(self, box: BoundingBox, inputs: Any) -> bytes:
        time.sleep(self.slow.get(str(box), self.seconds))
        if self._wants(self.raises, "raised", box):
            raise ValueError(f"no luck with {box}")
        if self._wants(self.kills, "killed", box):
            os.kill(os.getpid(), self.signal)
            time.sleep(10)
        return f"{inputs} {box}".encode()

    def write(self, box: BoundingBox, outputs: bytes) -> BlockResult:
        temporary = self.folder / f"{box}.{uuid.uuid4().hex}.tmp"
        temporary.write_bytes(outputs)
        temporary.rename(self.folder / f"{box}.out")
        return BlockResult(empty=str(box) in self.empty, counts={"missing_chunks": 1})

    def estimate(self, box: BoundingBox) -> Estimate:
        return Estimate(box.size, box.size, self.memory, box.grow(1).size)

    def check(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "calls").mkdir(exist_ok=True)

    def describe(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "value": self.value}

    def bind(self, scopes: Scopes) -> WriteFiles:
        return replace(self, scratch=scopes.url)

    def verify(self, box: BoundingBox) -> None:
        if (self.folder / f"{box}.out").read_bytes() != f"{self.value} {box}".encode():
            raise ValueError(f"{box} is damaged")

    def count(self, what: str, box: object) -> None:
        (self.folder / "calls" / f"{what}.{box}.{uuid.uuid4().hex}").touch()

    def calls(self, what: str = "read", box: object = None) -> int:
        """Return how often something happened, to one box or to all."""
        return len(list((self.folder / "calls").glob(f"{what}.{'*' if box is None else f'{box}.*'}")))

    def _wants(self, chosen: dict[str, int], what: str, box: BoundingBox) -> bool:
        times = chosen.get(str(box), 0)
        if times == 0 or (times > 0 and self.calls(what, box) >= times):
            return False
        self.count(what, box)
        return True

    def outputs(self) -> dict[str, bytes]:
        """Return what was written, by box."""
        return {path.stem: path.read_bytes() for path in self.folder.glob("*.out")}


@dataclass(frozen=True)
class WriteFilesOnGpu(WriteFiles):
    """The same, asking for a GPU where there is one."""

    gpu = True


def grid(blocks: int = 8) -> BlockGrid:
    """Return a row of small blocks, the last one cut."""
    return BlockGrid(BoundingBox((0, 0, 0), (4, 4, 4 * blocks - 1)), (4, 4, 4))


def job(folder: Path, blocks: int = 8, **options: Any) -> tuple[Job, WriteFiles]:
    """Return a job of one stage that writes files below a folder, and its task."""
    task = WriteFiles(folder / "out", **options)
    return Job((Stage("files", grid(blocks), task),), str(folder / "out.daskflow"), name="files"), task
