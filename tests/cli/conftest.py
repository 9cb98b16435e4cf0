"""A queue on a server that stands for SQS."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from emulators import moto, s3

__all__ = ["moto", "s3"]
