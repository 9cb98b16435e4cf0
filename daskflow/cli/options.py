"""Options of commands: from the signatures of operators; and values of several numbers, or labelled triples."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import os
import re
import types
import typing
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from daskflow.cli.chain import Chain, Step
from daskflow.config import meant
from daskflow.errors import ParameterError
from daskflow.operators.aliases import FORMER_LETTERS, FORMER_OPTIONS, TWINS, UNUSED_OPTIONS

if TYPE_CHECKING:
    from daskflow.volume import Operator, Parameter

_MIPS = {"mip", "chunk_mip"}  # which the option --mip before the commands stands for, unless they say otherwise
_SIMPLE: dict[Any, click.ParamType[Any]] = {int: click.INT, float: click.FLOAT, str: click.STRING}
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_LABELLED = re.compile(r"(xyz|zyx):(.+)", re.IGNORECASE)


def command(operator: Operator) -> click.Command:
    """Return the command of an operator: options from its parameters, help from its docstring."""
    from daskflow.volume import Tasks

    params: list[click.Parameter] = [_input(operator, index) for index in range(len(operator.inputs))]
    params += [_parameter(parameter, operator) for parameter in operator.parameters]
    if not _is_sink(operator):
        params.append(_output(operator))
    params.append(click.Option(["--name", "step_name"], metavar="NAME", help="What messages call this command."))

    unused = (words.split() for words in UNUSED_OPTIONS.get(operator.command, ()))
    params += [click.Option(names, hidden=True, expose_value=False) for names in unused]

    def callback(step_name: str | None, **values: Any) -> Step:
        context = click.get_current_context()
        for name in _MIPS.intersection(values):
            if not values[name] and not _said(context, name):
                values[name] = context.find_root().params.get("mip") or values[name]
        command = step_name or operator.command
        if operator.returns is Tasks:
            return Step(command, _refuse, lambda: operator.function(**values))
        first = next((one for one in operator.inputs[:1] if one.required and not _said(context, one.name)), None)

        def apply(chain: Chain) -> None:
            usual = {} if first is None else {first.name: chain.usual(values[first.name], first.annotation)}
            _apply(operator, chain, {**values, **usual})

        return Step(command, apply, always=operator.always)

    return WordCommand(
        operator.command, params=params, callback=callback, help=operator.description, short_help=operator.summary
    )


def _said(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is not ParameterSource.DEFAULT


def opening_options() -> list[click.Parameter]:
    """Return the options of `open` that say how a file is understood, not what of it is read."""
    from daskflow.volume import load_operator

    opening = load_operator("open")
    return [_parameter(one, opening) for one in opening.parameters if one.name not in ("url", "mip", "fill_missing")]


def _refuse(_chain: Chain) -> None:
    raise ParameterError("it says what the whole line works on: put it first, and only one of its kind in a line")


def _apply(operator: Operator, chain: Chain, values: dict[str, Any]) -> None:
    if not operator.keeps_name:
        _apply_once(operator, chain, values)
        return
    first = operator.inputs[0].name
    if operator.later is not None and values[operator.later[0]]:
        own = {name: value for name, value in values.items() if name not in (first, "output_name", *operator.later)}
        chain.later.append((values[operator.later[1]] or "save", functools.partial(operator.function, **own)))
        return
    names = values[first].split(",")
    outputs = (values["output_name"] or values[first]).split(",")
    if len(outputs) != len(names):
        raise ParameterError(f"{len(names)} volumes are named, and {len(outputs)} results: {', '.join(outputs)}")
    for name, output in zip(names, outputs, strict=True):
        _apply_once(operator, chain, {**values, first: name, "output_name": output})


def _apply_once(operator: Operator, chain: Chain, values: dict[str, Any]) -> None:
    from daskflow.cli.task_calls import call

    values = dict(values)
    output = values.pop("output_name", None)
    inputs: list[Any] = []  # None of a plugin, too
    for parameter in operator.inputs:
        names = values.pop(parameter.name)
        if parameter.required:
            inputs += chain.volumes_named(names, parameter.annotation)
        elif names is not None and (names != "chunk" or names in chain.volumes):
            for name in names.split(","):
                inputs += [None] if name == "None" else chain.volumes_named(name, parameter.annotation)
    if len(inputs) > len(operator.inputs) and not any(parameter.variadic for parameter in operator.inputs):
        wanted = ", ".join(parameter.name for parameter in operator.inputs)
        raise ParameterError(f"{len(inputs)} volumes are named, and it takes {len(operator.inputs)}: {wanted}")
    inputs = chain.masked(operator.command, inputs)
    given = [values.pop(p.name) for p in operator.parameters if p.positional]
    result = call(operator, chain, inputs, given, values)
    chain.take(result, output)
    saved = getattr(result, "volume", None)
    if saved is not None and chain.task is None and saved.node.input is inputs[0].node:
        chain.saved(inputs[0], saved)
    if not operator.inputs:
        chain.unread.pop("chunk", None)  # reading a file into it does no harm


def _output(operator: Operator) -> click.Option:
    names, also = ["-o", "--output-name", "output_name"], ["--output-chunk-name", "--output-names"]
    if operator.keeps_name:
        said = "Names of the results; by default those of the volumes."
        return Spelled(names, also=also, metavar="NAMES", help=said)
    said = "Name that the result gets for later commands."
    default = getattr(operator.returns, "line_name", "chunk")
    return Spelled(names, also=also, default=default, show_default=True, metavar="NAME", help=said)


def _input(operator: Operator, index: int) -> click.Option:
    parameter = operator.inputs[index]
    located = getattr(parameter.annotation, "line_name", None)
    if located is not None or parameter.name in ("volume", "volumes"):
        names, also = ["-i", "--input"], ["--input-chunk-name", "--input-names", "--input-name"]
    else:
        dashed = _dashed(parameter.name)
        names = [name for name in (parameter.flag, f"--{dashed}") if name]
        also = [f"--{dashed}-chunk-name", f"--{dashed}-name"]
    many = any(p.variadic for p in operator.inputs[index + 1 :]) or (operator.keeps_name and index == 0)
    named = parameter.required and not parameter.variadic
    return Spelled(
        [*names, parameter.name],
        also=also,
        default=located or ("chunk" if index == 0 else parameter.name if named else None),
        show_default=named,
        hidden=parameter.variadic,
        metavar="NAMES" if many else "NAME",
        help=_sentence(f"Name of {parameter.help or 'the volume'}" + (" Several, with commas." if many else "")),
    )


def _parameter(parameter: Parameter, operator: Operator) -> click.Parameter:
    if parameter.positional:
        return click.Argument([parameter.name], metavar=parameter.name.upper(), shell_complete=_files)
    names = [name for name in (parameter.flag, f"--{_dashed(parameter.name)}") if name]
    kind, many = option_type(parameter.annotation)
    default = None if parameter.required else parameter.default
    if kind is click.BOOL:
        names[-1] += f"/--no-{_dashed(parameter.name)}"
    option = Spelled(
        [*names, parameter.name],
        also=_former_letters(parameter, operator),
        type=None if kind is click.BOOL else kind,
        shell_complete=_files if os.PathLike[str] in typing.get_args(parameter.annotation) else None,
        **({"required": True} if parameter.required else {"default": default}),
        show_default=_shown(default) if default is not None else False,
        help=_sentence(parameter.help),
    )
    if many and not isinstance(kind, Numbers):
        raise TypeError(f"{operator.name}: no option type for {parameter.name}: {parameter.annotation}")
    return option


def _former_letters(parameter: Parameter, operator: Operator) -> list[str]:
    """Return the letters that an option without one has had, of which the command makes no other use."""
    if parameter.flag is not None:
        return []
    used = {one.flag for one in (*operator.inputs, *operator.parameters)} | (set() if _is_sink(operator) else {"-o"})
    own = {one.name for one in operator.parameters}
    firsts = {letter: next((name for name in names if name in own), None) for letter, names in FORMER_LETTERS.items()}
    return [letter for letter, name in firsts.items() if name == parameter.name and letter not in used]


def _is_sink(operator: Operator) -> bool:
    from daskflow.volume import Volume
    from daskflow.volume.registry import is_passed

    return not (operator.returns is Volume or is_passed(operator.returns))


def _files(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Let the shell complete a path."""
    return [CompletionItem(begun, type="file")]


