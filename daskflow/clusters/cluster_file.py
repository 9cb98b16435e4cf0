"""A cluster described in a YAML file: its kind, and options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from daskflow.errors import ParameterError

_TEXTS = ("environment",)  # whose values stay as they are written
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "~": None, "": None}


def read_cluster_file(path: Path) -> dict[str, Any]:
    """Return what a file says, by name.

    Numbers are those of digits alone: YAML reads ``2:50`` as 170 and ``1:00:00`` as 3600 otherwise.

    Raises:
        ParameterError: it cannot be read, or names no kind.
    """
    import yaml

    try:
        said = yaml.load(path.read_text(), Loader=yaml.BaseLoader)  # noqa: S506 (texts, lists and mappings alone)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParameterError(f"cannot read {path}: {error}") from error
    if not isinstance(said, dict) or not isinstance(said.get("kind"), str):
        raise ParameterError(
            f"{path} must name a kind of cluster, e.g. `kind: slurm`; options follow it, e.g. `workers: 2:50`"
        )
    return {name: value if name in _TEXTS else _value(value) for name, value in said.items()}


def read_option(text: str) -> tuple[str, Any]:
    """Return name and value of an option written as ``name=value``; the value is read like one of a file.

    Raises:
        ParameterError: there is no name, or no "=", or the value cannot be read.
    """
    import yaml

    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ParameterError(f"cluster option {text!r} must be written as NAME=VALUE, e.g. walltime=2h")
    try:
        said = yaml.load(value, Loader=yaml.BaseLoader)  # noqa: S506 (texts, lists and mappings alone)
    except yaml.YAMLError as error:
        raise ParameterError(f"cannot read cluster option {text!r}: {error}") from error
    return name, said if name in _TEXTS else _value(said)


def _value(said: Any) -> Any:
    if isinstance(said, dict):
        return {name: _value(value) for name, value in said.items()}
    if isinstance(said, list):
        return [_value(one) for one in said]
    return int(said) if said.isdigit() else _WORDS.get(said.lower(), said)
