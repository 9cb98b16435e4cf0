"""How a precomputed layer names the directories of its meshes and skeletons."""

from __future__ import annotations

from daskflow.errors import StoreNotFoundError
from daskflow.stores.precomputed_info import edit_info, load_info


def name_objects(layer: str, keep: bool = False, /, **directories: str) -> None:
    """Make directories known in the ``info`` of their layer, of which nothing else changes.

    Args:
        layer: URL.
        keep: leave the directories that the ``info`` names already.
        **directories: their names in the layer, as ``mesh`` or ``skeletons``.

    Raises:
        StoreNotFoundError: there is no layer.
        StoreAccessError: the location refuses.
    """
    edit_info(layer, lambda info: {**info, **{k: v for k, v in directories.items() if not (keep and info.get(k))}})


def layer_above(url: str) -> str | None:
    """Return the URL of the precomputed layer that a directory of objects lies in, None when it lies in none."""
    parent, _, name = url.rpartition("/")
    if not name or parent.endswith(":/"):
        return None
    try:
        load_info(parent)
    except (StoreNotFoundError, ValueError, OSError):
        return None
    return parent
