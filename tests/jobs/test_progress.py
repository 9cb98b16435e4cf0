import io
import sys
import types

import pytest

from daskflow.jobs.progress import Lines, Notebook, Silent, Snapshot, Terminal, progress_of


def snapshot(done=40, ran=20, seconds=10.0, **changes):
    values = {"failed": 0, "voxels": 2_000_000, "workers": 2} | changes
    return Snapshot(stage="copy", blocks=100, done=done, ran=ran, seconds=seconds, **values)


def test_remaining_time_counts_only_blocks_of_this_run():
    assert snapshot(done=40, ran=20, seconds=10).remaining == pytest.approx(30)
    assert snapshot(done=40, ran=0).remaining is None


def test_snapshot_says_rates_and_remaining_time():
    assert str(snapshot()) == "copy: 40 of 100 blocks, 2 blocks/s, 200 k voxels/s, 30.0 s left"


def test_blocks_that_take_long_are_no_measure_for_the_others():
    values = {"done": 50, "ran": 50, "seconds": 300.0, "threads": 2, "busy": 20.0}
    assert snapshot(**values).remaining == pytest.approx(10)
    assert "10.0 s left" in str(snapshot(**values, silent=9.0))
    assert "those that run take long: 4 min 50 s so far" in str(snapshot(**values, silent=290.0))


def test_no_rate_is_shown_before_the_first_block():
    assert str(snapshot(done=0, ran=0, voxels=0)) == "copy: 0 of 100 blocks"


def test_snapshot_says_what_is_wrong():
    text = str(snapshot(failed=3, workers=0))
    assert "3 failed" in text
    assert "waiting for workers" in text


def test_lines_come_every_ten_seconds_and_not_before():
    now, stream = [0.0], io.StringIO()
    lines = Lines(stream, lambda: now[0])
    for second in range(25):
        now[0] = float(second)
        lines.update(snapshot(seconds=second or 1))
    assert len(stream.getvalue().splitlines()) == 2
    lines.say("copy: finished")
    assert stream.getvalue().endswith("copy: finished\n")


def test_quick_job_leaves_one_line(tmp_path, threads, capsys):
    from blockfiles import job

    job(tmp_path)[0].run(threads)
    assert capsys.readouterr().err.splitlines()[0].startswith("files: finished, 8 of 8 blocks done")


def test_terminal_shows_a_bar_per_stage(capsys):
    terminal = Terminal()
    terminal.update(snapshot())
    terminal.update(Snapshot("label", 10, 10, 0, 10, 5, 1.0, 2))
    terminal.say("all done [not markup]")
    terminal.close()
    text = capsys.readouterr().err
    assert "copy" in text
    assert "label" in text
    assert "all done [not markup]" in text


class Page:
    def __init__(self, monkeypatch):
        self.shown = []
        display = types.ModuleType("IPython.display")
        display.HTML = str
        display.display = lambda element, display_id: self.shown.append(element) or self
        ipython = types.ModuleType("IPython")
        ipython.get_ipython = lambda: types.SimpleNamespace(kernel=1)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", display)

    def update(self, element):
        self.shown.append(element)


def test_notebook_updates_one_element(monkeypatch):
    page = Page(monkeypatch)
    notebook = progress_of(None)
    assert isinstance(notebook, Notebook)
    notebook.update(snapshot(done=10))
    notebook.update(snapshot(done=20))
    notebook.say("<done>")
    notebook.close()
    assert 'value="10"' in page.shown[0]
    assert 'value="20"' in page.shown[-1]
    assert "&lt;done&gt;" in page.shown[-1]


def test_false_shows_nothing(capsys):
    silent = progress_of(False)
    assert isinstance(silent, Silent)
    silent.update(snapshot())
    silent.say("nothing")
    silent.close()
    assert capsys.readouterr() == ("", "")


def test_terminal_or_lines_by_where_errors_go(monkeypatch):
    assert isinstance(progress_of(True), Lines)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    terminal = progress_of(None)
    terminal.close()
    assert isinstance(terminal, Terminal)
    assert progress_of(terminal) is terminal
