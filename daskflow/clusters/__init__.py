"""A name or an address in, a Dask client out."""

from daskflow.clusters.connecting import connect, script_is_guarded
from daskflow.clusters.threads import Threads

__all__ = ["Threads", "connect", "script_is_guarded"]
