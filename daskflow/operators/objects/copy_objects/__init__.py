"""Meshes and skeletons from one layer to another."""

from __future__ import annotations

from typing import Annotated, Literal

from daskflow.errors import ParameterError
from daskflow.geometry import as_zyx
from daskflow.jobs import Job
from daskflow.jobs.fingerprint import token
from daskflow.operators import options
from daskflow.operators.objects.copy_objects.stages import Key, NameObjects, Transfer, copy_stages
from daskflow.stores import kvstore
from daskflow.stores.objects.shards import object_sharding
from daskflow.volume import Flag, operator
from daskflow.volume.stage import Output, Scope


@operator()
def copy_objects(
    source: str,
    output: options.Destination,
    *,
    mesh: bool = True,
    skeletons: bool = True,
    format: Annotated[Literal["same", "sharded"], Flag("-f")] = "same",  # noqa: A002
    max_labels_per_shard: options.MaxLabelsPerShard = 1000,
    lods: options.Lods = 2,
    min_chunk: options.MinChunk = (256, 256, 256),
    max_error: options.MaxError = 40.0,
) -> Job:
    """Copy the meshes and skeletons of a precomputed layer to another layer, as they are or into shards.

    Files are copied byte by byte, with their spatial index, but without what igneous leaves behind between its steps.
    The other layer's info names them once all are there.

    Args:
        source: path or URL of a precomputed layer.
        output: path or URL of another, which must be there when this ends.
        mesh: copy the meshes, if there are any.
        skeletons: copy the skeletons, if there are any.
        format: same as in the source; or sharded to put what has files for each label into shards, where legacy meshes
            become multi-resolution ones.
        lods: levels of detail that legacy meshes get in shards beside the finest, if they are large enough.
        max_error: nm that their finest level may differ by, about; each coarser one twice as much.

    Returns:
        The job; ``run().results["copied"]`` has the numbers of files and of objects that were put into shards.

    Raises:
        ParameterError: nothing to copy, or a layer onto itself.
        StoreNotFoundError: when it is run, if the source has neither, or the destination is no layer.
        MetadataMismatchError: when it is run, if the destination has other objects in that directory.
    """
    source, destination = kvstore.normalise(source), kvstore.normalise(output)
    if source == destination:
        raise ParameterError(f"cannot copy objects of {kvstore.redact(source)} onto themselves")
    wanted: list[tuple[Key, bool]] = [("mesh", mesh), ("skeletons", skeletons)]
    keys = tuple(key for key, chosen in wanted if chosen)
    if not keys:
        raise ParameterError("neither meshes nor skeletons are to be copied")
    object_sharding(1, max_labels_per_shard=max_labels_per_shard)
    if lods < 0 or max_error < 0:
        raise ParameterError(f"lods {lods} and max_error {max_error} must not be below 0")
    sharding = (("max_labels_per_shard", max_labels_per_shard),) if format == "sharded" else None
    transfer = Transfer(source, destination, keys, sharding, lods, as_zyx(min_chunk, name="min_chunk"), max_error)
    scope = Scope("objects", (source, destination))
    return Job(
        copy_stages(transfer, scope),
        f"{destination}.objects-{token([source, keys])[:8]}.daskflow/",
        name="copy objects",
        finish=(NameObjects(transfer, scope),),
        makes=tuple(Output(destination, key, layer=destination) for key in keys),
    )
