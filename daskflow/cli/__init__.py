"""Words to jobs: the chained command line, derived from operator signatures."""

from __future__ import annotations


def main() -> None:
    """Run the command line; the entry point ``daskflow``."""
    from daskflow.cli.app import app

    app()
