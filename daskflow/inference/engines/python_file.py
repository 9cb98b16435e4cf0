"""Model files in Python: running one runs its author's code, so they come from explicit local paths only."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from daskflow.errors import ModelError
from daskflow.inference.network import ModelFile


def run_model_file(file: ModelFile) -> ModuleType:
    """Return the module that a Python file makes when it is run.

    Raises:
        ModelError: it is no Python file, has changed, or raises.
    """
    path = file.verified()
    name = f"daskflow_model_{file.sha256[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"model file {path} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ModelError(f"model file {path} does not run: {error!r}") from error
    return module
