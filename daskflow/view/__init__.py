"""Volumes in Neuroglancer, and pictures of them."""

from daskflow.view.viewer import Viewer, neuroglancer
from daskflow.volume.picture import side_by_side

__all__ = ["Viewer", "neuroglancer", "side_by_side"]
