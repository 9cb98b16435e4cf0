"""Neuroglancer in a real browser: pixels on the screen are the voxels, where and in the colours they should be."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from daskflow.geometry import BlockGrid
from daskflow.stores.base import Layout
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.located import Points, SkeletonSet
from daskflow.stores.objects.mesh_files import (
    Level,
    Mesh,
    MultiresManifest,
    encode_draco,
    encode_fragment,
    encode_manifest,
    legacy_info,
    manifest_name,
    multires_info,
)
from daskflow.stores.objects.shards import object_sharding, write_shard
from daskflow.stores.objects.skeleton_files import Skeleton, encode_skeleton, skeleton_info
from daskflow.stores.objects.synapses import Synapses
from daskflow.stores.opening import create_store, open_store
from daskflow.stores.precomputed_info import load_info, save_info
from daskflow.view import Look, neuroglancer
from daskflow.volume import Volume

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip
WIDTH, HEIGHT = 900, 700
MIDDLE = (WIDTH // 4, 210)  # x, y on the screen of the xy panel's middle, where the volume's middle is shown
AWAY = 45
LABEL = 5  # Neuroglancer shows it pink, unlike frame and axes

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(150),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=60_000)
        try:
            yield chromium
        finally:
            chromium.close()


def screens(browser, viewer):
    """Yield pictures of the whole page, for a minute."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    try:
        page.goto(viewer.url)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with Image.open(io.BytesIO(page.screenshot())) as picture:
                yield np.asarray(picture.convert("RGB")).astype(int)
            time.sleep(0.3)
    finally:
        page.close()


def quadrants(browser, viewer, *, settled):
    """Return the colours (rgb) in the quadrants of the xy panel, by y and x.

    Waits until they are what `settled` wants, or time is up.
    """
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    hosts = set()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    try:
        page.goto(viewer.url)
        deadline = time.monotonic() + 60
        while True:
            with Image.open(io.BytesIO(page.screenshot())) as picture:
                pixels = np.asarray(picture.convert("RGB")).astype(int)
            x, y = MIDDLE
            found = np.array([[pixels[y + dy, x + dx] for dx in (-AWAY, AWAY)] for dy in (-AWAY, AWAY)])
            if settled(found) or time.monotonic() > deadline:
                break
            time.sleep(0.3)
    finally:
        page.close()
    assert hosts <= {"127.0.0.1", None}
    return found


def close_to(expected):
    return lambda found: np.abs(found - np.array(expected)).max() <= 3


def in_quadrants(upper_left, upper_right, lower_left, lower_right, *, dtype, shape=(20, 130, 130)):
    """Return an array whose sections have four values, with y pointing down and x to the right."""
    array = np.empty(shape, dtype)
    y, x = shape[1] // 2, shape[2] // 2
    array[:, :y, :x], array[:, :y, x:] = upper_left, upper_right
    array[:, y:, :x], array[:, y:, x:] = lower_left, lower_right
    return array


def saved(path, array, **layout):
    """Return a precomputed volume on disk that is not a multiple of its chunks and begins at negative voxels."""
    volume = Volume.from_array(array, voxel_offset=(-5, -200, 31), voxel_size=(40, 4, 4))
    kind = "segmentation" if array.dtype == np.uint64 else "image"
    store = create_store(
        path, volume.spec.replace(layer_type=kind), format="precomputed", layout=Layout(chunk=(8, 64, 64), **layout)
    )
    for box in BlockGrid(volume.box, (8, 64, 64)):
        store.write(box, volume.read(box))
    return Volume.from_store(open_store(path))


def test_stored_image_has_its_greys_on_the_screen(browser, tmp_path):
    image = saved(tmp_path / "image", in_quadrants(0, 80, 160, 240, dtype=np.uint8), encoding="png")
    greys = [[[0] * 3, [80] * 3], [[160] * 3, [240] * 3]]
    with neuroglancer({"image": image}) as viewer:
        assert close_to(greys)(quadrants(browser, viewer, settled=close_to(greys)))


def test_labels_in_gzipped_chunk_files_are_coloured_over_the_image(browser, tmp_path):
    image = saved(tmp_path / "image", in_quadrants(100, 100, 100, 100, dtype=np.uint8), encoding="raw")
    labels = saved(
        tmp_path / "labels",
        in_quadrants(0, 3, 2**40 + 1, 3, dtype=np.uint64),
        encoding="compressed_segmentation",
        compression="gzip",
    )
    assert list((tmp_path / "labels").glob("*/*.gz"))

    def colored(found):
        return np.ptp(found, axis=-1).reshape(-1)[[1, 2, 3]].min() > 30 and np.abs(found[0, 0] - 100).max() <= 3

    with neuroglancer({"image": image, "labels": labels}) as viewer:
        found = quadrants(browser, viewer, settled=colored)
    assert colored(found)
    assert np.abs(found[0, 1] - found[1, 1]).max() <= 3
    assert np.abs(found[0, 1] - found[1, 0]).max() > 30


def test_derived_affinities_are_red_green_blue(browser):
    raw = in_quadrants(0, 50, 100, 200, dtype=np.uint8)
    image = Volume.from_array(raw, voxel_offset=(0, -64, 7), voxel_size=(40, 4, 4))
    affinities = image.map_blocks(as_affinities, dtype=np.float32, channels=3, layer_type="affinity_map")
    shown = [[[0, 255, 0], [50, 205, 0]], [[100, 155, 0], [200, 55, 0]]]
    with neuroglancer({"affinities": affinities}) as viewer:
        assert close_to(shown)(quadrants(browser, viewer, settled=close_to(shown)))


