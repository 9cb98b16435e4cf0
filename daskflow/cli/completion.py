"""Completion of commands and options by the shell."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from daskflow.cli.chain import say
from daskflow.cli.options import WordCommand, Words

_PLACES = {  # where a shell looks for the completion of a command when that is typed
    "bash": ("XDG_DATA_HOME", ".local/share", "bash-completion/completions/daskflow"),
    "fish": ("XDG_CONFIG_HOME", ".config", "fish/completions/daskflow.fish"),
    "zsh": ("XDG_DATA_HOME", ".local/share", "zsh/site-functions/_daskflow"),
}


@click.command(cls=WordCommand, short_help="Let the shell complete commands and options.")
@click.argument("shell", type=Words(tuple(_PLACES)), metavar="SHELL")
@click.option("--print", "shown", is_flag=True, help="Print the script, and install nothing.")
def completion(shell: str, shown: bool) -> None:
    """Let a shell complete commands and options: bash (with the package bash-completion), zsh or fish.

    A script is written to where the shell looks for it, in your home directory.
    """
    from daskflow.cli.app import app

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(app, {}, "daskflow", "_DASKFLOW_COMPLETE").source()
    if shown:
        say(script)
        return
    variable, otherwise, name = _PLACES[shell]
    place = Path(os.environ.get(variable) or Path.home() / otherwise) / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(script)
    say(f"wrote {place}; it works in new shells")
    if shell == "zsh":
        say(f"~/.zshrc needs, before compinit: fpath=({place.parent} $fpath)")
