"""The command line as people type it, in a process of its own only where that matters."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from click.shell_completion import BashComplete
from click.testing import CliRunner

import daskflow
from daskflow import view
from daskflow.cli.app import app


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def line(words, *, code=0):
    words = words.split()
    arguments = ["daskflow", *words]
    previous, sys.argv = sys.argv, arguments
    try:
        result = CliRunner().invoke(app, words, prog_name="daskflow")
    finally:
        sys.argv = previous
    assert result.exit_code == code, result.output
    return result.output


def image(shape=(20, 30, 40)):
    array = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    np.save("image.npy", array)
    return array


def test_chain_reads_left_to_right_over_named_volumes():
    array = image()
    line("--quiet open image.npy -o em threshold -i em -t 100 -o bright save -i bright bright.npy save -i em em.npy")
    np.testing.assert_array_equal(np.load("bright.npy"), (array > 100).astype(np.uint8))
    np.testing.assert_array_equal(np.load("em.npy"), array)


def test_names_default_to_chunk_as_in_chunkflow():
    array = image()
    line("load-npy -f image.npy -t 1 2 3 normalize-intensity save-h5 -f a.h5")
    result = daskflow.open("a.h5")
    assert result.box.start == (1, 2, 3)
    np.testing.assert_allclose(result.read(), array / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("open image.npy threshold -t 3 -o mask connected-components save c", "threshold: no later .* 'mask'"),
        ("open image.npy save c threshold -t 3", "no later .* .chunk.; save it"),
        ("open image.npy threshold -t 3 -o a threshold -t 3 -o a save -i a c", "replaces .a., which threshold"),
        ("open image.npy -o em threshold -t 3 -i chunk save c", "there is no volume 'chunk'; there are: em"),
    ],
)
def test_result_that_no_command_reads_is_refused_before_anything_runs(words, told):
    image()
    assert re.search(told, line(words, code=1))
    assert not Path("c").exists()


def test_last_result_is_read_where_there_is_no_chunk():
    array = image()
    line("--quiet open image.npy -o em threshold -t 100 -o bright save bright.npy")
    np.testing.assert_array_equal(np.load("bright.npy"), (array > 100).astype(np.uint8))


def test_commands_after_save_work_on_what_was_saved():
    array = image((20, 80, 90)) // 64
    np.save("labels.npy", array.astype(np.uint64))
    opened = "open labels.npy --voxel-size 40 16 16 save"
    line(f"--quiet {opened} one voxel-counts -o counts.npy downsample")
    line(f"--quiet {opened} two")
    line("--quiet open two downsample")
    for mip in (0, 1):
        np.testing.assert_array_equal(*(daskflow.open(layer, mip=mip).read() for layer in ("one", "two")))
    line(f"--quiet {opened} three --levels auto -e compressed_segmentation")
    assert len(daskflow.open("three").mips) == 2
    assert list(Path("one").glob("*/stats/voxel_counts.im"))
    assert "already done" in line(f"{opened} one voxel-counts -o counts.npy downsample")
    assert "two results" in line(f"{opened} four --levels 1 downsample", code=1)


def test_report_says_no_line_twice_and_quiet_says_nothing_of_what_went_well(tmp_path):
    image()
    lines = line("open image.npy --voxel-size 1 1 1 save layer").splitlines()
    assert len(set(lines)) == len(lines) == 3
    assert max(map(len, lines)) <= 120
    assert not line("--quiet open image.npy --voxel-size 1 1 1 save other")
    assert not line("-q verify layer")
    assert "read file://" in line("verify layer")
    line("--log all.txt open image.npy --voxel-size 1 1 1 save third")
    assert "voxel size" in Path("all.txt").read_text()


def test_completion_is_installed_and_completes_commands_of_a_chain(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert "_DASKFLOW_COMPLETE=bash_complete" in line("completion bash --print")
    line("completion bash")
    assert (tmp_path / "bash-completion" / "completions" / "daskflow").is_file()
    words = ["open", "em.tif", "crop", "-z", "10", "10", "10"]
    complete = BashComplete(app, {}, "daskflow", "_DASKFLOW_COMPLETE")
    assert "save-h5" in {one.value for one in complete.get_completions(words, "save")}
    assert [one.type for one in complete.get_completions([*words, "save"], "laye")] == ["file"]


def test_help_has_one_spelling_and_the_others_are_understood():
    image()
    told = line("threshold --help")
    assert "-i, --input NAME" in told
    assert "input-chunk-name" not in told
    shown = line("voxel-counts --help")
    assert "-o" not in re.findall(r"^  (-\w)", shown, re.MULTILINE)
    line("--quiet open image.npy threshold -t 9 --output-chunk-name a voxel-counts --input-names a -o counts.csv")
    assert Path("counts.csv").is_file()


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        ("open image.npy save a --quiet", "--quiet goes before the first command", 2),
        ("open image.npy save-h5", "Missing option '-f' / '--file-name'", 2),
        ("open image.npy save s3:/bucket/a", "write s3://bucket/a", 1),
        ("open image.npy save a b.tif", "open b.tif reads it", 2),
        ("open image.npy save a --format tif2", "did you mean 'tiff'", 1),
        ("open image.npy inference -f torch", "did you mean 'pytorch'", 2),
    ],
)
def test_slips_are_answered_with_what_to_type(words, told, code):
    image()
    assert told in line(words, code=code)
    assert not Path("a").exists()


def test_layer_in_another_of_the_same_line_is_refused():
    image()
    assert "lies in" in line("open image.npy save a/b save a", code=1)
    assert not Path("a").exists()


def test_refused_values_are_told_in_a_line():
    np.save("wide.npy", np.full((64, 128, 128), 300, np.uint16))
    told = line("--quiet open wide.npy astype -d uint8 save narrow", code=1)
    assert "300 cannot be held as uint8; choose a wider dtype, or --overflow clip" in told
    assert "Traceback" not in told


def test_results_of_several_steps_of_a_line_are_kept_apart():
    array = image((20, 20, 20)) > 200
    array[10] = 0
    np.save("mask.npy", array.astype(np.uint8))
    label = "connected-components --connectivity 6 -o"
    told = line(f"open mask.npy -o m {label} a {label} b -i m --dust 5 save -i a a.npy save -i b b.npy")
    numbers = [int(np.load(name).max()) for name in ("a.npy", "b.npy")]
    assert all(f"{number:,} components (" in told for number in numbers)
    assert f"{numbers[0]:,} components (" in line("status a.npy")
    told = line("open a.npy --layer-type segmentation voxel-counts open b.npy voxel-counts")
    assert [f"labels: {number}" in told for number in numbers] == [True, True]


def test_all_sinks_run_in_one_job_that_shares_each_block():
    image()
    output = line("open image.npy gaussian-filter save a save b save-h5 -f c.h5")
    assert "save-a-and-save-b-and-gather-c.h5" in output
    np.testing.assert_array_equal(daskflow.open("a").read(), daskflow.open("c.h5").read())


def test_evaluation_prints_its_scores():
    image()
    output = line(
        "open image.npy threshold -t 99 -o a open image.npy threshold -t 99 -o b evaluate-segmentation -s a -g b"
    )
    assert "rand_index" in output.replace(" ", "_")


def test_a_second_volume_may_be_left_out():
    image()
    seg = "open image.npy threshold -t 99 -o seg open image.npy"
    for options, last in (("", "orientation_x"), ("--image-chunk-name chunk", "intensity_std")):
        assert "1 region" in line(f"{seg} region-properties -i seg {options} -o {last}.csv")
        assert Path(f"{last}.csv").read_text().partition("\n")[0].endswith(last)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("open image.npy --voxel-size 4 4 4 save out", "open image.npy --voxel-size 8 4 4 save out"),
        ("open image.npy --voxel-size 4 4 4 save out.zarr", "open image.npy --voxel-size 8 4 4 save out.zarr"),
        ("open image.npy save out", "open image.npy --voxel-offset 1 0 0 save out"),
        ("open image.npy save out --format zarr3", "open image.npy --voxel-offset 1 0 0 save out --format zarr3"),
        ("open image.npy save out.zarr", "open image.npy astype -d uint16 save out.zarr"),
        ("open image.npy save out", "open image.npy --layer-type segmentation save out"),
        ("open image.npy save out --encoding png", "open image.npy save out --encoding raw"),
        ("open image.npy threshold -t 9 save out", "open image.npy threshold -t 10 save out"),
        ("open image.npy save a save out", "open image.npy save new open image.npy astype -d uint16 save out"),
        ("open image.npy save out.h5", "open image.npy save out.h5 --compression none"),
        ("open image.npy save out --levels 1", "open out downsample -l 1 --factor 2 2 2"),
        ("open image.npy save out --levels 1", "open image.npy save out --levels 1 --factor 2 2 2"),
    ],
)
def test_plan_refuses_what_the_run_would_refuse_and_leaves_everything_as_it_is(first, then):
    image()
    line(f"--quiet {first}")
    for kept in Path().glob("a.daskflow"):
        shutil.rmtree(kept)
    before = {path: path.stat().st_ctime_ns for path in Path().rglob("*")}
    refused = line(f"--quiet --plan {then}", code=1)
    assert {path: path.stat().st_ctime_ns for path in Path().rglob("*")} == before
    assert line(f"--quiet {then}", code=1) == refused


@pytest.mark.parametrize("ending", ["npy", "tif", "h5"])
def test_plan_refuses_a_file_that_no_job_has_written(ending):
    image()
    line(f"--quiet open image.npy save old.{ending}")
    shutil.copy(f"old.{ending}", f"out.{ending}")
    refused = line(f"--plan open image.npy save out.{ending}", code=1)
    assert "was not written by this job" in refused
    assert line(f"--quiet open image.npy save out.{ending}", code=1) == refused


def test_plan_shows_what_would_be_done_and_does_nothing():
    image()
    output = line("--plan open image.npy connected-components save labels")
    assert "Plan of save-labels" in output
    assert "label-components" in output
    assert [path.name for path in Path().iterdir()] == ["image.npy"]


@pytest.mark.parametrize(
    "then",
    [
        "open image.npy save b save c.zarr --levels 2 save d.h5 save e/f.tif save g --format zarr2",
        "open layer downsample -l 2 --overwrite voxel-counts --output counts/a.csv mesh",
        "open layer skeletonize fill --start 0 0 0 --size 9 9 9 -v 1",
        "open image.npy contrast save b",
    ],
)
def test_plan_leaves_everything_as_it_is(then):
    image()
    line("--quiet open image.npy --layer-type segmentation save layer --levels 1")
    before = {path: path.stat().st_ctime_ns for path in Path().rglob("*")}
    assert "Plan of" in line(f"--plan {then}")
    assert {path: path.stat().st_ctime_ns for path in Path().rglob("*")} == before


def test_plan_ends_as_the_run_does_where_memory_is_too_little():
    image()
    words = "--cluster threads --memory 1kB {} open image.npy gaussian-filter save layer"
    told = [line(words.format(first), code=1) for first in ("--plan", "")]
    assert all("needs" in one and "a worker may use 1 kB" in one for one in told)
    assert "Plan of save-layer" in told[0]


def test_status_verify_and_retry_know_the_job_by_its_output():
    image()
    line("open image.npy save layer -c 8 16 16")
    assert "finished" in line("status layer")
    assert "verified" in line("verify layer")
    chunk = next(path for path in Path("layer").rglob("*") if path.is_file() and path.name[0].isdigit())
    chunk.unlink()
    assert chunk.name in line("verify layer", code=2)
    line("open image.npy save layer -c 8 16 16")
    assert "verified" in line("verify layer")
    np.testing.assert_array_equal(daskflow.open("layer").read(), np.load("image.npy"))


def test_verify_of_what_a_line_made_lists_every_bad_chunk_as_that_of_a_layer_does():
    image()
    line("open image.npy save layer -c 8 8 8 --levels 1 save other -c 8 8 8")
    missing = ["layer/1_1_1/0-8_0-8_0-8", "layer/2_2_1/0-8_0-8_8-16", "other/1_1_1/8-16_0-8_0-8"]
    for name in missing:
        Path(name).unlink()
    Path("layer/1_1_1/8-16_0-8_0-8").write_bytes(b"damaged")
    told = line("verify layer", code=2)
    assert "verified save-layer" in told
    assert "finished" not in told
    assert all(f"{name} " in told for name in missing)
    assert "mip 0 0-8_0-8_8-16: cannot decode" in told
    assert "verified layer: 58 of 60 chunks" in line("verify layer --mip 0", code=2)


def test_verify_does_not_need_what_a_layer_was_made_of():
    image()
    line("open image.npy save layer -c 8 16 16")
    Path("image.npy").unlink()
    assert "verified" in line("verify layer")
    chunk = next(path for path in Path("layer").rglob("*") if path.is_file() and path.name[0].isdigit())
    chunk.unlink()
    assert chunk.name in line("verify layer", code=2)


def test_verify_reads_any_layer_chunk_by_chunk():
    image()
    line("open image.npy save layer -c 8 16 16")
    shutil.rmtree("layer.daskflow")
    assert "verified" in line("verify layer")
    chunk = next(path for path in Path("layer").rglob("*") if path.is_file() and path.name[0].isdigit())
    chunk.unlink()
    assert chunk.name in line("verify layer", code=2)
    assert "nowhere" in line("verify nowhere", code=1)


def test_failed_blocks_end_in_status_2_and_retry_runs_only_those(tmp_path):
    image((8, 8, 8))
    (tmp_path / "flaky.py").write_text(
        "import os\n"
        "def execute(chunk):\n"
        "    if chunk.voxel_offset[0] == 4 and chunk.shape[0] == 4 and not os.path.exists('mended'):\n"
        "        raise ValueError('broken there')\n"
        "    return chunk + 1\n"
    )
    words = "--retries 0 open image.npy plugin -f flaky.py save layer -c 4 8 8 -b 4 8 8"
    output = line(words, code=2)
    assert "broken there" in output
    assert "daskflow retry" in line("status layer")
    (tmp_path / "mended").touch()
    shown = line("retry layer", code=1)
    assert "--retries 0 open image.npy plugin -f flaky.py save layer" in shown, "nobody can answer"
    output = line("retry layer --yes")
    assert "finished" in output
    np.testing.assert_array_equal(daskflow.open("layer").read(), np.load("image.npy") + 1)


def test_changed_parameters_are_refused_by_name():
    image()
    line("open image.npy threshold -t 10 save layer")
    output = line("open image.npy threshold -t 20 save layer", code=1)
    assert "threshold" in output
    assert "10" in output
    assert "20" in output


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        ("open missing.npy save a", 1, "open: nothing is stored at"),
        ("open image.npy sav a", 2, "did you mean 'save'"),
        ("cutout -v x", 1, "load-precomputed: no precomputed layer"),
        ("open image.npy save-annotations --output a", 1, "comes from load-points, load-skeleton, load-synapses"),
        ("open image.npy evaluate-segmentation", 1, "-o groundtruth names a result so"),
        ("threshold save a", 1, "there is no volume 'chunk'"),
        ("open image.npy threshold -i other save a", 1, "there is no volume 'other'; there are: chunk"),
        ("open image.npy", 1, "computes nothing"),
        ("open image.npy save a -c 0 8 8", 1, "chunk"),
        ("open image.npy save a -c 8 8 8 -b 12 8 8", 1, "nearest is (16, 8, 8)"),
        ("open image.npy save a -c 8 8", 1, "chunk"),
        ("open image.npy -m 3 save a", 1, "mip 3"),
        ("open image.npy save a.h5 -m 1", 1, "no mips"),
        ("open image.npy crop-margin -m 10 15 20 save a", 1, "leave nothing"),
        ("open image.npy save a -e nothing", 1, "nothing"),
        ("--cluster nowhere open image.npy save a", 1, "nowhere"),
        ("--memory lots open image.npy save a", 1, "lots"),
        ("status nothing", 1, "nothing"),
        ("retry nothing", 1, "nothing"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(words, code, complaint):
    image()
    output = line(words, code=code)
    assert complaint in output
    assert "Traceback" not in output
    left = [path.name for path in Path().rglob("*")]
    assert [name for name in left if name != "a.daskflow"] == ["image.npy"]


def test_plugin_operators_become_commands(tmp_path):
    array = image()
    (tmp_path / "own.py").write_text(
        "import numpy as np\nimport daskflow\nfrom daskflow import Volume\n"
        "@daskflow.operator(group='own')\n"
        "def invert(volume: Volume, *, top: int = 255) -> Volume:\n"
        "    '''Invert grey values.\n\n    Args:\n        volume: an image.\n        top: the greatest.\n    '''\n"
        "    return volume.map_blocks(lambda a: (top - a).astype(np.uint8), dtype=np.uint8)\n"
    )
    line("--plugin-file own.py open image.npy invert --top 255 save-npy -f out.npy")
    np.testing.assert_array_equal(np.load("out.npy"), 255 - array)
    assert "no command 'invert'" in line("open image.npy invert save-npy -f out.npy", code=2)


def test_help_lists_the_commands_in_groups():
    result = subprocess.run([sys.executable, "-m", "daskflow", "--help"], capture_output=True, text=True, check=True)
    for word in ("Stores:", "Segmentation:", "connected-components", "inference", "demo", "neuroglancer"):
        assert word in result.stdout


def test_garbage_is_collected_while_blocks_run(tmp_path):
    image((8, 8, 8))
    (tmp_path / "own.py").write_text(
        "import gc, daskflow, numpy as np\n"
        "def collects(array): return np.full_like(array, gc.isenabled())\n"
        "@daskflow.operator(group='own')\n"
        "def ask(volume: daskflow.Volume) -> daskflow.Volume:\n    'Ask.'\n    return volume.map_blocks(collects)\n"
    )
    words = [
        "--plugin-file",
        "own.py",
        "--cluster",
        "threads",
        "--quiet",
        "open",
        "image.npy",
        "ask",
        "save",
        "out.npy",
    ]
    subprocess.run([sys.executable, "-m", "daskflow", *words], check=True, capture_output=True)
    assert daskflow.open("out.npy").read().all()


def test_plugin_operators_run_on_worker_processes_also_from_files_of_one_name(tmp_path):
    array = image((8, 8, 8))
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.py").write_text(
            "import daskflow\nfrom daskflow import Volume\n"
            f"VALUE = {value}\n"
            "def add(array): return array + VALUE\n"
            "@daskflow.operator(group='own')\n"
            f"def add_{folder}(volume: Volume) -> Volume:\n    '''Add.'''\n    return volume.map_blocks(add)\n"
        )
    line(
        "--plugin-file a/own.py --plugin-file b/own.py --workers 1 --quiet"
        " open image.npy add-a add-b save out.zarr -c 4 8 8"
    )
    np.testing.assert_array_equal(daskflow.open("out.zarr").read(), array + 3)


def test_operators_of_other_packages_are_listed_without_importing_them(tmp_path):
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[daskflow.operators]\nde_noise = not_there:de_noise\n")
    places = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    text = subprocess.run(
        [sys.executable, "-m", "daskflow", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(daskflow.__file__).parents[1],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
    ).stdout
    assert "de-noise" in text
    assert "(plugin)" in text


def test_more_volumes_than_an_operator_takes_are_refused():
    image()
    output = line("open image.npy -o a open image.npy -o b threshold -i a,b save c", code=1)
    assert "threshold: 2 volumes are named, and it takes 1: volume" in output


def test_verify_and_retry_do_not_open_the_viewer(monkeypatch):
    opened = []
    monkeypatch.setattr(view.Viewer, "wait", lambda viewer: opened.append(viewer))
    image((8, 8, 8))
    line("open image.npy save layer neuroglancer")
    assert len(opened) == 1
    line("verify layer")
    line("--yes retry layer")
    assert len(opened) == 1


def test_version():
    assert daskflow.__version__ in line("--version")


def test_line_with_a_lasting_output_keeps_its_ledger_beside_it():
    image()
    compare = "open image.npy threshold -t 99 -o a open image.npy threshold -t 90 -o b evaluate-segmentation -s a -g b"
    assert "rand index" in line(f"{compare} save -i a layer")
    assert "finished" in line("status layer")


def test_voxels_are_cast_on_the_way_in_and_out():
    array = image()
    line("open image.npy save-tif -f a.tif -t float32")
    assert daskflow.open("a.tif").dtype == np.float32
    line("load-tif -f a.tif -d uint16 save-h5 -f a.h5 -d uint32")
    line("load-h5 -f a.h5 -e uint8 save-npy -f back.npy")
    np.testing.assert_array_equal(np.load("back.npy"), array)
    assert daskflow.open("a.h5").dtype == np.uint32


def test_verify_reads_a_layer_of_which_only_parts_were_made_here():
    image()
    line("open image.npy save layer -c 8 16 16")
    shutil.rmtree("layer.daskflow")
    line("open layer --layer-type segmentation voxel-counts")
    line("open layer roi")
    assert "verified" in line("verify layer")


def test_plan_tells_the_shape_for_memory_and_the_memory_for_a_shape():
    image()
    line("open image.npy save layer -c 8 16 16")
    told = line("plan layer --memory 1MB")
    shape = told.split("zyx ")[1].split(":")[0].split()
    assert [int(shape[0]), int(shape[1]) % 16, int(shape[2]) % 16] == [8, 0, 0]
    assert told.split("zyx")[1] == line("plan layer --shape " + " ".join(shape)).split("zyx")[1]
    assert "less than one chunk" in line("plan layer --memory 100B", code=1)


def segmentation():
    labels = np.zeros((32, 32, 32), np.uint32)
    labels[4:28, 8:20, 8:20] = 5
    np.save("labels.npy", labels)
    line("--quiet open labels.npy --voxel-size 8 8 8 --layer-type segmentation save seg --levels 1")


def test_info_tells_what_a_layer_is():
    segmentation()
    output = line("info seg")
    assert "uint32" in output
    assert "16 x 16" in output or "16 16" in output
    assert "1 of 1" in output
    assert "? of 1" in line("info seg --no-scan")
    assert "nothing" in line("info nowhere", code=1)


def test_remove_shows_what_goes_and_asks():
    segmentation()
    refused = CliRunner().invoke(app, ["remove", "seg", "--mip", "1"], input="n\n")
    assert refused.exit_code == 1
    assert "mip 1  1 file," in refused.output
    assert len(list(Path("seg").glob("*/*"))) == 2
    agreed = CliRunner().invoke(app, ["remove", "seg", "--mip", "1"], input="y\n")
    assert agreed.exit_code == 0
    assert "removed 1 file" in agreed.output
    assert len(list(Path("seg").glob("*/*"))) == 1
    assert "removed 1 file" in line("remove seg --mip 0 --start 0 0 0 --size 32 32 32 --yes")


def test_plan_of_a_command_that_works_at_once_changes_nothing(tmp_path):
    segmentation()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert "mip 1  1 file," in line("--plan --yes remove seg --mip 1")
    assert "all that is in it" in line("--plan remove seg")
    assert "segmentation -> image" in line("--plan set seg --layer-type image")
    assert "block" in line("--plan --yes retry seg")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_yes_before_the_command_is_yes_to_remove():
    segmentation()
    assert "removed 1 file" in line("--yes remove seg --mip 1")


def test_remove_asks_nobody_where_nobody_can_answer():
    segmentation()
    assert "Aborted" in line("remove seg --mip 0", code=1)
    assert "both start and size" in line("remove seg --mip 0 --start 0 0 0 --yes", code=1)
    assert len(list(Path("seg").glob("*/*"))) == 2


def test_segments_reach_the_viewer(monkeypatch):
    segmentation()
    seen = {}

    class Viewer:
        url = "http://127.0.0.1:1/"

        def wait(self):
            pass

    monkeypatch.setattr(view, "neuroglancer", lambda volumes, **how: seen.update(how) or Viewer())
    line("open seg neuroglancer --segments 5 7 -p 0")
    assert seen["segments"] == (5, 7)


def test_info_takes_the_options_of_open():
    tifffile.imwrite("times.tif", np.zeros((4, 3, 8, 9), np.uint8), imagej=True, metadata={"axes": "TZYX"})
    assert "--time" in line("info times.tif", code=1)
    assert "3 8 9" in line("info times.tif --time 3 --voxel-size 9 8 8")
    with h5py.File("two.h5", "w") as file:
        file["raw"] = np.zeros((3, 8, 9), np.uint8)
        file["colours"] = np.zeros((3, 8, 9, 2), np.uint8)
    assert "none opened" in line("info two.h5")
    assert "2 channels" in line("info two.h5 --dataset colours --axes zyxc")


@pytest.mark.parametrize("dtype", ["int64", "bool", "float16", "float64"])
def test_cast_that_a_refusal_names_is_one_that_astype_makes(dtype):
    np.save("answer.npy", (np.arange(512).reshape(8, 8, 8) % 2).astype(dtype))
    refused = line("open answer.npy save out", code=1)
    (remedy,) = re.findall(r"\((astype -d \w+)\)", refused)
    line(f"open answer.npy {remedy} save out")


def test_a_refusal_names_its_command_once():
    image()
    words = "open image.npy --layer-type segmentation"
    assert line(f"{words} threshold -t 1", code=1).startswith("Error: threshold takes an image")
    assert line(f"{words} crop", code=1).startswith("Error: crop needs the box")
    assert line(f"{words} save image.npy", code=1).startswith("Error: save: file:")
