"""Write docs/operators.md, the reference of every operator, from signatures and docstrings.

python docs/generate.py          # rewrite the page
python docs/generate.py --check  # fail if it is not what would be written
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import re
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from daskflow.cli.app import app
from daskflow.cli.options import Spelled
from daskflow.volume import Operator, Parameter, Volume, load_operator, operator_names

PAGE = Path(__file__).with_name("operators.md")
HEADER = """# Operators

Every operator is a Python function, `daskflow.<name>`, and a command. A command reads the volume that `-i` names and
names its result by `-o`; the name is `chunk` by default. Triples are z y x; on the command line they may be labelled,
`xyz:512,512,64`. `python docs/generate.py` writes this page from signatures and docstrings.
"""
SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Examples?|Attributes):$", re.MULTILINE)


def page() -> str:
    """Return the whole page."""
    operators = sorted((load_operator(name) for name in operator_names()), key=lambda one: (one.group, one.name))
    grouped = {group: list(members) for group, members in itertools.groupby(operators, key=lambda one: one.group)}
    parts = [HEADER]
    for group, members in grouped.items():
        parts.append(f"* {group}: " + ", ".join(f"[{one.command}](#{one.command})" for one in members))
    parts.append("")
    for group, members in grouped.items():
        parts.append(f"## {group.capitalize()}\n")
        parts += [entry(one) for one in members]
    return re.sub(r"(?<!`)``(?!`)", "`", "\n".join(parts))


def entry(operator: Operator) -> str:
    """Return the entry of one operator."""
    sections = docstring_sections(operator)
    lines = [f"### {operator.command}", "", operator.description, ""]
    lines += ["```text", usage(operator), python_call(operator), "```", ""]
    parameters = [*operator.inputs, *operator.parameters]
    if parameters:
        lines += ["| Python | command line | type | default | |", "|---|---|---|---|---|"]
        lines += [row(operator, parameter) for parameter in parameters]
        lines.append("")
    if returns := sections.get("Returns"):
        lines += [f"**Returns** {returns}", ""]
    if raises := sections.get("Raises"):
        lines += ["**Raises**", "", *(f"* {line}" for line in raises.splitlines()), ""]
    return "\n".join(lines)


def usage(operator: Operator) -> str:
    """Return how the command is typed."""
    command = command_of(operator)
    with click.Context(command, info_name=operator.command) as context:
        return " ".join(["daskflow", operator.command, *command.collect_usage_pieces(context)])


def python_call(operator: Operator) -> str:
    """Return how the function is called."""
    parts, keywords = [], False
    for parameter in inspect.signature(operator.function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            parts.append(f"*{parameter.name}")
            keywords = True
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            parts.append("*")
            keywords = True
        shown = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        parts.append(f"{parameter.name}{shown}")
    returned = getattr(operator.returns, "__name__", str(operator.returns))
    return f"daskflow.{operator.name}({', '.join(parts)}) -> {returned}"


def row(operator: Operator, parameter: Parameter) -> str:
    """Return a parameter's row of the table."""
    words, kind = options(operator, parameter), type_name(parameter.annotation)
    cells = [f"`{parameter.name}`", words, kind, shown_default(parameter), parameter.help]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def options(operator: Operator, parameter: Parameter) -> str:
    """Return the words that set a parameter on the command line."""
    for option in command_of(operator).params:
        if option.name == parameter.name:
            if isinstance(option, click.Argument):
                return f"`{parameter.name.upper()}`"
            if isinstance(option, click.Option) and option.hidden:
                return "`-i`, after a comma"
            names = option.shown if isinstance(option, Spelled) else option.opts
            return " ".join(f"`{name}`" for name in [*names[:2], *option.secondary_opts])
    return ""


def command_of(operator: Operator) -> click.Command:
    """Return an operator's command."""
    with click.Context(app) as context:
        command = app.get_command(context, operator.command)
    if command is None:
        raise LookupError(f"operator {operator.name} has no command")
    return command


def type_name(annotation: object) -> str:
    """Return a type as people say it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is None:
        return getattr(annotation, "__name__", str(annotation))
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    inner = [type_name(argument) for argument in arguments if argument not in {Ellipsis, type(None)}]
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(inner)
    if origin in {tuple, Sequence}:
        return f"{' or '.join(dict.fromkeys(inner))}s"
    return str(annotation)


def shown_default(parameter: Parameter) -> str:
    """Return a default as the command line takes it."""
    if parameter.required:
        return "" if parameter.annotation is Volume else "required"
    value = parameter.default
    return "" if value is None else f"`{' '.join(f'{n:g}' for n in value) if isinstance(value, tuple) else value}`"


def docstring_sections(operator: Operator) -> dict[str, str]:
    """Return the sections of a Google-style docstring, continued lines joined."""
    pieces = SECTION.split(inspect.getdoc(operator.function) or "")
    return {name: "\n".join(joined(body)) for name, body in zip(pieces[1::2], pieces[2::2], strict=True)}


def joined(body: str) -> Iterator[str]:
    """Yield the entries of a section, each on one line."""
    lines = [line for line in inspect.cleandoc(body).splitlines() if line]
    pending = ""
    for line in lines:
        if pending and not line.startswith(" ") and re.match(r"[\w.*]+: ", line):
            yield pending
            pending = line
        else:
            pending = f"{pending} {line.strip()}".strip()
    if pending:
        yield pending


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail if the page is not what would be written")
    written = page()
    if not parser.parse_args().check:
        PAGE.write_text(written)
        return 0
    if PAGE.read_text() == written:
        return 0
    print(f"{PAGE} is not what the operators say; run python docs/generate.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
