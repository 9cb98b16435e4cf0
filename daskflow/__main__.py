"""``python -m daskflow``."""

from daskflow.cli import main

main()
