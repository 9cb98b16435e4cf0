"""Options that operators share are the same everywhere."""

from __future__ import annotations

import inspect
from collections import defaultdict
from typing import Annotated

import pytest

from daskflow.geometry import BoundingBox
from daskflow.operators import options
from daskflow.operators.aliases import ALIASES, FORMER_OPTIONS
from daskflow.volume import Flag, Volume, describe_operator, load_operator, operator, operator_names

# operators with the letters and defaults of chunkflow, as its lines have them
THEIRS = {
    *("create_bbox", "create_chunk", "create_info", "downsample_upload", "fetch_task_from_sqs", "generate_tasks"),
    *("load_precomputed", "load_skeleton", "load_synapses", "mesh_fragments", "mesh_manifest", "save_precomputed"),
    *("aggregate_skeleton_fragments", "setup_env"),
}
OWN = [name for name in operator_names() if name not in ALIASES and name not in THEIRS]

# what one word means in two operators, or where one default would not do
SEVERAL_MEANINGS = {"background", "compression", "dtype", "levels", "mip", "mode", "offset", "size", "table"}
SEVERAL_LETTERS = {
    "coverage",  # -c cuts off the ends of contrast
    "format",  # -f is the factor of save
}
SEVERAL_DEFAULTS = {
    "chunk",  # of a graph, which no source has
    "high",
    "low",
    "dust",  # 0 where what is left out would be missed, igneous's where specks are noise or take most of the time
    "fill_missing",  # of a mask, where what is missing is masked
    "format",  # of volumes, meshes and skeletons
    "maxval",  # chunkflow's contrast is of uint8
    "minval",
    "max_error",  # copied meshes have no voxels to take it from
    "max_labels_per_shard",  # skeletons are smaller
    "memory",  # of a mesh
    "shape",  # paths depend on it
    "threshold",
}


def parameters():
    found = defaultdict(dict)
    for name in OWN:
        for parameter in load_operator(name).parameters:
            found[parameter.name][name] = parameter
    return {name: uses for name, uses in found.items() if len(uses) > 1 and name not in SEVERAL_MEANINGS}


@pytest.mark.parametrize("name", parameters())
def test_an_option_of_several_operators_has_one_letter_and_one_default(name):
    uses = parameters()[name]
    if name not in SEVERAL_LETTERS:
        assert len({one.flag for one in uses.values() if not one.positional}) <= 1, uses
    defaults = {str(one.default) for one in uses.values() if not one.required}
    assert len(defaults) <= 1 or name in SEVERAL_DEFAULTS, uses


def test_the_docstring_of_an_operator_has_the_help_of_shared_options_in_their_place():
    text = inspect.getdoc(load_operator("crop").function)
    assert text.index("\n    volume: ") < text.index("\n    start: ") < text.index("\n    bounds_mip: ")
    assert text.index("\n    bounds_mip: ") < text.index("\nReturns:")
    assert max(map(len, text.splitlines())) <= 116


def test_a_line_of_the_docstring_goes_before_shared_help():
    amount = Annotated[int, Flag("-a"), "how much."]

    def mix(volume: Volume, *, first: amount, second: amount | None = None) -> Volume:  # type: ignore[valid-type]
        """Mix a volume.

        Args:
            volume: what is mixed.
            second: how much more,
                if any.
        """
        return volume

    mix.__annotations__ = {"volume": Volume, "first": amount, "second": amount | None, "return": Volume}
    described = describe_operator(operator()(mix))
    first, second = described.parameters
    assert (first.help, first.flag, first.annotation) == ("how much.", "-a", int)
    assert (second.help, second.flag, second.annotation) == ("how much more, if any.", "-a", int | None)


def test_a_region_is_a_corner_and_a_stop_or_a_size():
    whole = BoundingBox((1, 2, 3), (9, 9, 9))
    assert options.part_of(whole, None, None, None) == whole
    assert options.part_of(whole, (2, 2, 4), None, (1, 2, 3)) == BoundingBox((2, 2, 4), (3, 4, 7))
    assert options.part_of(whole, None, (5, 6, 7), None) == BoundingBox((1, 2, 3), (5, 6, 7))


@pytest.mark.parametrize(
    ("command", "word"), [(command, word) for command, words in FORMER_OPTIONS.items() for word in words]
)
def test_former_words_of_a_command_are_understood(command, word):
    from daskflow.cli.options import command as derive
    from daskflow.cli.options import gather_numbers

    derived = derive(load_operator(command.replace("-", "_")))
    known = {name for parameter in derived.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert word not in known
    first, *rest = stands_for = list(FORMER_OPTIONS[command][word])
    assert first in known
    places = ["a"] * sum(parameter.param_type_name == "argument" for parameter in derived.params)
    value = [] if rest and not rest[-1].startswith("--") else ["x"]
    typed = [word, *value, *places, "save", word]
    assert gather_numbers(derived, typed) == [*stands_for, *value, *places, "save", word]
    if value:
        assert gather_numbers(derived, [f"{word}=x"]) == [*stands_for[:-1], f"{stands_for[-1]}=x"]
