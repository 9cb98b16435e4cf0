"""Sphinx configuration of the site that `docs/build` makes from the pages as they lie in the repository."""

from __future__ import annotations

from sphinx.application import Sphinx

import daskflow

project = "daskflow"
copyright = "the daskflow developers"  # noqa: A001  the name is Sphinx's
version = release = daskflow.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["*.md", "docs/**", "recipes/*.md", "helm/daskflow/*.md"]
exclude_patterns = [".venv/**", "site/**"]

html_theme = "furo"
html_title = f"daskflow {release}"
myst_heading_anchors = 4
nb_execution_mode = "off"  # tests/project/test_tutorials.py runs them
autodoc_member_order = "groupwise"
default_role = "code"
napoleon_use_ivar = True

CONTENTS = {
    "Guide": "getting-started operators inference jobs faults scaling",
    "Tutorials": "tutorials/look tutorials/segment tutorials/objects tutorials/cluster",
    "Data": "formats images downsampling segmentation labels meshes skeletons viewing",
    "Clusters": "clusters kubernetes ../helm/daskflow/README",
    "Coming from": "from-igneous from-chunkflow",
    "Reference": "api writing-operators architecture ../recipes/README ../CONTRIBUTING ../CHANGELOG",
}


def add_contents(_app: Sphinx, page: str, source: list[str]) -> None:
    """Append to the README, which is the front page, what the side bar lists."""
    if page == root_doc:
        for caption, pages in CONTENTS.items():
            entries = "\n".join(f"/docs/{one}" for one in pages.split())
            source[0] += f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n"


def mark_drawings(_app: Sphinx, _kind: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Mark the indented paragraphs of a docstring, which are drawings, as literal blocks."""
    for number in range(len(lines) - 1, 0, -1):
        if lines[number].startswith("    ") and not lines[number - 1]:
            lines[number:number] = ["::", ""]


def setup(app: Sphinx) -> None:
    """Register what Sphinx calls."""
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-docstring", mark_drawings, priority=1)  # before napoleon
