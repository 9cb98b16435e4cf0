"""Durable runs: plan, stages, the streaming loop, ledger, retries, report."""

from daskflow.jobs.job import Job, merge
from daskflow.jobs.plan import Plan
from daskflow.jobs.report import Failure, Interrupted, Report
from daskflow.jobs.status import Status, status

__all__ = ["Failure", "Interrupted", "Job", "Plan", "Report", "Status", "merge", "status"]
