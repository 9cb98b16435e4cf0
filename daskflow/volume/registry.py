"""Operators: found by file name, described by their signature.

An operator is a function in a file or folder of its own name, ``daskflow/operators/<group>/<name>``, an alias in the
table ``daskflow/operators/aliases.py``, or in a plugin: a file given by path, or an entry point of the group
``daskflow.operators``.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.plugins import entry_points

if TYPE_CHECKING:
    from daskflow.volume.kinds import Takes

F = TypeVar("F", bound=Callable[..., Any])
InTask = Callable[[dict[str, Any], BoundingBox], dict[str, Any] | None]
T = TypeVar("T")

_ATTRIBUTE = "__daskflow_operator__"
_PARTS = re.compile(
    r"(?P<text>.*?)(?:^Args:\n(?P<args>.*?))?(?P<rest>^(?:Returns|Raises|Yields|Examples?):\n.*)?\Z",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Flag:
    """A short option letter for a parameter on the command line, e.g. ``Annotated[float, Flag("-t")]``."""

    letter: str


@dataclass(frozen=True)
class Parameter:
    """One option of an operator.

    Attributes:
        name: in Python.
        annotation: its type, without what `Annotated` adds.
        default: its default; `inspect.Parameter.empty` when it is required.
        help: its line in the docstring.
        flag: its short option, or None.
        positional: it may be given by position.
        variadic: it takes any number of values.
    """

    name: str
    annotation: Any
    default: Any
    help: str
    flag: str | None
    positional: bool = False
    variadic: bool = False

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True)
class Operator:
    """A function as the command line, the reference pages and the test table see it.

    Attributes:
        name: the function's name.
        group: the heading it is listed under.
        function: the function itself.
        inputs: the volumes, and objects that are passed on like them, that it takes, in order.
        parameters: its other parameters, in order.
        returns: its return annotation.
        keeps_name: on the command line, its result takes the place of its first volume unless it is given a name, and
            it may be applied to several volumes.
        always: on the command line, it is applied to a task that is skipped, too.
        later: options by which it changes, instead of its volume, what a later command gets: one that says so, and
            one that names the command.
        in_task: returns what its options are for a task, given its box, None where there is nothing to be read.
        by_task: returns whether, with some inputs and options, it works on the box of each task, not lazily on whole
            volumes.
        takes_task: whether its first argument is the task of the line.
    """

    name: str
    group: str
    function: Callable[..., Any]
    inputs: tuple[Parameter, ...]
    parameters: tuple[Parameter, ...]
    returns: Any
    keeps_name: bool = False
    always: bool = False
    later: tuple[str, str] | None = None
    in_task: InTask | None = None
    by_task: Callable[..., bool] | None = None
    takes_task: bool = False

    @property
    def command(self) -> str:
        """Its name on the command line."""
        return self.name.replace("_", "-")

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def description(self) -> str:
        """Its docstring up to the first section."""
        return split_docstring(inspect.getdoc(self.function) or "")[0]


def operator(
    *,
    group: str = "plugins",
    takes: Takes | None = None,
    keeps_name: bool = False,
    always: bool = False,
    later: tuple[str, str] | None = None,
    in_task: InTask | None = None,
    by_task: Callable[..., bool] | None = None,
) -> Callable[[F], F]:
    """Register a function as an operator.

    The help of a parameter is its line in the docstring, or else a text in its type: ``Annotated[int, "voxels ..."]``.

    Args:
        group: the heading it is listed under; daskflow's own are listed under the name of their folder.
        takes: what its volumes must be: image (no segmentation) or labels (none of them negative); anything unless
            given. Others are refused when it is called, negative labels when they are read.
        keeps_name: see `Operator`.
        always: see `Operator`.
        later: see `Operator`.
        in_task: see `Operator`.
        by_task: see `Operator`.
    """
    said = {
        "group": group,
        "keeps_name": keeps_name,
        "always": always,
        "later": later,
        "in_task": in_task,
        "by_task": by_task,
    }

    def mark(function: F) -> F:
        _complete(function)
        marked = function if takes is None else _taking(takes, function)
        setattr(marked, _ATTRIBUTE, said)
        return marked

    return mark


def _complete(function: Callable[..., Any]) -> None:
    """Put the help that types have into the docstring, where that says nothing of a parameter."""
    text, args, rest = split_docstring(inspect.getdoc(function) or "")
    names = list(inspect.signature(function).parameters)
    if all(name in args for name in names):
        return
    hints = typing.get_type_hints(function, include_extras=True)
    helps = {name: args.get(name) or _extra(str, hints.get(name)) for name in names}
    described = {name: said for name, said in helps.items() if said}
    if len(described) > len(args):
        function.__doc__ = join_docstring(text, described, rest)


def _taking(takes: Takes, function: F) -> F:
    """Return a function that is given volumes of one kind alone."""
    signature = inspect.signature(function)
    command = function.__name__.replace("_", "-")

    @functools.wraps(function)
    def checked(*args: Any, **options: Any) -> Any:
        from daskflow.volume.kinds import taken
        from daskflow.volume.volume import Volume

        try:
            bound = signature.bind(*args, **options)
        except TypeError as error:
            own = ", ".join(name for name in signature.parameters if name not in options)
            raise TypeError(f"{function.__name__}() {error}; it also takes {own}") from None
        for name, value in bound.arguments.items():
            if isinstance(value, Volume):
                bound.arguments[name] = taken(value, takes, command, name)
        return function(*bound.args, **bound.kwargs)

    return checked  # type: ignore[return-value]  # what wraps() copied makes it the same to its callers


def operator_names() -> list[str]:
    """Return the names of all operators, sorted; nothing is imported."""
    return sorted({*_groups(), *(point.name for point in entry_points("daskflow.operators"))})


def has_operator(name: str) -> bool:
    """Return whether there is an operator of this name; plugins are looked through only where no own one has it."""
    return name in _groups() or any(point.name == name for point in entry_points("daskflow.operators"))


@functools.cache
def load_operator(name: str) -> Operator:
    """Return an operator by its name."""
    if name in _groups():
        return describe_operator(importlib.import_module("daskflow.operators").function(name))
    for point in entry_points("daskflow.operators"):
        if point.name == name:
            return describe_operator(point.load())
    raise ParameterError(f"there is no operator {name!r}; there are {', '.join(operator_names())}")


def load_file(path: str | Path) -> list[Operator]:
    """Return the operators that a Python file defines; the file is executed.

    What it defines is pickled with its code, so that workers need not find the file.
    """
    import cloudpickle

    path = Path(path)
    place = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"daskflow_plugin_{path.stem}_{place}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ParameterError(
            f"there is no Python file {path}" if not path.is_file() else f"{path} is not a Python file"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    cloudpickle.register_pickle_by_value(module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ParameterError(f"plugin {path} does not run: {error!r}") from error
    found = [
        value for value in vars(module).values() if getattr(value, "__module__", "") == spec.name and is_operator(value)
    ]
    if not found:
        raise ParameterError(f"plugin {path} defines no function with @daskflow.operator")
    return [describe_operator(function) for function in found]


def is_operator(value: Any) -> bool:
    """Return whether `operator` has marked a function."""
    return hasattr(value, _ATTRIBUTE)


def describe_operator(function: Callable[..., Any]) -> Operator:
    """Return what the signature and docstring of an operator say."""
    from daskflow.volume.tasks import BoxTask
    from daskflow.volume.volume import Volume

    if not is_operator(function):
        raise ParameterError(f"{function.__qualname__} is not an operator; mark it with @daskflow.operator()")
    hints = typing.get_type_hints(function, include_extras=True)
    helps = split_docstring(inspect.getdoc(function) or "")[1]
    inputs: list[Parameter] = []
    parameters: list[Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD or hints[name] is BoxTask:
            continue
        annotation, flag = _plain(hints[name]), _extra(Flag, hints[name])
        described = Parameter(
            name,
            annotation,
            parameter.default,
            helps.get(name, ""),
            flag.letter if flag else None,
            positional=parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD,
            variadic=parameter.kind is inspect.Parameter.VAR_POSITIONAL,
        )
        passed = Volume in (annotation, *typing.get_args(annotation)) or is_passed(annotation)
        (inputs if passed else parameters).append(described)
    name = function.__name__
    said = dict(getattr(function, _ATTRIBUTE))
    if function.__module__.startswith("daskflow.operators."):
        said["group"] = _groups()[name]
    returns = hints.get("return")
    if Volume in typing.get_args(returns):  # of what a plugin may return
        returns = Volume
    task = BoxTask in [hints[name] for name in inspect.signature(function).parameters if name in hints]
    return Operator(
        name,
        function=function,
        inputs=tuple(inputs),
        parameters=tuple(parameters),
        returns=returns,
        takes_task=task,
        **said,
    )


def is_passed(annotation: Any) -> bool:
    """Return whether a type is of objects that a line passes on like volumes."""
    from daskflow.stores.objects.located import Passed

    return isinstance(annotation, type) and issubclass(annotation, Passed)


def _groups() -> dict[str, str]:
    return importlib.import_module("daskflow.operators").GROUPS  # type: ignore[no-any-return]


def _plain(annotation: Any) -> Any:
    """Return a type without what `Annotated` adds to it, or to a member of a union."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _plain(annotation.__origin__)
    if typing.get_origin(annotation) is typing.Union:
        return typing.Union[tuple(_plain(member) for member in typing.get_args(annotation))]  # noqa: UP007
    return annotation


