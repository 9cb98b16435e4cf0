"""The pages say what is so: generated ones are up to date, links lead somewhere, examples run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import daskflow

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for folder in (".", "docs", "recipes", "helm/daskflow") for path in (ROOT / folder).glob("*.md"))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
BLOCK = re.compile(r"^(?:`([\w.]+)`:\n\n)?```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def examples(page: Path) -> Iterator[tuple[str, str, str]]:
    """The page's examples in order: the file that one is to be written to, its language, its text."""
    yield from BLOCK.findall(page.read_text())


def run(words: list[str] | str, directory: Path) -> None:
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "MPLBACKEND": "agg"}
    shell = isinstance(words, str)
    result = subprocess.run(
        words, shell=shell, cwd=directory, env=environment, capture_output=True, text=True, timeout=220, check=False
    )
    assert result.returncode == 0, f"{words}\n{result.stdout}\n{result.stderr}"


def test_the_operator_reference_is_what_the_operators_say():
    run([sys.executable, "docs/generate.py", "--check"], ROOT)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    local = [target for target in LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_shows_the_api_and_the_notebooks(tmp_path):
    run([ROOT / "docs/build", tmp_path / "site"], tmp_path)
    shown = (tmp_path / "site/docs/api.html").read_text()
    missing = {name for name in daskflow.__all__ if f'id="daskflow.{name}"' not in shown}
    assert missing == {"__version__", "errors", "view"}
    assert 'id="daskflow.errors.StoreError"' in shown
    assert 'id="daskflow.view.neuroglancer"' in shown
    assert "daskflow.Volume" in (tmp_path / "site/docs/tutorials/look.html").read_text()
    assert (tmp_path / "site/index.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if any(examples(page))], ids=name)
def test_examples_run(page, tmp_path):
    for file, language, text in examples(page):
        if file:
            (tmp_path / file).write_text(text)
        elif language == "python":
            run([sys.executable, "-c", text], tmp_path)
        else:
            for line in text.replace("\\\n", " ").splitlines():
                if line.startswith("$ "):
                    run(line[2:], tmp_path)


def test_the_architecture_page_draws_the_house_that_the_import_contract_keeps():
    (contract,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rooms = [layer.replace(" : ", ", ") for layer in contract["layers"] if not layer.startswith("(")]
    text = (ROOT / "docs/architecture.md").read_text()
    drawn = re.findall(r"^(\w+)/ |^(errors, config, plugins)$|^(redaction) ", text, re.MULTILINE)
    assert ["".join(one) for one in drawn] == rooms
    picture = (ROOT / "docs/house.svg").read_text()
    assert re.findall(r'font-weight="bold">([^<]+)<', picture) == rooms
