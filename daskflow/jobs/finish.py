"""What is done when every block of a job is done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from daskflow.jobs.report import Report


class Finish(ABC):
    """A last step, in the driver's process; the next run does it again when this one dies before the report is stored.

    Attributes:
        reads_scratch: whether it needs scratch data, which are gone once the job is complete.
    """

    reads_scratch: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, report: Report, directory: str) -> None:
        """Do so for the job in `directory`, and add JSON values to `report.results`, which are stored with it."""
