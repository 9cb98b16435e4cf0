"""What tests ask of igneous and of CloudVolume; arrays are zyx or czyx here, and xyz or xyzc on their side."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class IgneousError(Exception):
    """What igneous raised, with its traceback."""


class Igneous:
    """A process that runs igneous, one request at a time.

    Args:
        python: of the environment that holds igneous.

    Attributes:
        folder: where arrays are exchanged; a test's own.
    """

    folder: Path

    def __init__(self, python: Path) -> None:
        server = Path(__file__).with_name("igneous_server.py")
        self._process = subprocess.Popen(
            [str(python), str(server)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=30)

    def ask(self, action: str, **arguments: Any) -> Any:
        """Return the answer to one request.

        Raises:
            IgneousError: with what was raised there.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"action": action, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise IgneousError(f"the process of igneous ended with status {self._process.wait(timeout=30)}")
        answer = json.loads(line)
        if "error" in answer:
            raise IgneousError(answer["traceback"])
        return answer["value"]

    def __call__(self, *words: object) -> str:
        """Run ``igneous WORDS``; paths are told from other words by being `Path`."""
        said: str = self.ask("run", words=[f"file://{word}" if isinstance(word, Path) else str(word) for word in words])
        return said

    def layer(self, name: str, array: Array, *, offset: tuple[int, int, int] = (0, 0, 0), **options: Any) -> Path:
        """Write an array with CloudVolume, gzipped, and return its place.

        Args:
            name: of the layer, in the test's folder.
            array: zyx or czyx.
            offset: zyx, in voxels.
            **options: `resolution` (zyx, nm), `chunk` (zyx), `kind` (image or segmentation), `encoding`.
        """
        for name_of_axes in ("resolution", "chunk"):
            if name_of_axes in options:
                options[name_of_axes] = options[name_of_axes][::-1]
        path = self.folder / name
        options = {"offset": offset[::-1], **options}
        self.ask("write", layer=f"file://{path}", array=str(self._exchange(array.T)), **options)
        return path

    def voxels(self, layer: Path, mip: int = 0, *, fill_missing: bool = False) -> Array:
        """Return a level of a layer as CloudVolume reads it: zyx, or czyx with several channels."""
        place = self.folder / f"exchange-{next(self._numbers)}.npy"
        self.ask("read", layer=f"file://{layer}", array=str(place), mip=mip, fill_missing=fill_missing)
        array = np.load(place).T
        return array[0] if len(array) == 1 else array

    def skeleton(self, layer: Path, label: int) -> dict[str, Array]:
        """Return a skeleton as CloudVolume reads it: vertices (xyz, nm), edges, attributes by name."""
        return self._object("skeleton", layer, label)

    def mesh(self, layer: Path, label: int, **options: Any) -> dict[str, Array]:
        """Return a mesh as CloudVolume reads it: vertices (xyz, nm) and faces."""
        return self._object("mesh", layer, label, **options)

    def without_holes(self, array: Array, level: int) -> Array:
        """Return labels (zyx) with the holes filled that igneous fills at a level."""
        place = self.folder / f"exchange-{next(self._numbers)}.npy"
        self.ask("without_holes", array=str(self._exchange(array.T)), target=str(place), level=level)
        filled: Array = np.load(place).T
        return filled

    def objects_within(self, layer: Path, kind: str, start: Sequence[float], stop: Sequence[float]) -> list[int]:
        """Return the labels that CloudVolume finds in a box (xyz, nm) by the index of "mesh" or "skeleton"."""
        found: list[int] = self.ask("objects_within", layer=f"file://{layer}", kind=kind, start=start, stop=stop)
        return found

    def _object(self, action: str, layer: Path, label: int, **options: Any) -> dict[str, Array]:
        place = self.folder / f"exchange-{next(self._numbers)}.npz"
        self.ask(action, layer=f"file://{layer}", label=label, array=str(place), **options)
        with np.load(place) as arrays:
            return dict(arrays)

    def _exchange(self, array: Array) -> Path:
        place = self.folder / f"exchange-{next(self._numbers)}.npy"
        np.save(place, array)
        return place


def info(layer: Path) -> dict[str, Any]:
    """Return a layer's info."""
    values: dict[str, Any] = json.loads((layer / "info").read_text())
    return values


def objects(layer: Path, folder: str = "") -> set[str]:
    """Return the names of the objects below a layer, without the endings that say how they are compressed."""
    place = layer / folder
    names = (str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
    return {name.removesuffix(".gz").removesuffix(".br") for name in names}


def isomorphic(one: Array, other: Array) -> bool:
    """Return whether two arrays of labels name the same objects, background 0 being background in both."""
    pairs = np.unique(np.stack([one.ravel().astype(np.uint64), other.ravel().astype(np.uint64)]), axis=1)
    once = len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    return bool(once and ((one == 0) == (other == 0)).all())
