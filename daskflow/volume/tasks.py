"""Which boxes a line works on: one task each, of a list that is known or of a queue that others empty, too."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from daskflow.geometry import BlockGrid, BoundingBox

Boxes = Sequence[BoundingBox] | BlockGrid


class Message(ABC):
    """What a queue holds of a task."""

    @abstractmethod
    def delete(self) -> None:
        """Take the task out of the queue: it is done."""

    @abstractmethod
    def release(self) -> None:
        """Stop holding the task, so that it is seen again after a while."""


@dataclass(frozen=True)
class BoxTask:
    """One box that a line works on.

    Attributes:
        box: the voxels that are written, of the level that the line reads.
        alone: whether the line has no other task, so that its files need not be named by the box.
        again: whether it was begun before, so that what lies in its box may be its own.
        message: what a queue holds of it, if it is of one.
        missing: whether what it writes was found not to be stored, whatever earlier runs say.
    """

    box: BoundingBox
    alone: bool = False
    again: bool = False
    message: Message | None = None
    missing: bool = False


@dataclass(frozen=True)
class AfterTask:
    """What is done once a line has written all that it writes, and its report is known (None: it writes nothing)."""

    action: Callable[[Any], None]


class Tasks(ABC):
    """The tasks of a line.

    Attributes:
        resumes: whether the same line, run again, has the same tasks, and goes on with them.
    """

    resumes = True

    @property
    def region(self) -> BoundingBox | None:
        """The smallest box that holds all of them; None where nobody knows."""
        return None

    @property
    def tiled(self) -> BoundingBox | None:
        """The box that they tile, if they are several boxes of one size, which are known."""
        return None

    @abstractmethod
    def windows(self, most: Callable[[], int]) -> Generator[list[BoxTask], None, None]:
        """Yield the tasks, as many at once as may run together, which `most` says each time."""

    def publish(self, say: Callable[[str], None]) -> None:  # noqa: B027 (most have nothing to store)
        """Store what is asked for beside the line, e.g. a file of boxes, and say so."""

    @property
    def listed(self) -> Boxes:
        """Their boxes, where these are known."""
        return ()

    @property
    def elsewhere(self) -> bool:
        """Whether the tasks are for other lines, and none is run here."""
        return False


@dataclass(frozen=True)
class ListedTasks(Tasks):
    """Boxes that are known."""

    boxes: Boxes

    @property
    def listed(self) -> Boxes:
        """Those of the boxes that are tasks."""
        return self.boxes

    @functools.cached_property
    def region(self) -> BoundingBox:
        boxes = self.listed
        return boxes.box if isinstance(boxes, BlockGrid) else functools.reduce(BoundingBox.union, boxes)

    @property
    def tiled(self) -> BoundingBox | None:
        boxes = self.listed
        grid = boxes if isinstance(boxes, BlockGrid) else BlockGrid(self.region, max(box.shape for box in boxes))
        tiles = grid is boxes or (len(grid) == len(boxes) and set(grid) == set(boxes))
        return self.region if tiles and len(boxes) > 1 else None

    def __str__(self) -> str:
        return self.counted

    @property
    def counted(self) -> str:
        """How many tasks there are, the first and the last."""
        boxes = self.listed
        count, first = len(boxes), boxes[0]
        return f"1 task, {first}" if count == 1 else f"{count:,} tasks, {first} to {boxes[count - 1]}"

    def windows(self, most: Callable[[], int]) -> Generator[list[BoxTask], None, None]:
        boxes, at = self.listed, 0
        while at < len(boxes):
            stop = min(len(boxes), at + max(1, most()))
            yield [BoxTask(boxes[number], alone=len(boxes) == 1) for number in range(at, stop)]
            at = stop
