from collections.abc import Sequence
from typing import Annotated, Literal

import pytest

from daskflow.cli.app import listed
from daskflow.errors import ParameterError
from daskflow.volume import Flag, Volume, describe_operator, load_file, load_operator, operator, operator_names


@operator(group="own")
def sharpen(
    volume: Volume,
    mask: Annotated[Volume, Flag("-k")],
    *others: Volume,
    amount: Annotated[float, Flag("-a")],
    size: Sequence[int] = (1, 1, 1),
    mode: Literal["soft", "hard"] = "soft",
) -> Volume:
    """Sharpen an image.

    More about it,
    in two lines.

    Args:
        volume: the image.
        mask: where to.
        *others: what else.
        amount: how much,
            from 0 to 1.
        size: of the kernel (zyx).
        mode: soft or hard.

    Returns:
        An image.
    """
    return volume


def test_signature_and_docstring_describe_an_operator():
    described = describe_operator(sharpen)
    assert (described.name, described.command, described.group) == ("sharpen", "sharpen", "own")
    assert described.summary == "Sharpen an image."
    assert described.description == "Sharpen an image.\n\nMore about it,\nin two lines."
    assert [(p.name, p.flag, p.variadic) for p in described.inputs] == [
        ("volume", None, False),
        ("mask", "-k", False),
        ("others", None, True),
    ]
    amount, size, mode = described.parameters
    assert (amount.required, amount.flag, amount.help) == (True, "-a", "how much, from 0 to 1.")
    assert (size.required, size.default) == (False, (1, 1, 1))
    assert mode.annotation == Literal["soft", "hard"]
    assert described.returns is Volume


def test_what_was_not_marked_is_no_operator():
    def plain(volume: Volume) -> Volume:
        return volume

    with pytest.raises(ParameterError, match="is not an operator"):
        describe_operator(plain)
    with pytest.raises(ParameterError, match="there is no operator 'nothing'"):
        load_operator("nothing")


def test_listing_without_imports_says_what_the_operators_say():
    rows = {name: (group, summary) for group, rows in listed().items() for name, summary in rows}
    assert rows == {
        load_operator(name).command: (load_operator(name).group, load_operator(name).summary)
        for name in operator_names()
    }


def test_file_without_operators_is_refused(tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(ParameterError, match="defines no function"):
        load_file(tmp_path / "empty.py")
    with pytest.raises(ParameterError, match="there is no Python file"):
        load_file(tmp_path / "missing.py")
