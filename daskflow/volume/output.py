"""What a job makes, in plain words: a level of a layer, a file, meshes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from daskflow.geometry import BoundingBox
from daskflow.stores import kvstore


@dataclass(frozen=True)
class Output:
    """Something that a job makes, as its directory states it.

    Attributes:
        url: the layer, the file, or the directory of objects.
        kind: level, file, mesh, skeletons or another word; layer is all that is in one.
        mip: of a level.
        base: the level in whose voxels the blocks of the stage are counted.
        dataset: inside a file.
        layer: the layer that objects belong to.
        background: chunks of a level that hold nothing but this are left out.
        how: what else the voxels of a level depend on.
        stage: the one in whose blocks it is made.
        grid: these blocks, as the description of the stage has them.
        overwrite: whether what others have stored there may be replaced; not stated.
    """

    url: str
    kind: str = "file"
    mip: int | None = None
    base: int | None = None
    dataset: str | None = None
    layer: str | None = None
    background: float | None = None
    how: dict[str, Any] | None = None
    stage: str = ""
    grid: dict[str, Any] | None = None
    overwrite: bool = False

    def placed(self) -> Output:
        """Return the same with links in its URLs resolved, and what people may not read left out."""
        layer = None if self.layer is None else place_of(self.layer)
        return dataclasses.replace(self, url=place_of(self.url), layer=layer)

    def within(self, place: str) -> bool:
        """Return whether it is what lies at a place, or a part of it."""
        return place in (self.url, self.layer) or self.url.startswith(f"{place}/")

    def clashes(self, other: Output) -> bool:
        """Return whether two jobs would write the same thing, or one what the other removes."""
        if "layer" in (self.kind, other.kind):
            return self.within(other.url) or other.within(self.url)
        if self.kind != other.kind:
            return False
        if self.kind != "level":
            return self.url in (other.url, other.layer) or other.url == self.layer
        if (self.url, self.mip) != (other.url, other.mip):
            return False
        boxes = [BoundingBox.from_string(one.grid["box"]) for one in (self, other) if one.grid is not None]
        return len(boxes) < 2 or self.base != other.base or not boxes[0].clip(boxes[1]).empty

    def replaced_by(self, other: Output) -> bool:
        """Return whether writing the other leaves nothing of this, or not all; other datasets of a file stay."""
        return self.clashes(other) and (None in (self.dataset, other.dataset) or self.dataset == other.dataset)

    def to_json(self) -> dict[str, Any]:
        """Return what is known of it as JSON values."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value is not None and name != "overwrite"}

    def __str__(self) -> str:
        named = {"layer": "", "level": f" mip {self.mip}", "file": f":{self.dataset}" if self.dataset else ""}
        return f"{self.url}{named.get(self.kind, f' ({self.kind})')}"


def place_of(url: str) -> str:
    """Return where a URL leads when links are followed, as a job's directory may state it."""
    return kvstore.redact(kvstore.resolved(url))