def option_type(annotation: Any) -> tuple[click.ParamType[Any], bool]:
    """Return the type of an option, and whether it takes several values, from an annotation."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    members = [a for a in typing.get_args(annotation) if a is not type(None)] if union else [annotation]
    several = [m for m in members if typing.get_origin(m) in (Sequence, tuple)]
    if several:
        words = [word for m in members if typing.get_origin(m) is Literal for word in typing.get_args(m)]
        return Numbers(float if float in typing.get_args(several[0]) else int, words), True
    if members[:2] == [bool, int]:
        return Degree(), False
    if members[0] is int and len(members) == 2:
        return IntegerOr(typing.get_args(members[1])), False
    (member,) = members[:1]
    if typing.get_origin(member) is Literal:
        return Words(typing.get_args(member)), False
    if member is bool:
        return click.BOOL, False
    if member in _SIMPLE:
        return _SIMPLE[member], False
    raise TypeError(f"no option type for {annotation}")


def _shown(default: Any) -> str | bool:
    if isinstance(default, tuple):
        return " ".join(f"{number:g}" for number in default)
    return True


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


class Spelled(click.Option):
    """An option of which help and errors show some of the names that are understood."""

    def __init__(self, names: Sequence[str], *, also: Sequence[str], **given: Any) -> None:
        super().__init__([*names, *also], **given)
        self.shown = [name for name in self.opts if name not in also]

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the names and the help."""
        with self._few():
            return super().get_help_record(ctx)

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return the names for a message."""
        with self._few():
            return super().get_error_hint(ctx)

    @contextlib.contextmanager
    def _few(self) -> Iterator[None]:
        every, self.opts = self.opts, self.shown
        try:
            yield
        finally:
            self.opts = every


class Words(click.Choice[Any]):
    """One of some words; what is near is suggested."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word, or refuse another one."""
        known = list(map(str, self.choices))
        if str(value) not in known:
            self.fail(f"{value!r} is not one of {', '.join(known)}{meant(str(value), known)}", param, ctx)
        return super().convert(value, param, ctx)


