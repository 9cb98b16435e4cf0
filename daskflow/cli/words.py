"""Option values: several numbers after one option, and labelled xyz or zyx triples."""

from __future__ import annotations

import gc
import re
from collections.abc import Sequence
from typing import Any

import click

from daskflow.operators.aliases import FORMER_OPTIONS
from daskflow.redaction import redact

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_LABELLED = re.compile(r"(xyz|zyx):(.+)", re.IGNORECASE)


def say(text: str, *, err: bool = False) -> None:
    """Write a text to the terminal: what may come from a stranger's file is shown there, and does nothing."""
    click.echo(redact(text), err=err)


class Numbers(click.ParamType[tuple[float, ...]]):
    """Some numbers: ``64 512 512``, ``64,512,512``, ``zyx:64,512,512`` or ``xyz:512,512,64``.

    Attributes:
        kind: int or float.
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
            self.fail(
                f"{value!r} is not {self.kind.__name__} numbers like '64 512 512' or 'xyz:512,512,64'", param, ctx
            )
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
        if isinstance(option, click.Option) and not option.is_flag and not option.count and words:
            taken = _numbers(words) if isinstance(option.type, Numbers) else 1
            options.append(",".join(words[:taken]))
            del words[:taken]
    return [*options, *arguments, *words]


def _numbers(words: Sequence[str]) -> int:
    """Return how many words at the beginning are numbers, at least one."""
    count = next((at for at, word in enumerate(words) if not _NUMBER.fullmatch(word)), len(words))
    return max(1, count)


class WordCommand(click.Command):
    """A command whose options may take several numbers."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words of this command and leave the rest of the chain."""
        return super().parse_args(ctx, gather_numbers(self, args))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and collect garbage from now on, which `main` has put off."""
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        return super().invoke(ctx)
