"""The page for users of chunkflow says what is so: of every command and option of chunkflow that is not as there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from daskflow.cli.app import app
from daskflow.operators.aliases import UNUSED_OPTIONS

PAGE = (Path(__file__).parents[2] / "docs/from-chunkflow.md").read_text()
COMMANDS = {
    name: options
    for name, *options in map(str.split, (Path(__file__).parents[1] / "chunkflow_options.txt").read_text().splitlines())
    if name != "#"
}
ROWS = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
CODE = re.compile(r"`([^`]+)`")


def command(name: str) -> click.Command | None:
    with click.Context(app) as context:
        return app.get_command(context, name)


def said_of(name: str) -> set[str]:
    """The words in code of all lines of the page that name a command."""
    lines = [" ".join(CODE.findall(line)).split() for line in PAGE.splitlines()]
    return {word for words in lines if name in words for word in words}


def takes(name: str, option: str) -> bool:
    """Return whether a command knows an option, whatever else is wrong with the words."""
    try:
        with command(name).make_context(name, [option]):
            return True
    except click.NoSuchOption:
        return False
    except click.UsageError as error:
        return "no option" not in error.message.lower()


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_missing_or_has_no_effect_stands_on_the_page(name):
    known = said_of(name)
    if command(name) is None:
        assert name in known
        return
    unused = re.findall(r"--[\w-]+", " ".join(UNUSED_OPTIONS.get(command(name).name, ())))
    other = {option for option in COMMANDS[name] if option in unused or not takes(name, option)}
    assert other - known == set()


def test_the_commands_that_the_page_names_are_known():
    named = {code.split()[0] for row in ROWS for code in CODE.findall(row)}
    everything = {*app.list_commands(None), *COMMANDS}
    assert {name for name in named if not name.startswith("-")} <= {*everything, "skip-...", "detect_points"}


def test_what_is_said_to_be_missing_is():
    section = PAGE.split("## What is missing")[1].split("\n## ")[0]
    rows = [line.split("|")[1].replace("`", "").split() for line in section.splitlines() if line.startswith("| `")]
    assert rows
    for name, *options in rows:
        assert command(name) is None or name == "plugin" or not any(takes(name, option) for option in options)
