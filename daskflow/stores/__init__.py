"""Url in, store out: read and write boxes of voxels in every format."""

from daskflow.stores.base import Layout, Opening, Store
from daskflow.stores.counting import count, counting

__all__ = ["Layout", "Opening", "Store", "count", "counting"]
