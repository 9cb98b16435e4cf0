import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from daskflow.operators.segmentation.connected_components.numbering import number_components


@given(st.data(), st.integers(1, 30))
def test_components_are_numbered_by_their_first_voxel(data, parts):
    firsts = np.array(data.draw(st.permutations(range(0, 7 * parts, 7))), np.int64)
    ends = st.integers(0, parts - 1)
    pairs = np.array(data.draw(st.lists(st.tuples(ends, ends), max_size=30)), np.int64).reshape(-1, 2)
    groups = {part: {part} for part in range(parts)}
    for a, b in pairs.tolist():
        joined = groups[a] | groups[b]
        groups |= dict.fromkeys(joined, joined)
    begins = {part: min(int(firsts[p]) for p in group) for part, group in groups.items()}
    order = sorted(set(begins.values()))

    numbers, total = number_components(firsts, pairs, np.dtype(np.uint32))

    assert total == len(order)
    assert numbers.dtype == np.uint32
    assert numbers.tolist() == [order.index(begins[part]) + 1 for part in range(parts)]


def test_nothing_has_no_number():
    numbers, total = number_components(np.empty(0, np.int64), np.empty((0, 2), np.int64), np.dtype(np.uint64))

    assert (numbers.tolist(), total) == ([], 0)
