"""Runs igneous in the process of its own environment, request after request, so that it starts once.

Reads one JSON object per line from stdin and answers each with one on stdout. This file is run by the Python of the
environment that holds igneous; it imports nothing of daskflow.
"""

import json
import os
import sys
import traceback

import cloudvolume
import fastmorph
import igneous.task_creation as tasks
import numpy as np
from click.testing import CliRunner
from igneous.task_creation.common import compute_shard_params_for_hashed
from igneous_cli.cli import main
from taskqueue import LocalTaskQueue


def run(words):
    """Run the command line ``igneous WORDS`` and return what it printed."""
    result = CliRunner().invoke(main, words)
    if result.exit_code:
        raise result.exception or RuntimeError(result.output)
    return result.output


def write(layer, array, resolution=(1, 1, 1), offset=(0, 0, 0), chunk=(64, 64, 64), kind="image", **options):
    """Write an array, xyz or xyzc in a .npy file, as a layer."""
    options = {"encoding": "raw", "compress": "gzip", **options}
    cloudvolume.CloudVolume.from_numpy(
        np.load(array),
        vol_path=layer,
        resolution=resolution,
        voxel_offset=offset,
        chunk_size=chunk,
        layer_type=kind,
        progress=False,
        **options,
    )


def read(layer, array, mip=0, fill_missing=False):
    """Read a level of a layer into a .npy file, xyzc."""
    volume = cloudvolume.CloudVolume(layer, mip=mip, fill_missing=fill_missing, progress=False)
    np.save(array, np.asarray(volume[:]))


def skeleton(layer, label, array):
    """Read a skeleton into a .npz file: vertices (xyz, nm), edges and its attributes."""
    found = cloudvolume.CloudVolume(layer, progress=False).skeleton.get(label)
    names = [attribute["id"] for attribute in found.extra_attributes]
    np.savez(array, vertices=found.vertices, edges=found.edges, **{name: getattr(found, name) for name in names})


def mesh(layer, label, array, lod=None):
    """Read a mesh into a .npz file: vertices (xyz, nm) and faces."""
    source = cloudvolume.CloudVolume(layer, progress=False).mesh
    found = source.get(label) if lod is None else source.get(label, lod=lod)
    found = found[label] if isinstance(found, dict) else found
    np.savez(array, vertices=found.vertices, faces=found.faces)


def objects_within(layer, kind, start, stop):
    """Return the labels that the spatial index of meshes or skeletons finds in a box (xyz, nm)."""
    index = getattr(cloudvolume.CloudVolume(layer, progress=False), kind).spatial_index
    return sorted(int(label) for label in index.query(cloudvolume.Bbox(start, stop)))


def quantize(source, target):
    """Quantize the first channel of an affinity, for which igneous has no command."""
    queue = LocalTaskQueue(parallel=1, progress=False)
    queue.insert(tasks.create_quantize_tasks(source, target, shape=(64, 64, 32), chunk_size=(32, 32, 32)))
    queue.execute()


def consensus(source, target, volume_map, consensus_map):
    """Name segments by cells, for which igneous has no command; the target is there."""
    queue = LocalTaskQueue(parallel=1, progress=False)
    queue.insert(tasks.create_hypersquare_consensus_tasks(source, target, volume_map, consensus_map))
    queue.execute()


def without_holes(array, target, level):
    """Fill the holes of labels, xyz in a .npy file, as the tasks of meshes and skeletons do."""
    filled, _ = fastmorph.fill_holes_v2(np.load(array), fix_borders=level >= 2)
    np.save(target, filled)


def hashed(labels, **limits):
    """Return the bits of a sharding of objects: preshift, minishard, shard."""
    return [int(bits) for bits in compute_shard_params_for_hashed(labels, **limits)][::-1]


OWN = (quantize, consensus, without_holes, hashed)
ACTIONS = {action.__name__: action for action in (run, write, read, skeleton, mesh, objects_within, *OWN)}


def serve():
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            value = ACTIONS[request["action"]](**request["arguments"])
            answer = {"value": value}
        except BaseException as error:  # noqa: BLE001 (click exits by raising)
            answer = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    serve()
