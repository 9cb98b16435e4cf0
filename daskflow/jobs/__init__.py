"""Durable runs: plan, stages, the streaming loop, ledger, retries, report."""

from daskflow.jobs.batch import Failure
from daskflow.jobs.job import Job
from daskflow.jobs.merging import merge
from daskflow.jobs.plan import Plan
from daskflow.jobs.provenance import provenance
from daskflow.jobs.report import Interrupted, Report
from daskflow.jobs.status import Status, saved_command, status
from daskflow.jobs.verify import verify

__all__ = [
    "Failure",
    "Interrupted",
    "Job",
    "Plan",
    "Report",
    "Status",
    "merge",
    "provenance",
    "saved_command",
    "status",
    "verify",
]
