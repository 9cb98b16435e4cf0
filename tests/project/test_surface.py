"""What `import daskflow` offers."""

from __future__ import annotations

import subprocess
import sys

import daskflow


def test_all_is_sorted_without_regard_to_case():
    assert daskflow.__all__ == sorted(daskflow.__all__, key=str.casefold)
    assert len(set(daskflow.__all__)) == len(daskflow.__all__)


def test_every_public_name_can_be_had():
    missing = [name for name in daskflow.__all__ if getattr(daskflow, name, None) is None]
    assert not missing


def test_dir_lists_every_public_name():
    assert set(daskflow.__all__) <= set(dir(daskflow))


def test_an_operator_keeps_its_name_when_a_subpackage_of_that_name_is_imported():
    code = "import daskflow; from daskflow.inference.network import Network; assert callable(daskflow.inference)"
    subprocess.run([sys.executable, "-c", code], check=True)
