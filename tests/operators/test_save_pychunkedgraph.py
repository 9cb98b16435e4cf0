"""Exports for PyChunkedGraph: what its messages say is the graph of the voxels, for any blocks and interruptions."""

import json
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import daskflow
from daskflow import Volume
from daskflow.clusters import Threads
from daskflow.errors import AlreadyStoredError, GeometryError, JobError, ParameterError
from daskflow.jobs.job import merge
from daskflow.operators.segmentation.save_pychunkedgraph import save_pychunkedgraph
from daskflow.operators.segmentation.save_pychunkedgraph.stages import CutSupervoxels, WriteChunks

pytest.importorskip("numba")

# PyChunkedGraph's messages: the fields in the order of their numbers, and what each holds
MESSAGES = {
    "EdgesMsg": {"node_ids1": "bytes", "node_ids2": "bytes", "affinities": "bytes", "areas": "bytes"},
    "ChunkEdgesMsg": {"in_chunk": "EdgesMsg", "cross_chunk": "EdgesMsg", "between_chunk": "EdgesMsg"},
    "ChunkComponentsMsg": {"components": "numbers"},
}
SIZE = (40.0, 8.0, 4.0)
BITS = 5


@pytest.fixture(scope="module")
def message():
    """The classes of PyChunkedGraph's published messages, by name."""
    descriptors = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    field = descriptors.FieldDescriptorProto
    file = descriptors.FileDescriptorProto(name="graph.proto", package="graph", syntax="proto3")
    for name, fields in MESSAGES.items():
        added = file.message_type.add(name=name)
        for number, (one, kind) in enumerate(fields.items(), 1):
            if kind == "numbers":
                added.field.add(name=one, number=number, type=field.TYPE_UINT64, label=field.LABEL_REPEATED)
            elif kind == "bytes":
                added.field.add(name=one, number=number, type=field.TYPE_BYTES)
            else:
                added.field.add(name=one, number=number, type=field.TYPE_MESSAGE, type_name=f".graph.{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"graph.{name}")) for name in MESSAGES}


def edges_in(path, message):
    """Return the edges in a file by kind: a dict of affinity and area by pair."""
    zstandard = pytest.importorskip("zstandard")
    read = message["ChunkEdgesMsg"].FromString(zstandard.ZstdDecompressor().decompress(path.read_bytes()))
    found = {}
    for kind in ("in_chunk", "between_chunk", "cross_chunk"):
        one = getattr(read, kind)
        columns = zip(
            np.frombuffer(one.node_ids1, "<u8").tolist(),
            np.frombuffer(one.node_ids2, "<u8").tolist(),
            np.frombuffer(one.affinities, "<f4").tolist(),
            np.frombuffer(one.areas, "<u8").tolist(),
            strict=True,
        )
        rows = list(columns)
        found[kind] = {(a, b): (affinity, area) for a, b, affinity, area in rows}
        assert list(found[kind]) == [row[:2] for row in rows] == sorted(found[kind])
    return found


def components_in(path, message):
    numbers = list(message["ChunkComponentsMsg"].FromString(path.read_bytes()).components)
    found = []
    while numbers:
        count = numbers.pop(0)
        found.append(frozenset(numbers[:count]))
        assert len(found[-1]) == count
        del numbers[:count]
    return set(found)


def supervoxels_of(fragments, chunk, bits):
    """Return the ids of all voxels, by the definition, and fragment and chunk (xyz) of each id."""
    ids, meaning = np.zeros(fragments.shape, np.uint64), {}
    for z, y, x in np.ndindex(*(-(-n // c) for n, c in zip(fragments.shape, chunk, strict=True))):
        place = tuple(slice(p * c, (p + 1) * c) for p, c in zip((z, y, x), chunk, strict=True))
        names = [name for name in np.unique(fragments[place]).tolist() if name]
        for rank, name in enumerate(names, 1):
            number = 1 << 56 | x << (56 - bits) | y << (56 - 2 * bits) | z << (56 - 3 * bits) | rank
            ids[place][fragments[place] == name] = number
            meaning[number] = (name, (x, y, z))
    return ids, meaning


def touching(ids, affinities):
    """Return affinity and area of every two ids that touch."""
    found = defaultdict(lambda: [0.0, 0.0])
    for axis in range(3):
        here, there = np.moveaxis(ids, axis, 0)[1:], np.moveaxis(ids, axis, 0)[:-1]
        values = np.moveaxis(affinities[axis], axis, 0)[1:]
        for one, other, value in zip(here.flat, there.flat, values.flat, strict=True):
            if one and other and one != other:
                for pair in ((int(one), int(other)), (int(other), int(one))):
                    found[pair][0] += int(value) / 65535 * SIZE[axis]
                    found[pair][1] += SIZE[axis]
    return found


def check(folder, message, affinities, fragments, objects, chunk):
    """Hold all files of an export against the graph of its voxels."""
    ids, meaning = supervoxels_of(fragments, chunk, BITS)
    contacts = touching(ids, affinities)
    np.testing.assert_array_equal(daskflow.open(folder / "supervoxels").read(), ids)
    chunks = {place for _, place in meaning.values()}
    named = {"_".join(map(str, place)) for place in chunks}
    assert {path.name for path in (folder / "edges").glob("*")} == {f"edges_{name}.proto.zst" for name in named}
    assert {path.name for path in (folder / "components").glob("*")} == {f"components_{name}.proto" for name in named}
    for place in chunks:
        name = "_".join(map(str, place))
        own = {number for number, (_, its) in meaning.items() if its == place}
        right = {"in_chunk": {}, "between_chunk": {}, "cross_chunk": {}}
        for (one, other), (affinity, area) in contacts.items():
            if one in own and other in own and one < other:
                right["in_chunk"][one, other] = (affinity, area)
            elif one in own and other not in own:
                same = meaning[one][0] == meaning[other][0]
                kind = "cross_chunk" if same else "between_chunk"
                right[kind][one, other] = (np.inf, 1) if same else (affinity, area)
        alone = own - {end for pair in contacts for end in pair}
        right["in_chunk"] |= {(one, one): (np.inf, 0) for one in alone}
        found = edges_in(folder / "edges" / f"edges_{name}.proto.zst", message)
        for kind, pairs in right.items():
            assert found[kind].keys() == pairs.keys()
            for pair, values in pairs.items():
                assert found[kind][pair] == pytest.approx(values, rel=1e-6)
        groups = defaultdict(set)
        for number in own | {other for one, other in contacts if one in own}:
            groups[objects.get(meaning[number][0], meaning[number][0])].add(number)
        groups.pop(0, None)
        right = {frozenset(group) for group in groups.values()}
        assert components_in(folder / "components" / f"components_{name}.proto", message) == right


def volumes_of(affinities, fragments, objects):
    segmentation = np.vectorize(lambda name: objects.get(name, name), otypes=[np.uint64])(fragments)
    arrays = (affinities, fragments, segmentation)
    return [Volume.from_array(array, voxel_size=SIZE, voxel_offset=(-3, 5, 70)) for array in arrays]


@st.composite
def cases(draw):
    shape = draw(st.tuples(*[st.integers(1, 7)] * 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    affinities = random.integers(0, 65536, (3, *shape)).astype(np.uint16)
    fragments = random.integers(0, draw(st.sampled_from([2, 5, 60])), shape, np.uint64)  # in pieces, background too
    fragments *= np.uint64(draw(st.sampled_from([1, 2**57])))
    objects = {name: int(random.integers(0, 4)) for name in np.unique(fragments).tolist() if name}
    chunk = draw(st.tuples(*[st.integers(1, 5)] * 3))
    return affinities, fragments, draw(st.sampled_from([{}, objects])), chunk


@settings(max_examples=15)
@given(cases())
def test_files_have_the_graph_of_the_voxels(message, tmp_path_factory, case):
    affinities, fragments, objects, chunk = case
    folder = tmp_path_factory.mktemp("graph")
    volumes = volumes_of(affinities, fragments, objects)
    job = save_pychunkedgraph(
        *volumes[: 3 if objects else 2], output=folder / "g", chunk=chunk, spatial_bits=BITS, order="zyx"
    )
    with Threads(1) as threads:
        assert job.run(threads, progress=False).ok
    check(folder / "g", message, affinities, fragments, objects, chunk)


def example():
    random = np.random.default_rng(4)
    fragments = np.kron(random.integers(0, 25, (3, 4, 5), np.uint64), np.ones((4, 4, 4), np.uint64))
    affinities = random.integers(0, 65536, (3, *fragments.shape)).astype(np.uint16)
    return affinities, fragments, {name: name % 4 for name in range(1, 25)}


def contents(folder):
    files = (path for kind in ("edges", "components", "supervoxels/4_8_40") for path in (folder / kind).glob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_blocks_of_several_chunks_interruptions_and_lost_files_give_the_same_bytes(tmp_path, message, run_twice):
    arrays = example()
    options = {"chunk": (5, 6, 7), "spatial_bits": BITS, "order": "zyx"}
    for name in ("whole", "cut", "written"):
        job = save_pychunkedgraph(*volumes_of(*arrays), output=tmp_path / name, **options)
        if name == "whole":
            copy = volumes_of(*arrays)[1].save(tmp_path / "copy.zarr", chunk=(5, 6, 7), block=(10, 12, 14))
            job = merge([job, copy])
            assert job.stages[0].grid.block == (10, 12, 14)
            with Threads(1) as threads:
                report = job.run(threads, progress=False)
        else:
            run_twice(job, CutSupervoxels if name == "cut" else WriteChunks, 7)

    shutil.rmtree(tmp_path / "cut/components")
    again = save_pychunkedgraph(*volumes_of(*arrays), output=tmp_path / "cut", **options)
    with Threads(1) as threads:
        assert again.run(threads, progress=False).ok
    check(tmp_path / "whole", message, *arrays, (5, 6, 7))
    assert contents(tmp_path / "whole") == contents(tmp_path / "cut") == contents(tmp_path / "written")
    ids, meaning = supervoxels_of(arrays[1], (5, 6, 7), BITS)
    fragments = [(meaning[a][0], meaning[b][0]) for a, b in touching(ids, arrays[0])]
    assert report.counts["supervoxels"] == len(meaning)
    assert report.counts["contacts"] == sum(a != b for a, b in fragments) / 2
    assert report.counts["cuts"] == sum(a == b for a, b in fragments) / 2


def test_larger_chunks_leave_no_file_of_the_smaller_ones_that_they_replace(tmp_path, message):
    random = np.random.default_rng(5)
    fragments = np.kron(random.integers(1, 9, (1, 2, 65), np.uint64), np.ones((2, 2, 2), np.uint64))
    affinities = random.integers(0, 65536, (3, *fragments.shape)).astype(np.uint16)
    for chunk in [(64, 64, 64), (64, 64, 128)]:
        options = {"output": tmp_path, "chunk": chunk, "spatial_bits": BITS, "order": "zyx"}
        job = save_pychunkedgraph(*volumes_of(affinities, fragments, {})[:2], **options)
        with Threads(1) as threads:
            assert job.run(threads, progress=False, overwrite=True).ok
        check(tmp_path, message, affinities, fragments, {}, chunk)


def test_the_ingest_is_told_where_everything_is(tmp_path):
    volumes = volumes_of(*example())
    job = save_pychunkedgraph(*volumes, output=tmp_path / "g", chunk=(4, 8, 16))
    with Threads(1) as threads:
        job.run(threads, progress=False)

    ingest = yaml.safe_load((tmp_path / "g/ingest.yml").read_text())
    assert ingest["graph_config"] == {"CHUNK_SIZE": [16, 8, 4], "FANOUT": 2, "LAYER_ID_BITS": 8, "SPATIAL_BITS": 10}
    for key, name in (("EDGES", "edges"), ("COMPONENTS", "components"), ("WATERSHED", "supervoxels")):
        assert Path(ingest["data_source"][key].removeprefix("file://")) == tmp_path / "g" / name
    known = json.loads((tmp_path / "g/pychunkedgraph_metadata.json").read_text())
    assert known["chunk_grid_shape"] == [2, 2, 3]
    assert known["volume_shape"] == [20, 16, 12]
    other = save_pychunkedgraph(*volumes[:2], output=tmp_path / "g", chunk=(4, 8, 16))
    (tmp_path / "g.daskflow").rename(tmp_path / "elsewhere")
    with Threads(1) as threads, pytest.raises(AlreadyStoredError, match="was not written by this job"):
        other.run(threads, progress=False)


def failure(*volumes, **options):
    """Return what is said where blocks of an export fail: one is reported, the first two alike end the job."""
    job = save_pychunkedgraph(*volumes, **options)
    with Threads(1) as threads:
        try:
            return job.run(threads, progress=False, retries=0).failures[0].message
        except JobError as error:
            return str(error)


def test_what_does_not_fit_is_refused(tmp_path):
    affinities, fragments, segmentation = volumes_of(*example())
    output = tmp_path / "g"
    with pytest.raises(ParameterError, match=r"number 4 along an axis; take 3 bits \(--spatial-bits\), or larger"):
        save_pychunkedgraph(affinities, fragments, output=output, chunk=(4, 4, 4), spatial_bits=2)
    with pytest.raises(ParameterError, match="spatial bits 19 must be from 1 to 18"):
        save_pychunkedgraph(affinities, fragments, output=output, spatial_bits=19)
    with pytest.raises(GeometryError, match="the segmentation -4-8_5-21_70-90"):
        save_pychunkedgraph(affinities, fragments, daskflow.translate(segmentation, offset=(-1, 0, 0)), output=output)
    message = failure(affinities, fragments, output=output, chunk=(12, 16, 20), spatial_bits=18)
    assert "has 23 supervoxels, and 2 bits number at most 3; take smaller chunks (--chunk)" in message


@pytest.mark.parametrize("place", [(0, 0, 1), (0, 0, 3)])  # within a chunk, and over a face of it
def test_objects_that_cut_fragments_are_refused(tmp_path, place):
    labels = np.full((2, 2, 6), 7, np.uint64)
    objects = labels.copy()
    objects[:, :, place[2] :] = 9
    arrays = (np.zeros((3, *labels.shape), np.uint16), labels, objects)
    message = failure(*map(Volume.from_array, arrays), output=tmp_path / "g", chunk=(2, 2, 3))
    assert "fragment 7 belongs to the objects " in message
    assert "made of whole fragments, as agglomerate does" in message
