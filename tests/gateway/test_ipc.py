"""What a stranger's Arrow stream may cost, and that it never costs the process."""

import pyarrow as pa
import pytest
from arrow_streams import MOMENT, bomb, made, stream
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.gateway import ipc
from streamapp.gateway.problem import ProblemError


def test_a_bomb_is_measured_without_being_inflated():
    body = bomb()
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(ProblemError, match="once decompressed"):
        ipc.measure(body, events_max=10, bytes_max=16 << 20)
    assert pa.default_memory_pool().max_memory() - before < 1 << 20


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_the_measure_is_what_arrow_takes(compression):
    batch = pa.record_batch({"a": ["x" * 1_000] * 50, "b": list(range(50))})
    size = ipc.measure(
        stream(batch, batch, compression=compression), events_max=100, bytes_max=1 << 20
    )
    assert size.rows == 100
    assert 2 * batch.nbytes <= size.nbytes <= 2 * (batch.nbytes + 256)


WHOLE = stream(
    pa.table(
        {
            "id": ["a", "b", None],
            "message": pa.array(["x", "y", "x"]).dictionary_encode(),
            "time": pa.array([MOMENT] * 3),
            "z": [[1], [], None],
        }
    ),
    compression="lz4",
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_a_broken_stream_is_refused_or_read_and_never_breaks_us(changes):
    body = bytearray(WHOLE)
    for place, byte in changes:
        body[place] = byte
    try:
        made(bytes(body))
    except ProblemError as problem:
        assert problem.status in {400, 413}


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()], ids=str)
def test_views_of_nulls_are_not_followed(kind):
    """Nobody checks them, and Arrow's own cast would die of this one's negative length."""
    fine = (1).to_bytes(4, "little") + b"a" + bytes(11)
    wild = (-1 << 24).to_bytes(4, "little", signed=True) + bytes(12)
    buffers = [pa.py_buffer(b"\1"), pa.py_buffer(fine + wild), pa.py_buffer(b"x" * 20)]
    views = pa.Array.from_buffers(kind, 2, buffers, null_count=1)
    rows = [one.record.value for _, one in made(stream(pa.table({"x": views})))]
    assert rows == [b'{"x":"YQ=="}' if kind == pa.binary_view() else b'{"x":"a"}', b"{}"]
