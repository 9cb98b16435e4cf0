"""The function of an alias, made of the operators that it calls."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from daskflow.geometry import BoundingBox
from daskflow.operators.aliases import Alias
from daskflow.operators.tasks._flags import holds_something
from daskflow.stores import kvstore
from daskflow.stores.opening import file_of, format_named
from daskflow.volume import Flag, Operator, Parameter, Volume, load_operator, operator
from daskflow.volume.registry import join_docstring, split_docstring


def compose(name: str, alias: Alias) -> Callable[..., Any]:
    """Return the function of an alias, with the signature and docstring that its operators give it."""
    steps = [load_operator(step) for step in alias.steps]
    main = next((step for step in steps if not _changes(step)), steps[-1])
    options = [_option(words, steps) for words in alias.options.split(", ")]
    own = [parameter for parameter, _, _ in options]
    hints = {one.name: Annotated[one.annotation, Flag(one.flag)] if one.flag else one.annotation for one in own}
    kinds = {inspect.Parameter.POSITIONAL_OR_KEYWORD: main.inputs, inspect.Parameter.KEYWORD_ONLY: own}
    signature = inspect.Signature(
        [
            inspect.Parameter(one.name, kind, default=one.default, annotation=one.annotation)
            for kind, parameters in kinds.items()
            for one in parameters
        ],
        return_annotation=main.returns,
    )

    def call(*args: Any, **given: Any) -> Any:
        bound = signature.bind(*args, **given)
        bound.apply_defaults()
        result = bound.args
        for step in steps:
            chosen: dict[str, Any] = {}
            for parameter, home, target in options:
                value = bound.kwargs.get(parameter.name)
                if home is step and value is not None:
                    path = target.endswith("/")
                    at = target.rstrip("/")
                    chosen[at] = kvstore.join(os.fspath(chosen[at]), *value.strip("/").split("/")) if path else value
            fixed = alias.steps[step.name]
            if "url" in chosen and "format" in fixed:
                chosen["url"] = _file(chosen["url"], fixed["format"], result, bound.kwargs)
            if chosen or step is main:
                result = (step.function(*result, **chosen, **fixed),)
        return result[0]

    _, _, rest = split_docstring(inspect.getdoc(main.function) or "")
    call.__doc__ = join_docstring(alias.summary, {one.name: one.help for one in (*main.inputs, *own)}, rest)
    call.__name__ = call.__qualname__ = name
    call.__module__ = "daskflow"
    call.__signature__ = signature  # type: ignore[attr-defined]  # which inspect takes for the function's
    call.__annotations__ = {**{one.name: Volume for one in main.inputs}, **hints, "return": main.returns}
    of_task = _read_of_task if alias.steps.get("open") == {"format": "hdf5"} else None
    if "file_name" in signature.parameters and "save" in alias.steps:
        of_task = functools.partial(_written_of_task, alias.steps["save"]["format"])
    return operator(group=alias.group, in_task=of_task)(call)


def _written_of_task(format_name: str, values: dict[str, Any], box: BoundingBox) -> dict[str, Any]:
    return {**values, "file_name": file_of(values["file_name"], format_name, box)}


def _read_of_task(values: dict[str, Any], box: BoundingBox) -> dict[str, Any] | None:
    """Return the options of what reads an HDF5 file, with a task's box in a name that is a prefix.

    They are None where the task has no such file, or one that holds nothing.
    """
    file = file_of(values["file_name"], "hdf5", box)
    if file == os.fspath(values["file_name"]):
        return values
    return {**values, "file_name": file} if holds_something(kvstore.normalise(file)) else None


def _file(url: Any, format_name: str, inputs: Sequence[Any], given: Mapping[str, Any]) -> Any:
    """Return the file that a prefix means for the box that is written, or that the options of a region name."""
    known = format_named(format_name)
    if known.store.of_chunks or known.store.sections:
        return url
    if inputs:
        return file_of(url, format_name, inputs[0].box)
    start, stop, size = (given.get(f"cutout_{name}") for name in ("start", "stop", "size"))
    if start is None or kvstore.exists(kvstore.normalise(os.fspath(url))):
        return url
    if size is not None:
        return file_of(url, format_name, BoundingBox.from_size(start, size))
    return url if stop is None else file_of(url, format_name, BoundingBox(start, stop))


def _option(words: str, steps: list[Operator]) -> tuple[Parameter, Operator, str]:
    """Return an option as the table names it, the step that takes it, and what that calls it."""
    *letter, said = words.split()
    said, *choices = said.split("|")
    name, _, target = said.partition("=")
    needed, target = target.endswith("!"), (target or name).removesuffix("!")
    for step in steps:
        for known in step.parameters:
            if known.name == target.rstrip("/"):
                own: dict[str, Any] = {"name": name, "flag": "".join(letter) or None, "positional": False}
                if target.endswith("/"):
                    own |= {"annotation": str | None, "default": None, "help": "path inside it."}
                elif choices:
                    own |= {
                        "annotation": Literal[tuple(choices)],
                        "default": choices[0],
                        "help": " or ".join(choices) + ".",
                    }
                elif needed:
                    own |= {"annotation": str | os.PathLike[str], "default": inspect.Parameter.empty}
                elif known.positional:
                    own["annotation"] = str | os.PathLike[str]
                elif known.required and _changes(step):
                    own |= {"annotation": known.annotation | None, "default": None}
                return dataclasses.replace(known, **own), step, target
    raise LookupError(f"none of {', '.join(step.command for step in steps)} has an option {target!r}")


def _changes(step: Operator) -> bool:
    """Return whether an operator makes a volume of a volume."""
    return bool(step.inputs) and step.returns is Volume
