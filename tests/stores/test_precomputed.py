from __future__ import annotations

import hypothesis.strategies as st

from daskflow.stores.base import Layout
from daskflow.testing.stores import StoreSuite, triples


class TestPrecomputed(StoreSuite):
    format = "precomputed"


class TestPrecomputedShards(StoreSuite):
    format = "precomputed"
    plain_layout = Layout(chunk=(4, 4, 4), shard=(4, 8, 8))

    def layouts(self) -> st.SearchStrategy[Layout]:
        return triples(2, 8).map(lambda chunk: Layout(chunk=chunk, shard=tuple(64 * c for c in chunk)))
