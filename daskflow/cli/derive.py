"""From an operator's signature to its command."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any, Literal

import click

from daskflow.cli.chain import Chain, Step
from daskflow.cli.words import Numbers, WordCommand
from daskflow.errors import ParameterError
from daskflow.volume import Operator, Parameter, Volume, load_operator

_SIMPLE: dict[Any, click.ParamType[Any]] = {int: click.INT, float: click.FLOAT, str: click.STRING}


def command(operator: Operator) -> click.Command:
    """Return the command of an operator: options from its parameters, help from its docstring."""
    params: list[click.Parameter] = [_input(operator, index) for index in range(len(operator.inputs))]
    params += [_parameter(parameter, operator) for parameter in operator.parameters]
    if operator.returns is Volume:
        params.append(
            click.Option(
                ["-o", "--output-chunk-name", "--output-names", "--output-name", "output_name"],
                default="chunk",
                show_default=True,
                metavar="NAME",
                help="Name that the result gets for later commands.",
            )
        )

    def callback(**values: Any) -> Step:
        return Step(operator.command, lambda chain: _apply(operator, chain, values))

    return WordCommand(
        operator.command,
        params=params,
        callback=callback,
        help=operator.description,
        short_help=operator.summary,
    )


def opening_options() -> list[click.Parameter]:
    """Return the options of `open` that say how a file is understood, not what of it is read."""
    opening = load_operator("open")
    return [_parameter(one, opening) for one in opening.parameters if one.name not in ("url", "mip", "fill_missing")]


def _apply(operator: Operator, chain: Chain, values: dict[str, Any]) -> None:
    values = dict(values)
    output = values.pop("output_name", None)
    inputs: list[Volume] = []
    for parameter in operator.inputs:
        if not parameter.required and values[parameter.name] is None:
            values.pop(parameter.name)
            continue
        inputs += chain.volumes_named(values.pop(parameter.name))
    if len(inputs) > len(operator.inputs) and not any(parameter.variadic for parameter in operator.inputs):
        wanted = ", ".join(parameter.name for parameter in operator.inputs)
        raise ParameterError(f"{len(inputs)} volumes are named, and it takes {len(operator.inputs)}: {wanted}")
    given = [values.pop(p.name) for p in operator.parameters if p.positional]
    result = operator.function(*inputs, *given, **values)
    chain.take(result, output)


def _input(operator: Operator, index: int) -> click.Option:
    parameter = operator.inputs[index]
    if parameter.name in ("volume", "volumes"):
        names = ["-i", "--input-chunk-name", "--input-names", "--input-name"]
    else:
        names = [name for name in (parameter.flag, f"--{_dashed(parameter.name)}-chunk-name") if name]
    many = any(p.variadic for p in operator.inputs[index + 1 :])
    named = parameter.required and not parameter.variadic
    return click.Option(
        [*names, parameter.name],
        default="chunk" if index == 0 else parameter.name if named else None,
        show_default=named,
        hidden=parameter.variadic,
        metavar="NAMES" if many else "NAME",
        help=_sentence(f"Name of {parameter.help or 'the volume'}" + (" Several, with commas." if many else "")),
    )


def _parameter(parameter: Parameter, operator: Operator) -> click.Parameter:
    if parameter.positional:
        return click.Argument([parameter.name], metavar=parameter.name.upper())
    names = [name for name in (parameter.flag, f"--{_dashed(parameter.name)}") if name]
    kind, many = option_type(parameter.annotation)
    default = None if parameter.required else parameter.default
    if kind is click.BOOL:
        names[-1] += f"/--no-{_dashed(parameter.name)}"
    option = click.Option(
        [*names, parameter.name],
        type=None if kind is click.BOOL else kind,
        required=parameter.required,
        default=default,
        show_default=_shown(default) if default is not None else False,
        help=_sentence(parameter.help),
    )
    if many and not isinstance(kind, Numbers):
        raise TypeError(f"{operator.name}: no option type for {parameter.name}: {parameter.annotation}")
    return option


def option_type(annotation: Any) -> tuple[click.ParamType[Any], bool]:
    """Return the type of an option, and whether it takes several values, from an annotation.

    Raises:
        TypeError: no option can be made of it.
    """
    members = [a for a in typing.get_args(annotation) if a is not type(None)] if _is_union(annotation) else [annotation]
    several = [m for m in members if typing.get_origin(m) in (Sequence, tuple)]
    if several:
        words = [word for m in members if typing.get_origin(m) is Literal for word in typing.get_args(m)]
        return Numbers(float if float in typing.get_args(several[0]) else int, words), True
    (member,) = members[:1]
    if typing.get_origin(member) is Literal:
        return click.Choice(typing.get_args(member)), False
    if member is bool:
        return click.BOOL, False
    if member in _SIMPLE:
        return _SIMPLE[member], False
    raise TypeError(f"no option type for {annotation}")


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _shown(default: Any) -> str | bool:
    if isinstance(default, tuple):
        return " ".join(f"{number:g}" for number in default)
    return True


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
