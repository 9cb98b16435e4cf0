"""Manifests of meshes, from the parts that tasks have written."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

from daskflow.errors import ParameterError
from daskflow.operators.tasks._listed import number_of
from daskflow.stores import kvstore
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.mesh_files import encode_manifest, manifest_name
from daskflow.stores.precomputed_info import named_objects
from daskflow.volume import AfterTask, Flag, operator

_FRAGMENT = re.compile(r"(\d+):\d+:.+?(?:\.gz|\.br)?")
_WRITERS = 16


@operator()
def mesh_manifest(
    *,
    volume_path: Annotated[str | os.PathLike[str], Flag("-v")],
    prefix: Annotated[int | None, Flag("-p")] = None,
    digits: Annotated[int, Flag("-d")] = 1,
    disbatch: bool = False,
) -> AfterTask:
    """Make meshes of the parts that mesh-fragments has written: list, for every label, which parts it has.

    Args:
        volume_path: the precomputed layer whose info names the directory of meshes.
        prefix: only labels that begin with these digits, so that several processes take some each; labels of fewer
            digits belong to the prefix that they are. By default all.
        digits: how many digits a prefix has.
        disbatch: take the prefix from DISBATCH_REPEAT_INDEX.

    Returns:
        What is done at the end of the line.

    Raises:
        ParameterError: the layer names no meshes, or the prefix has more digits.
    """
    layer = kvstore.normalise(volume_path)
    name = named_objects(layer).get("mesh")
    if name is None:
        raise ParameterError(f"the info of {volume_path} names no directory of meshes; write parts with mesh-fragments")
    first = number_of("DISBATCH_REPEAT_INDEX", "disbatch") if disbatch else prefix
    if first is not None and not 0 <= first < 10**digits:
        raise ParameterError(f"prefix {first} must be from 0 to {10**digits - 1}, of {digits} digits")

    def write(report: Any) -> None:  # noqa: ARG001
        url = kvstore.join(layer, name)
        parts: dict[int, set[str]] = defaultdict(set)
        starts = {""} if first is None else {str(first).zfill(digits)}
        if first is not None and len(str(first)) < digits:
            starts.add(f"{first}:")
        for file in (file for start in starts for file in kvstore.list_names(url, start)):
            found = _FRAGMENT.fullmatch(file)
            if found is not None:
                parts[int(found[1])].add(file.removesuffix(".gz").removesuffix(".br"))
        with ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(lambda one: write_file(url, manifest_name(one), encode_manifest(sorted(parts[one]))), parts))

    return AfterTask(write)
