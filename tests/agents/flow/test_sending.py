"""Pieces of the same rows are the same, and a topic says how far it was fed."""

import pyarrow as pa
import pytest
from flow_bench import Bench, graph

from streamapp.agents.flow import sending
from streamapp.transport.clients import Outgoing

STAGES = [{"name": "counted", "service": "demo", "operation": "words"}]
OUTPUTS = {"all": {"source": "counted", "format": "json"}}


async def test_rows_of_others_at_a_topic_s_end_do_not_hide_what_was_fed(tmp_path):
    bench = Bench(graph(tmp_path, STAGES, OUTPUTS, [{"n": n, "text": "a"} for n in range(5)]))
    assert await bench.feed() == 1
    bench.log.append("t.rows", [Outgoing(b'{"n": 7}', partition=0) for _ in range(20)])
    assert await bench.feed(collected=1) == 2


@pytest.mark.parametrize("kind", [pa.int64(), pa.string(), pa.list_(pa.int64())], ids=str)
def test_what_lies_below_a_null_is_no_difference(kind):
    below = ([1, 2], [1, 3]) if kind == pa.int64() else (["a", "b"], ["a", "c"])
    below = ([[1], [2]], [[1], [3]]) if pa.types.is_list(kind) else below
    valid = pa.array([True, False]).buffers()[1]

    def table(values):
        array = pa.array(values, kind)
        masked = pa.Array.from_buffers(
            kind, 2, [valid, *array.buffers()[1 : 2 if pa.types.is_list(kind) else None]],
            children=[array.values] if pa.types.is_list(kind) else None,
        )  # fmt: skip
        return pa.table({"x": masked})

    one, two = (sending._bytes_of(sending.Piece(table(values))) for values in below)
    assert one == two
    assert one != sending._bytes_of(sending.Piece(pa.table({"x": pa.array(below[0], kind)})))
