"""Volumes in Neuroglancer, and pictures of them."""

from daskflow.view.figure import side_by_side
from daskflow.view.viewer import Viewer, neuroglancer

__all__ = ["Viewer", "neuroglancer", "side_by_side"]
