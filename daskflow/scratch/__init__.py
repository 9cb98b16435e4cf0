"""What one stage of a job leaves for the next: records by block, tables by key, and pieces by label."""

from daskflow.scratch.records import Reduce, read_record, write_record
from daskflow.scratch.tables import Table

__all__ = ["Reduce", "Table", "read_record", "write_record"]
