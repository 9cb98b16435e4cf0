"""Names that users of chunkflow and igneous type, and what they are called here."""

from __future__ import annotations

from collections.abc import Iterable

FORMER = {
    "cutout": "load-precomputed",
    "read-precomputed": "load-precomputed",
    "write-precomputed": "save-precomputed",
    "read-h5": "load-h5",
    "write-h5": "save-h5",
    "read-tif": "load-tif",
    "write-tif": "save-tif",
    "read-zarr": "load-zarr",
    "write-zarr": "save-zarr",
    "agglomerate": "plugin",
    "generate-tasks": "save --block",
    "fetch-task-from-file": "save --block",
    "fetch-task-from-sqs": "save --block",
    "setup-env": "--plan",
    "create-info": "save-precomputed",
    "view": "neuroglancer",
    "blackout": "fill",
    "ccl": "connected-components",
    "design": "plan",
    "touch": "verify",
    "voxels": "voxel-counts",
}


def hint(word: str, known: Iterable[str]) -> str:
    """Return what to type instead of an unknown command."""
    if word in FORMER:
        return f"it is {FORMER[word]!r} here"
    import difflib

    near = difflib.get_close_matches(word, list(known), n=2)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else "see daskflow --help"
