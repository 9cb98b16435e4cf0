"""Every error daskflow raises on purpose.

    DaskflowError
    ├── GeometryError (ValueError)            a box, size or factor that makes no sense
    │   ├── BoundsError                       a box outside the volume
    │   └── AlignmentError                    a block that would share a chunk or shard with another
    ├── ParameterError (ValueError)           an argument outside what the operator accepts
    ├── MissingDependencyError (ImportError)  an optional package that is not installed
    ├── StoreError (OSError)                  something wrong with stored data
    │   ├── StoreNotFoundError (FileNotFoundError)
    │   ├── UnknownFormatError
    │   ├── MissingChunkError                 a chunk that was never written
    │   ├── CorruptChunkError                 a chunk that cannot be decoded
    │   ├── MetadataMismatchError             a layer that exists and differs
    │   ├── AlreadyStoredError (FileExistsError)  chunks of another job or program, where something would be written
    │   └── StoreAccessError (PermissionError)
    │       └── CredentialsError              a server that refuses the credentials
    ├── ModelError (RuntimeError)             a network that does not load or breaks its declaration
    └── JobError (RuntimeError)
        ├── PlanError                         a job that cannot run as planned
        ├── ChangedJobError                   a job directory that belongs to another job
        └── LockedJobError                    a job that another driver is running

The error in brackets is the built-in one that it derives from, too.
"""

from __future__ import annotations

import importlib
from typing import Any

from daskflow.redaction import redact


class DaskflowError(Exception):
    """Root of every error that daskflow raises on purpose; its text never holds passwords or signatures."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*(redact(arg) if isinstance(arg, str) else arg for arg in args))


class GeometryError(DaskflowError, ValueError):
    """A box, size or factor that makes no sense."""


class BoundsError(GeometryError):
    """A box that reaches outside the volume it is asked of."""


class AlignmentError(GeometryError):
    """A block that would share a storage chunk or shard with another block."""


class ParameterError(DaskflowError, ValueError):
    """An argument outside what the called function accepts."""


class MissingDependencyError(DaskflowError, ImportError):
    """An optional package that the called function needs is not installed."""

    @classmethod
    def of(cls, package: str, extra: str) -> MissingDependencyError:
        """Build the error that names the package and the extra that installs it."""
        return cls(f"needs {package}: pip install 'daskflow[{extra}]'")


def optional_module(name: str, *, package: str, extra: str) -> Any:
    """Return a module of an optional package.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError.of(package, extra) from error


class StoreError(DaskflowError, OSError):
    """Something is wrong with stored data or its metadata."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """Nothing is stored at the location."""


class UnknownFormatError(StoreError):
    """What is stored at the location is in no format that daskflow knows."""


class MissingChunkError(StoreError):
    """A chunk that is read was never written."""


class CorruptChunkError(StoreError):
    """A stored chunk cannot be decoded."""


class MetadataMismatchError(StoreError):
    """A layer exists already and its metadata differ from what would be written."""


class AlreadyStoredError(StoreError, FileExistsError):
    """Chunks that another job or program has stored would be replaced."""


class StoreAccessError(StoreError, PermissionError):
    """The location cannot be read or written with the credentials at hand."""


class CredentialsError(StoreAccessError):
    """A server refuses the credentials at hand, or the lack of any; other blocks would fail alike."""


class ModelError(DaskflowError, RuntimeError):
    """A network that does not load, or whose output is not what was declared."""


class JobError(DaskflowError, RuntimeError):
    """A job that cannot run or did not finish."""


class PlanError(JobError):
    """A job that cannot run as planned; nothing was started."""


class ChangedJobError(JobError):
    """The job directory belongs to a job with other parameters."""


class LockedJobError(JobError):
    """Another driver is running this job."""
