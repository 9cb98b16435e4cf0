import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from daskflow.cli.options import Numbers, WordCommand, gather_numbers

COMMAND = WordCommand(
    "one",
    params=[
        click.Argument(["url"]),
        click.Option(["-s", "--size"], type=Numbers(int)),
        click.Option(["-v", "--voxel-size"], type=Numbers(float)),
        click.Option(["-n"], type=int),
        click.Option(["--fast/--slow"]),
    ],
    callback=lambda **values: click.echo(repr(values)),
)


def parsed(*words):
    result = CliRunner().invoke(COMMAND, words)
    assert result.exit_code == 0, result.output
    return eval(result.output)


@pytest.mark.parametrize("words", [["1", "2", "3"], ["1,2,3"], ["zyx:1,2,3"], ["xyz:3,2,1"], ["XYZ:3,2,1"], ["1 2 3"]])
def test_three_numbers_in_every_form_are_zyx(words):
    assert parsed("-s", *words, "here")["size"] == (1, 2, 3)


def test_negative_and_fractional_numbers():
    values = parsed("here", "-s", "-1", "0", "-3", "-v", "4.5", "1e1", ".5", "--fast")
    assert values["size"] == (-1, 0, -3)
    assert values["voxel_size"] == (4.5, 10.0, 0.5)
    assert values["fast"] is True


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=6))
def test_any_count_of_numbers_is_gathered(numbers):
    words = gather_numbers(COMMAND, ["-s", *map(str, numbers), "here", "-n", "3"])
    assert words == ["-s", ",".join(map(str, numbers)), "-n", "3", "here"]


def test_words_of_the_next_command_are_left_alone():
    words = ["here", "-s", "1", "2", "3", "two", "-s", "4", "5", "6"]
    assert gather_numbers(COMMAND, words) == ["-s", "1,2,3", "here", "two", "-s", "4", "5", "6"]


def test_value_of_a_plain_option_is_not_mistaken_for_an_argument():
    words = ["-n", "7", "here", "-s", "1", "2", "3"]
    assert gather_numbers(COMMAND, words) == ["-n", "7", "-s", "1,2,3", "here"]


@pytest.mark.parametrize(("word", "complaint"), [("a,b,c", "not whole numbers"), ("xyz:1,2", "labels three axes")])
def test_what_is_no_numbers_is_refused(word, complaint):
    result = CliRunner().invoke(COMMAND, ["here", "-s", word])
    assert result.exit_code == 2
    assert complaint in result.output


def test_a_word_may_stand_for_numbers():
    option = click.Option(["--shard"], type=Numbers(int, ["auto"]))
    command = click.Command("save", params=[option])
    words = gather_numbers(command, ["--shard", "auto", "64"])
    assert words == ["--shard", "auto", "64"]
    assert option.type.convert("auto", option, None) == "auto"
    assert option.type.convert("1,2,3", option, None) == (1, 2, 3)
