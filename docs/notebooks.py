"""Run the tutorials in docs/tutorials, and store what their cells show.

python docs/notebooks.py [NOTEBOOK ...]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

TUTORIALS = Path(__file__).parent / "tutorials"


def executed(path: Path, home: Path) -> nbformat.NotebookNode:
    """Return a notebook after running it in an empty folder, without what differs from machine to machine.

    Cells tagged "live" show addresses, and keep no output; the folder is called /data.
    """
    notebook = nbformat.read(path, 4)
    resources = {"metadata": {"path": str(home)}}
    nbclient.NotebookClient(notebook, timeout=200, resources=resources, record_timing=False).execute()
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        if "live" in cell.metadata.get("tags", ()):
            cell.outputs = []
    return nbformat.reads(nbformat.writes(notebook).replace(str(home), "/data"), 4)


def main() -> None:
    """Store the outputs of the notebooks that are named, or of all."""
    for path in [Path(name) for name in sys.argv[1:]] or sorted(TUTORIALS.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as home:
            nbformat.write(executed(path, Path(home)), path)


if __name__ == "__main__":
    main()
