"""Model files that import what lies beside them."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from daskflow.errors import ModelError
from daskflow.inference.network import ModelFile, Network

PATCHES = np.ones((1, 1, 2, 2, 2), np.float32)
BODY = """
class PatchInferencer:
    def __init__(self, weight_path, output_patch_mask):
        pass

    def __call__(self, patches):
        {lazy}
        return patches * {value}
"""


@pytest.fixture
def folder(tmp_path):
    """Write files below a folder, by their paths."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path.joinpath(*name.split("__")[:-1], f"{name.split('__')[-1]}.py".replace("INIT", "__init__"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def model(imports, value="value", lazy=""):
    return f"{imports}\n{BODY.format(value=value, lazy=lazy)}"


def network(path):
    return Network("universal", (2, 2, 2), (2, 2, 2), channels=1, model=ModelFile.at(path))


def answer(path):
    return float(network(path).engine()(PATCHES)[0, 0, 0, 0, 0])


LAYOUTS = {
    "a module": ("from helper import value", {"helper": "value = 3"}),
    "a module as a whole": ("import helper; value = helper.value", {"helper": "value = 3"}),
    "a chain of modules": ("from helper import value", {"helper": "from deeper import *", "deeper": "value = 3"}),
    "a circle of modules": (
        "from helper import value",
        {"helper": "value = 3\nimport other", "other": "import helper"},
    ),
    "a package": ("from parts.block import value", {"parts__INIT": "", "parts__block": "value = 3"}),
    "a package that re-exports": (
        "from parts import value",
        {"parts__INIT": "from .block import value", "parts__block": "from . import deep\nvalue = deep.value",
         "parts__deep": "value = 3"},
    ),
    "a nested package": (
        "import parts.inner.block; value = parts.inner.block.value",
        {"parts__INIT": "", "parts__inner__INIT": "", "parts__inner__block": "from ..top import value",
         "parts__top": "from helper import value", "helper": "value = 3"},
    ),
    "a nested module by another name": (
        "import parts.block as block; value = block.value", {"parts__INIT": "", "parts__block": "value = 3"}
    ),
    "a folder without __init__.py": ("from parts.block import value", {"parts__block": "value = 3"}),
    "a submodule of a package": ("from parts import block; value = block.value", {"parts__block": "value = 3"}),
    "a relative module": ("from .helper import value", {"helper": "from . import deep\nvalue = deep.value",
                                                       "deep": "value = 3"}),
    "a name that Python has": ("from statistics import value", {"statistics": "value = 3"}),
    "one of two": (
        "try:\n    from absent import value\nexcept ImportError:\n    from helper import value", {"helper": "value = 3"}
    ),
    "a module by a function": (
        "import importlib\nvalue = importlib.import_module('helper').value", {"helper": "value = 3"}
    ),
    "a submodule by a function": (
        "from importlib import import_module\nvalue = import_module('parts.block').value",
        {"parts__INIT": "", "parts__deep": "value = 3",
         "parts__block": "import importlib\nvalue = importlib.import_module('.deep', __package__).value"},
    ),
    "a module by __import__": ("value = __import__('helper').value", {"helper": "value = 3"}),
    "all that a package names": (
        "from parts import *\nvalue = block.value", {"parts__INIT": "__all__ = ['block']", "parts__block": "value = 3"}
    ),
    "a file that is run": (
        "import runpy, os\nvalue = runpy.run_path(os.path.join(os.path.dirname(__file__), 'helper.py'))['value']",
        {"helper": "value = 3"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_neighbours_are_imported_and_in_the_fingerprint(folder, layout):
    imports, files = LAYOUTS[layout]
    place = folder(net=model(imports), **files)
    assert answer(place / "net.py") == 3
    described = network(place / "net.py").describe()["model"]
    assert len(described["neighbours"]) == len(files)
    name = next(name for name, text in files.items() if "value = 3" in text)
    folder(**{name: files[name].replace("value = 3", "value = 4")})
    assert answer(place / "net.py") == 4
    assert network(place / "net.py").describe()["model"] != described


def test_a_file_that_a_neighbour_reads_is_in_the_fingerprint(folder):
    read = "from pathlib import Path\nvalue = int((Path(__file__).parent / 'value.txt').read_text())"
    place = folder(net=model("from parts.block import value"), parts__block=read)
    (place / "parts/value.txt").write_text("3")
    planned = network(place / "net.py")
    assert "/parts/value.txt" in planned.describe()["model"]["neighbours"]
    (place / "parts/value.txt").write_text("4")
    assert answer(place / "net.py") == 4
    with pytest.raises(ModelError, match=r"value\.txt has sha256 .*plan the job again"):
        planned.engine()


def test_imports_within_functions_are_found_too(folder):
    place = folder(net=model("", lazy="from helper import value"), helper="value = 3")
    assert answer(place / "net.py") == 3


@pytest.mark.parametrize(
    "imports",
    ["from ..layers import value", "from lab.layers import value", "import lab.layers as l; value = l.value"],
)
def test_a_model_within_a_package_is_a_part_of_it(folder, imports):
    files = {"lab__INIT": "", "lab__models__INIT": "from lab.layers import value", "lab__layers": "value = 3"}
    place = folder(lab__models__net=model(imports), **files)
    assert answer(place / "lab" / "models" / "net.py") == 3
    found = network(place / "lab" / "models" / "net.py").describe()["model"]["neighbours"]
    assert set(found) == {"lab", "lab.models", "lab.layers"}


@pytest.mark.parametrize(
    "added",
    [
        "sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))",
        "sys.path.insert(0, str(Path(__file__).resolve().parent.parent))",
        "ROOT = Path(__file__).parents[1]\nsys.path.insert(0, str(ROOT))",
    ],
)
def test_folders_that_a_model_adds_to_the_path_are_looked_through(folder, monkeypatch, added):
    monkeypatch.setattr(sys, "path", [*sys.path])
    head = f"import os, sys\nfrom pathlib import Path\n{added}\nfrom helper import value"
    place = folder(models__net=model(head), helper="value = 3")
    path = place / "models" / "net.py"
    assert answer(path) == 3
    assert set(network(path).describe()["model"]["neighbours"]) == {"helper"}


@pytest.mark.parametrize("on_path", [False, True])
def test_modules_of_the_working_directory_are_found_as_in_a_script(folder, monkeypatch, on_path):
    place = folder(models__net=model("from helper_of_cwd import value"), helper_of_cwd="value = 3")
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [*([""] if on_path else []), *sys.path])
    assert answer(place / "models" / "net.py") == 3
    assert set(network(place / "models" / "net.py").describe()["model"]["neighbours"]) == {"helper_of_cwd"}


def test_two_models_may_have_a_neighbour_of_one_name(folder):
    text = model("from helper import value", lazy="from helper import value as again; assert again == value")
    place = folder(a__net=text, b__net=text, a__helper="value = 3", b__helper="value = 4")
    first, second = (network(place / name / "net.py").engine() for name in "ab")
    for engine, value in ((first, 3), (second, 4), (first, 3)):
        assert engine(PATCHES)[0, 0, 0, 0, 0] == value
    assert "helper" not in sys.modules


def test_a_neighbour_that_changed_after_planning_is_refused(folder):
    place = folder(net=model("from helper import value"), helper="value = 3")
    planned = network(place / "net.py")
    folder(helper="value = 4")
    with pytest.raises(ModelError, match=r"helper\.py has sha256 .*plan the job again"):
        planned.engine()


def test_installed_packages_are_left_to_python(folder):
    place = folder(net=model("import numpy as np\nimport os.path\nvalue = np.float32(3)"), numpy__notes="x = 1")
    assert answer(place / "net.py") == 3
    assert "neighbours" not in network(place / "net.py").describe()["model"]


def test_modules_that_no_import_statement_names_are_refused(folder):
    head = "import importlib\nvalue = importlib.import_module(f'.hel{\"per\"}', __package__).value"
    place = folder(net=model(head), helper="value = 3")
    with pytest.raises(ModelError, match="no module named 'helper' beside the model; name it in an import statement"):
        answer(place / "net.py")


def test_a_process_elsewhere_imports_the_same_files(folder, tmp_path):
    place = folder(net=model("from helper import value"), helper="value = 3")
    (tmp_path / "network.pickle").write_bytes(pickle.dumps(network(place / "net.py")))
    code = (
        "import pickle, sys, numpy as np; network = pickle.load(open(sys.argv[1], 'rb'));"
        "print(network.engine()(np.ones((1, 1, 2, 2, 2), np.float32)).max())"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "network.pickle")]
    assert subprocess.run(run, cwd="/", check=True, capture_output=True, text=True).stdout.strip() == "3.0"
