"""Durable runs: plan, stages, the streaming loop, ledger, retries, report."""

from daskflow.jobs.batch import Failure
from daskflow.jobs.job import Job
from daskflow.jobs.plan import Plan
from daskflow.jobs.provenance import provenance
from daskflow.jobs.records import Reduce, read_record, write_record
from daskflow.jobs.report import Interrupted, Report
from daskflow.jobs.status import Status, status

__all__ = [
    "Failure",
    "Interrupted",
    "Job",
    "Plan",
    "Reduce",
    "Report",
    "Status",
    "provenance",
    "read_record",
    "status",
    "write_record",
]
