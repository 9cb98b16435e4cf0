"""Jobs that make meshes or skeletons of a layer, and what differs between what two of them have written."""

import contextlib
import uuid
from pathlib import Path

import numpy as np

import daskflow
from daskflow.clusters import Threads
from daskflow.stores import kvstore
from daskflow.stores.objects.layer_objects import Skeletons
from daskflow.volume import Volume


def layer_of(path, array, *, offset=(0, 0, 0), voxel_size=(10, 10, 10), **how):
    volume = Volume.from_array(array, voxel_size=voxel_size, voxel_offset=offset, layer_type="segmentation")
    with Threads(1) as threads:
        assert daskflow.save(volume, path, chunk=(16, 16, 16), **how).run(threads, progress=False).ok
    return path


def run(job, *, threads=2, **how):
    with Threads(threads) as pool:
        report = job.run(pool, progress=False, **how)
    assert report.ok, report
    return report


def files(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(Path(directory).rglob("*"))
        if path.is_file() and path.name != "provenance"
    }


def assert_same(one, other):
    """Raise, where `files` of two directories are not the same, with what differs: of skeletons label and part."""
    found = [f"{name} is only in one" for name in sorted(one.keys() ^ other.keys())]
    found += [f"{name} differs" for name in sorted(one.keys() & other.keys()) if one[name] != other[name]]
    with contextlib.suppress(Exception):  # other objects, or a whole layer: names must do
        found += skeletons_that_differ(one, other) if found else []
    assert not found, "\n".join(found)


def skeletons_that_differ(*directories):
    urls = [f"memory://{uuid.uuid4().hex}/skeletons" for _ in directories]
    for url, content in zip(urls, directories, strict=True):
        for name, data in content.items():
            kvstore.write_bytes(f"{url}/{name}", data)
    one, other = (Skeletons(url.rpartition("/")[0], directory="skeletons") for url in urls)
    for label in sorted({*one.labels().tolist(), *other.labels().tolist()}):
        pair = [one.read(label), other.read(label)]
        if None in pair:
            yield f"label {label} is only in one"
            continue
        if one.encoded(label) != other.encoded(label):
            yield f"label {label}: the unpacked file"
        parts = [{"vertices": skeleton.vertices, "edges": skeleton.edges, **skeleton.attributes} for skeleton in pair]
        for name in parts[0]:
            a, b = (part[name] for part in parts)
            if not np.array_equal(a, b):
                yield f"label {label}: {name}, {a.shape} and {b.shape}\n{a.tolist()}\n{b.tolist()}"
        if one.shards is not None:
            spans = [objects.shards._span(label) for objects in (one, other)]
            stored = [kvstore.read_range(url, start, start + size).hex() for url, start, size in spans]
            if stored[0] != stored[1]:
                yield "\n".join([f"label {label}: stored bytes, at {spans[0][1:]} and {spans[1][1:]}", *stored])