class IntegerOr(click.types.IntParamType):
    """A whole number, or one of some words."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        """Return how help shows the value."""
        return "|".join(["INTEGER", *self.words])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a word as it is, or a number."""
        return value if value in self.words else super().convert(value, param, ctx)


class Degree(click.types.IntParamType):
    """A whole number, which is 1 where none follows the option."""


class Numbers(click.ParamType[tuple[float, ...]]):
    """Some numbers, int or float: ``64 512 512``, ``64,512,512``, ``zyx:64,512,512`` or ``xyz:512,512,64``.

    Attributes:
        words: what may stand instead of numbers.
    """

    def __init__(self, kind: type[int] | type[float], words: Sequence[str] = ()) -> None:
        self.kind = kind
        self.words = tuple(words)
        self.name = "numbers"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        """Return how help shows the value: a triple where the help says (zyx)."""
        triple = "zyx" in (getattr(param, "help", None) or "")
        return "|".join(["Z Y X" if triple else "NUMBERS", *self.words])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a tuple of numbers, in zyx order."""
        if not isinstance(value, str) or value in self.words:
            return value
        label = _LABELLED.fullmatch(value)
        texts = [text for text in re.split(r"[,\s]+", label[2] if label else value) if text]
        try:
            numbers = tuple(self.kind(text) for text in texts)
        except ValueError:
            kind = "whole numbers" if self.kind is int else "numbers"
            self.fail(f"{value!r} is not {kind} like '64 512 512' or 'xyz:512,512,64'", param, ctx)
        if label and len(numbers) != 3:
            self.fail(f"{value!r} labels three axes but has {len(numbers)} numbers", param, ctx)
        return numbers[::-1] if label and label[1].lower() == "xyz" else numbers


def gather_numbers(command: click.Command, args: Sequence[str]) -> list[str]:
    """Return the words with this command's options first, and the numbers after each joined to one word.

    Only the words of this command are touched: in a chain, the next command begins at the first word that is neither
    an option, nor an option's value, nor an argument.
    """
    known = {name: param for param in command.params for name in (*param.opts, *param.secondary_opts)}
    missing = sum(isinstance(param, click.Argument) for param in command.params)
    options: list[str] = []
    arguments: list[str] = []
    words = list(args)
    former = FORMER_OPTIONS.get(command.name or "", {})
    while words:
        name, equals, value = words[0].partition("=")
        if name in former:
            words[:1] = [*former[name][:-1], former[name][-1] + equals + value]
        if not words[0].startswith("-"):
            if len(arguments) == missing:
                break
            arguments.append(words.pop(0))
            continue
        option = known.get(words[0])
        options.append(words.pop(0))
        if isinstance(option, click.Option) and isinstance(option.type, Degree) and not (words and words[0].isdigit()):
            options.append("1")
        elif isinstance(option, click.Option) and not option.is_flag and not option.count and words:
            taken = _numbers(words) if isinstance(option.type, Numbers) else 1
            options.append(",".join(words[:taken]))
            del words[:taken]
    return [*options, *arguments, *words]


def _twin(own: click.Command, words: Sequence[str]) -> click.Command | None:
    """Return the command that chunkflow calls like this one, if an option before the next command is only its own."""
    if own.name not in TWINS:
        return None
    from daskflow.volume import load_operator

    others = {word.partition("=")[0] for word in own_words(words) if word.startswith("-")} - _spelled(own)
    if not others:
        return None
    twin = command(load_operator(TWINS[own.name]))
    return twin if others & _spelled(twin) else None


def own_words(words: Sequence[str]) -> Iterator[str]:
    """Yield the words before the next command."""
    from daskflow.volume import has_operator

    return itertools.takewhile(lambda word: word.startswith("-") or not has_operator(word.replace("-", "_")), words)


def _spelled(one: click.Command) -> set[str]:
    return {name for param in one.params for name in (*param.opts, *param.secondary_opts)}


def _numbers(words: Sequence[str]) -> int:
    """Return how many words at the beginning are numbers, at least one."""
    count = next((at for at, word in enumerate(words) if not _NUMBER.fullmatch(word)), len(words))
    return max(1, count)


class WordCommand(click.Command):
    """A command whose options may take several numbers."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the words as those of its twin, if an option says that this is meant."""
        twin = _twin(self, args)
        if twin is not None:
            return twin.make_context(info_name, args, parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words of this command and leave the rest of the chain."""
        try:
            return super().parse_args(ctx, gather_numbers(self, args))
        except click.NoSuchOption as error:
            name = error.option_name
            if any(name in param.opts for param in ctx.find_root().command.params):
                raise click.UsageError(f"{name} goes before the first command: daskflow {name} ...", ctx) from None
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and collect garbage from now on, which `main` has put off."""
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        return super().invoke(ctx)
