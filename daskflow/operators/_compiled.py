"""Functions that numba compiles when they are first called on a machine; loaded only where one is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile a function that others which are `kept` call; Python's lock is let go."""
    made: Any = numba.njit(nogil=True, error_model="numpy")(function)
    return cast("F", made)


def kept(function: F) -> F:
    """Compile a function and keep the machine code beside its file or in the user's cache, if one can be written."""
    try:
        made: Any = numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:
        return compiled(function)
    return cast("F", made)