def as_affinities(image):
    scaled = image.astype(np.float32) / 255
    return np.stack([scaled, 1 - scaled, np.zeros_like(scaled)])


def test_points_synapses_and_skeletons_are_drawn_in_their_colors(browser):
    image = Volume.from_array(np.zeros((64, 64, 64), np.uint8), voxel_size=(4, 4, 4))
    places = np.array([(32, 20, 20), (32, 20, 44), (32, 44, 20)])
    line = Skeleton(np.array([(10, 60, 60), (250, 60, 60)], np.float32), np.array([(0, 1)], np.uint32), {})
    shown = {
        "image": image,
        "points": Points(places, (4.0, 4.0, 4.0)),
        "synapses": Synapses(places[:1], np.array([(0, 32, 50, 50)]), (4.0, 4.0, 4.0)),
        "skeletons": SkeletonSet({LABEL: line}),
    }
    looks = {"points": Look(color="magenta", size=12), "skeletons": Look(color="orange")}
    wanted = {(255, 0, 255): 200, (0, 255, 255): 100, (255, 165, 0): 100}
    with neuroglancer(shown, looks=looks) as viewer, contextlib.closing(screens(browser, viewer)) as pictures:
        for picture in pictures:
            found = {color: int((np.abs(picture - color).max(axis=-1) <= 8).sum()) for color in wanted}
            if all(found[color] >= least for color, least in wanted.items()):
                return
    pytest.fail(f"{found} pixels of the colors")


def pyramid(low, high):
    """Return a closed surface with four sides and a square base, between two corners (xyz, nm)."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    top = ((x0 + x1) / 2, (y0 + y1) / 2, z1)
    corners = [(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0), top]
    faces = [(0, 3, 2), (0, 2, 1), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)]
    return Mesh(np.array(corners, np.float32), np.array(faces, np.uint32))


def write_legacy(layer, mesh):
    write_file(f"{layer}/mesh", f"{LABEL}:0:all", encode_fragment(mesh), compression="gzip")
    write_file(f"{layer}/mesh", manifest_name(LABEL), encode_manifest([f"{LABEL}:0:all"]))
    write_file(f"{layer}/mesh", "info", json.dumps(legacy_info(mip=0)).encode())


def write_multires(layer, mesh):
    """Write one level with one cell of 64 voxels of 4 nm, which the mesh is inside of."""
    quantised = np.rint(mesh.vertices / 4 / 64 * (2**10 - 1)).astype(np.uint32)
    fragment = encode_draco(quantised, mesh.faces, bits=10)
    cell = Level(np.zeros((1, 3), np.uint32), np.array([len(fragment)], np.uint32))
    manifest = MultiresManifest((64, 64, 64), (0, 0, 0), (cell,)).encode()
    sharding = object_sharding(1)
    write_shard(f"{layer}/mesh", 0, sharding, {LABEL: (fragment, manifest)})
    info = multires_info(voxel_size=(4, 4, 4), bits=10, mip=0, sharding=sharding)
    write_file(f"{layer}/mesh", "info", json.dumps(info).encode())


def write_skeleton(layer):
    line = Skeleton(
        np.array([(10, 60, 60), (250, 60, 60)], np.float32),
        np.array([(0, 1)], np.uint32),
        {"radius": np.full(2, 9, np.float32)},
    )
    sharding = object_sharding(1, data_encoding="gzip")
    write_shard(f"{layer}/skeletons", 0, sharding, {LABEL: encode_skeleton(line)})
    write_file(f"{layer}/skeletons", "info", json.dumps(skeleton_info(sharding=sharding)).encode())


@pytest.mark.parametrize("objects", ["legacy", "multires", "skeletons"])
def test_chosen_segment_stands_in_3d(browser, tmp_path, objects):
    layer = str(tmp_path / "labels")
    labels = Volume.from_array(np.full((64, 64, 64), LABEL, np.uint64), voxel_size=(4, 4, 4), layer_type="segmentation")
    store = create_store(layer, labels.spec, layout=Layout(chunk=(64, 64, 64)))
    store.write(labels.box, labels.read(labels.box))
    if objects == "skeletons":
        write_skeleton(layer)
    else:
        {"legacy": write_legacy, "multires": write_multires}[objects](layer, pyramid((40, 40, 40), (200, 200, 200)))
    info = load_info(layer)
    save_info(layer, info | ({"skeletons": "skeletons"} if objects == "skeletons" else {"mesh": "mesh"}))

    def colored(pixels):
        """Return how many pixels of the 3D panel are in a colour that is not pure, as frame and axes are."""
        panel = pixels[380:690, 5:445]
        return int(((panel.min(axis=-1) > 30) & (np.ptp(panel, axis=-1) > 30)).sum())

    least = 100 if objects == "skeletons" else 3000
    shown = {"labels": Volume.from_store(open_store(layer))}
    with neuroglancer(shown, segments=[LABEL]) as viewer, contextlib.closing(screens(browser, viewer)) as pictures:
        seen = next((count for count in map(colored, pictures) if count >= least), 0)
    assert seen >= least
    with neuroglancer(shown, segments=[LABEL + 1]) as viewer:
        time.sleep(2)
        with contextlib.closing(screens(browser, viewer)) as pictures:
            assert colored(next(pictures)) < least
