"""Words to jobs: the chained command line, derived from operator signatures."""

from __future__ import annotations

import gc
import logging
import os
import sys
import traceback
from types import TracebackType

import click

from daskflow.redaction import redact


def main() -> None:
    """Run the command line; the entry point ``daskflow``.

    A tenth of a small job would go into looking for garbage among modules, and into starting threads of OpenBLAS; a
    block has one, as in Dask's workers.
    """
    gc.disable()  # until a command runs
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from daskflow.cli.app import app

    sys.excepthook = _show
    handler = logging.StreamHandler()
    handler.setFormatter(Shown())
    logging.getLogger("daskflow").addHandler(handler)
    app()


class Shown(logging.Formatter):
    """Writes log records in the words of the command line, without passwords or control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        from daskflow.cli.wording import as_typed

        return as_typed(super().format(record))


def _show(_kind: type[BaseException], error: BaseException, _traceback: TracebackType | None) -> None:
    """Show what nobody caught, without passwords."""
    click.echo(redact("".join(traceback.format_exception(error))), err=True, nl=False)
