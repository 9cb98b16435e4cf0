"""Durable runs: plan, stages, the streaming loop, ledger, retries, report."""
