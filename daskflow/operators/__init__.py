"""One capability per file or folder, ``<group>/<name>``: functions from volumes to volumes or jobs.

Attributes:
    GROUPS: the group of every operator by its name; nothing is imported to find it.
"""

import functools
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from daskflow.operators.aliases import ALIASES

GROUPS = {
    path.stem: path.parent.name
    for path in sorted(Path(__file__).parent.glob("[!_]*/[!_]*"))
    if path.suffix == ".py" or (path / "__init__.py").is_file()
} | {name: alias.group for name, alias in ALIASES.items()}


@functools.cache
def function(name: str) -> Callable[..., Any]:
    """Return the function of an operator; only what it needs is imported."""
    if name in ALIASES:
        from daskflow.operators._composing import compose

        return compose(name, ALIASES[name])
    found: Callable[..., Any] = getattr(import_module(f"{__name__}.{GROUPS[name]}.{name}"), name)
    return found
