"""Process 3D microscopy volumes blockwise on Dask.

Every operator is a function here: ``daskflow.open(...)``, ``daskflow.threshold(...)``; `dir(daskflow)` lists them.
Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "BlockGrid": "daskflow.geometry",
    "BoundingBox": "daskflow.geometry",
    "Flag": "daskflow.volume",
    "Layout": "daskflow.stores",
    "Volume": "daskflow.volume",
    "VolumeSpec": "daskflow.geometry",
    "connect": "daskflow.clusters",
    "errors": "daskflow",
    "layer_info": "daskflow.layers.info",
    "map_instances": "daskflow.operators.segmentation.instances",
    "merge": "daskflow.jobs",
    "operator": "daskflow.volume",
    "read_levels": "daskflow.operators.image.contrast.levels",
    "read_mesh": "daskflow.stores.objects.layer_objects",
    "read_skeleton": "daskflow.stores.objects.layer_objects",
    "status": "daskflow.jobs",
    "view": "daskflow",
}

_operators: Any = import_module("daskflow.operators")

__all__ = sorted(["__version__", *_HOMES, *_operators.GROUPS], key=str.casefold)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _operators.GROUPS:
        value = _operators.function(name)
    elif _HOMES.get(name) == "daskflow":
        value = import_module(f"daskflow.{name}")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'daskflow' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """The package, in which an operator's name is the operator also where a subpackage is called the same."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _operators.GROUPS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
