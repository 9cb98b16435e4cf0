"""What every operator on labels asks of its volume."""

from __future__ import annotations

from daskflow.errors import ParameterError
from daskflow.volume import Volume


def check_segmentation(volume: Volume, purpose: str) -> None:
    """Raise unless a volume holds labels.

    Args:
        volume: what is to hold labels: integers in one channel, and not of a layer that says it is an image.
        purpose: what needs them, for the message, e.g. "counting voxels".

    Raises:
        ParameterError: it does not; the message says what to do.
    """
    if volume.dtype.kind not in "bui":
        raise ParameterError(f"{purpose} needs labels, the volume holds {volume.dtype}; label or threshold it first")
    if volume.channels not in (None, 1):
        raise ParameterError(f"{purpose} takes one channel, the volume has {volume.channels}; pick one first")
    if volume.layer_type not in (None, "segmentation"):
        raise ParameterError(
            f"{purpose} needs a segmentation, and the volume is an {volume.layer_type.replace('_', ' ')} of"
            f" {volume.dtype}; if its values are labels, open it with layer_type='segmentation'"
        )
