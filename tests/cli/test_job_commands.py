"""The commands for jobs: start over, retry, verify and remove whole layers, each only what is wanted."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import daskflow
from daskflow.cli import Shown
from daskflow.cli.app import app
from daskflow.jobs.executor import executor_of

SAVE = "open image.npy save layer -c 8 8 8"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("image.npy", np.random.default_rng(0).integers(1, 255, (8, 16, 16)).astype(np.uint8))


@pytest.fixture
def line(monkeypatch):
    def run(words, *, code=0, answer=None):
        monkeypatch.setattr("sys.argv", ["daskflow", *words.split()])
        result = CliRunner().invoke(app, words.split(), prog_name="daskflow", input=answer)
        assert result.exit_code == code, result.output
        return result.output

    return run


def test_one_flag_starts_over_and_every_refusal_names_it(line):
    line(SAVE)
    other = SAVE.replace("save", "gaussian-filter --sigma 0 0 0 save")
    assert "start over with --overwrite" in line(other, code=1)
    assert "Plan of" in line(f"--plan --overwrite {other}")
    line(f"--overwrite {other}")
    np.testing.assert_array_equal(daskflow.open("layer").read(), np.load("image.npy"))
    assert "--overwrite" not in json.loads(Path("layer.daskflow/job.json").read_text())["command"]
    assert "already done" in line(other)


def test_failed_blocks_run_again_where_that_is_said(line):
    Path("flaky.py").write_text(
        "import os\n"
        "def execute(chunk):\n"
        "    if chunk.voxel_offset[0] == 4 and chunk.shape[0] == 4 and not os.path.exists('mended'):\n"
        "        raise ValueError('broken')\n"
        "    return chunk\n"
    )
    words = "--retries 0 open image.npy plugin -f flaky.py save layer -c 4 8 8 -b 4 16 16"
    line(words, code=2)
    Path("mended").touch()
    line(words, code=2)
    assert "finished" in line(f"--retry-failed {words}")


def test_retry_asks_and_a_strangers_line_is_only_shown(line, monkeypatch):
    line(f"{SAVE} save other -c 8 8 8")
    assert "already done" in line("retry other", answer="y\n")
    asked = line("retry other", code=1, answer="n\n")
    assert "daskflow open image.npy save layer -c 8 8 8 save other" in asked
    monkeypatch.setattr("os.getuid", lambda: 12345)
    shown = line("--yes retry layer", code=1)
    assert "daskflow --retry-failed open image.npy save layer" in shown
    assert "not run" in shown


def test_verify_and_demo_run_where_the_line_says(line, monkeypatch):
    line(SAVE)
    for words in ("verify layer", "demo --no-view"):
        assert "workers 0 must be at least 1" in line(f"--workers 0 {words}", code=1)
    used = []
    through = lambda pool, home: used.append(pool.threads) or executor_of(pool, home)  # noqa: E731
    monkeypatch.setattr("daskflow.layers.verify.executor_of", through)
    assert "verified save-layer" in line("--cluster threads --workers 7 verify layer")
    assert used == [7]


def test_verify_runs_nothing_that_a_job_directory_holds(line):
    line(SAVE)
    path = Path("layer.daskflow/job.json")
    values = json.loads(path.read_text())
    Path("evil.py").write_text("open('ran', 'w')\n")
    path.write_text(json.dumps({**values, "command": ["daskflow", "--plugin-file", "evil.py", *SAVE.split()]}))
    assert "verified save-layer" in line("verify layer")
    assert "verified save-layer" in line("verify layer.daskflow")
    assert not Path("ran").exists()


def test_a_whole_layer_is_removed_with_its_jobs_after_asking(line):
    line(SAVE)
    line("open layer downsample --levels 1")
    line("open layer --layer-type segmentation voxel-counts")
    shown = line("remove layer", code=1, answer="n\n")
    for name in ("layer.daskflow", "layer.mip1-1.daskflow", "layer.voxel-counts.daskflow"):
        assert name in shown
    assert Path("layer").exists()
    line("--yes remove layer")
    assert [path.name for path in Path().iterdir()] == ["image.npy"]


def test_escape_codes_of_files_are_shown(line):
    line(SAVE)
    path = Path("layer.daskflow/job.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": "\x1b[31mred\x1b]0;t\x07"}))
    shown = line("status layer")
    assert r"\x1b[31mred\x1b]0;t\x07" in shown
    assert "\x1b" not in shown


def test_escape_codes_in_logs_are_shown():
    record = logging.LogRecord("daskflow", logging.WARNING, "", 0, "unknown unit %r, %s", ("\x1b", "\x1b[2J"), None)
    assert Shown().format(record) == r"unknown unit '\x1b', \x1b[2J"
