"""Take docs/*.png in Chromium: Dask's dashboard while a job runs, what it made in Neuroglancer, and a tutorial.

python docs/screenshots.py [FOLDER]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from nbconvert import HTMLExporter
from playwright.sync_api import Page, sync_playwright

import daskflow
from daskflow.demo.phantom import phantom
from daskflow.view import neuroglancer

FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)
NAMES = ("chromium", "chromium-browser", "google-chrome")


def slowly(pixels: Any) -> Any:
    """Return pixels as they are, after a while, so that there is something to see."""
    time.sleep(0.4)
    return pixels


def take(page: Page, url: str, path: Path, seconds: float, heading: str = "") -> None:
    """Open a page, and take its picture, from a heading on, once it had time to draw itself."""
    page.goto(url)
    page.evaluate("name => document.getElementById(name)?.scrollIntoView()", heading)
    page.wait_for_timeout(1000 * seconds)
    page.screenshot(path=path)


def main() -> None:
    """Write the pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    browser_path = next(path for name in NAMES if (path := shutil.which(name)))
    pixels, labels = phantom((48, 192, 192), seed=3)
    image = daskflow.open(pixels, voxel_size=(16, 8, 8), layer_type="image")
    truth = daskflow.open(labels, voxel_size=(16, 8, 8), layer_type="segmentation")
    with tempfile.TemporaryDirectory() as home, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1200, "height": 700})
        with daskflow.connect("local", workers=2) as client:
            smooth = daskflow.gaussian_filter(image.map_blocks(slowly, dtype=image.dtype), sigma=1)
            saving = daskflow.save(smooth, f"{home}/smooth", chunk=(16, 32, 32), block=(16, 32, 32))
            running = threading.Thread(target=saving.run, args=(client,), kwargs={"progress": False})
            running.start()
            take(page, client.dashboard_link, folder / "dashboard.png", 8)
            running.join()
        layers = {"image": daskflow.open(f"{home}/smooth"), "truth": truth}
        viewer = neuroglancer(layers)
        take(page, viewer.url, folder / "neuroglancer.png", 12)
        viewer.stop()
        text, _ = HTMLExporter().from_filename(Path(__file__).parent / "tutorials" / "look.ipynb")
        tutorial = Path(home) / "look.html"
        tutorial.write_text(text)
        page.set_viewport_size({"width": 1000, "height": 1280})
        take(page, tutorial.as_uri(), folder / "notebook.png", 3, "Grey-values")
        browser.close()


if __name__ == "__main__":
    main()
