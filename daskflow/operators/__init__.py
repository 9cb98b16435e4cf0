"""One capability per file or folder, ``<group>/<name>``: functions from volumes to volumes or jobs.

Attributes:
    GROUPS: the group of every operator by its name; nothing is imported to find it.
"""

from pathlib import Path

GROUPS = {
    path.stem: path.parent.name
    for path in sorted(Path(__file__).parent.glob("[!_]*/[!_]*"))
    if path.suffix == ".py" or (path / "__init__.py").is_file()
}