def _extra(kind: type[T], annotation: Any) -> T | None:
    """Return the first of a kind that `Annotated` adds to a type, or to a member of a union."""
    if typing.get_origin(annotation) is typing.Annotated:
        found = [one for one in annotation.__metadata__ if isinstance(one, kind)]
        return found[0] if found else _extra(kind, annotation.__origin__)
    members = typing.get_args(annotation) if typing.get_origin(annotation) is typing.Union else ()
    return next((one for one in (_extra(kind, member) for member in members) if one is not None), None)


def split_docstring(docstring: str) -> tuple[str, dict[str, str], str]:
    """Return the text of a Google-style docstring before its sections, ``Args:`` by name, and the sections after."""
    found = _PARTS.fullmatch(docstring)
    assert found is not None
    args: dict[str, str] = {}
    name = ""
    for line in (found["args"] or "").splitlines():
        if re.match(r" {4}\S.*:", line):
            name, _, first = line.strip().lstrip("*").partition(":")
            args[name] = first.strip()
        elif name and line.strip():
            args[name] += " " + line.strip()
    return found["text"].strip(), args, found["rest"] or ""


def join_docstring(text: str, args: Mapping[str, str], rest: str) -> str:
    """Return a docstring of what `split_docstring` returns."""
    lines = [
        textwrap.fill(f"{name}: {said}", 116, initial_indent=" " * 4, subsequent_indent=" " * 8)
        for name, said in args.items()
    ]
    return "\n".join([text, "", *(["Args:", *lines, ""] if lines else []), rest]).rstrip() + "\n"
