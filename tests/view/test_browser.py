"""Neuroglancer in a real browser: pixels on the screen are the voxels, where and in the colours they should be."""

from __future__ import annotations

import io
import shutil
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from daskflow.geometry import BlockGrid
from daskflow.stores.base import Layout
from daskflow.stores.opening import create_store, open_store
from daskflow.view import neuroglancer
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
    """Return a precomputed volume on disk that is no multiple of its chunks and begins at negative voxels."""
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
