"""Arrow and Parquet files whose bytes are not what they say: a message, never the process's end."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.errors import Refuse
from streamapp.workflow.data import Place, reader_of

NEW = {"file": pa.ipc.new_file, "stream": pa.ipc.new_stream}
ROWS = pa.record_batch({
    "n": [1, 2, None, 4], "text": ["a", "bb", None, "dddd"], "list": [[1, 2], None, [], [3]],
    "struct": [{"a": 1, "b": "x"}] * 4, "category": pa.array(list("xyxz")).dictionary_encode(),
    "view": pa.array(["longer than twelve bytes", "b", None, "c"], pa.string_view()),
    "map": pa.array([[("k", 1)], [], None, [("a", 2)]], pa.map_(pa.string(), pa.int64())),
})  # fmt: skip
FLIPS = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=4)


def written(form, rows=ROWS, compression=None):
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with NEW[form](sink, rows.schema, options=options) as out:
        out.write_batch(rows)
        out.write_batch(rows.slice(1))
    return bytes(sink.getvalue())


def read(folder, value, form="arrow"):
    path = Path(folder) / f"rows.{form}"
    path.unlink(missing_ok=True)  # a file that is mapped is not written over
    path.write_bytes(value)
    kind = reader_of(form)
    return kind(Place("rows", folder=Path(folder), paths=(path,)), kind.Options()).read().read_all()


def offsets(*numbers):
    return b"".join(number.to_bytes(4, "little") for number in numbers)


@pytest.mark.parametrize("form", NEW)
@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        (pa.array(["abc", "defg"]), offsets(0, 3, 7), offsets(0, 3, 1 << 30)),
        (pa.array([[5], [6, 7]]), offsets(0, 1, 3), offsets(0, 1, 1 << 30)),
        (pa.array(["x", "y"]).dictionary_encode(), offsets(0, 1), offsets(0, 1 << 30)),
        (pa.array(["abc", "defg"]), b"abcdefg", b"abc\xffefg"),
    ],
    ids=["text", "list", "category", "utf-8"],
)
def test_what_points_beyond_its_file_or_is_no_text_is_refused(tmp_path, form, column, good, bad):
    value = written(form, pa.record_batch({"c": column}))
    assert good in value
    with pytest.raises(Refuse, match=r"rows\.arrow: ") as refused:
        read(tmp_path, value.replace(good, bad))
    assert (refused.value.code, refused.value.fix) == ("data.file", "check that it is whole")


def test_texts_of_parquet_that_are_none_are_refused(tmp_path):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"t": ["Zürich"]}), sink, compression="none", use_dictionary=False)
    value = bytes(sink.getvalue()).replace("Zü".encode(), b"Z\xfc\xfc")
    with pytest.raises(Refuse, match=r"rows\.parquet: .*UTF8"):
        read(tmp_path, value, "parquet")


def test_names_that_are_no_text_are_refused(tmp_path):
    value = written("stream", pa.record_batch({"Zürich": [1]})).replace("ü".encode(), b"\xfc\xfc")
    with pytest.raises(Refuse, match=r"rows\.arrow: 'utf-8' codec"):
        read(tmp_path, value)


def test_no_byte_of_a_file_ends_the_process():
    """In a process of its own, whose end says more than its words."""
    told = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr[-2_000:]


@settings(max_examples=300, deadline=None, database=None)
@given(st.sampled_from(list(NEW)), st.sampled_from([None, "lz4"]), FLIPS)
def flip(form, compression, flips):
    value = bytearray(written(form, compression=compression))
    for place, mask in flips:
        value[place % len(value)] ^= mask
    with TemporaryDirectory() as folder, suppress(Refuse):
        rows = read(folder, bytes(value))
        with suppress(ValueError, KeyError, OverflowError):  # names, zones, times beyond calendars
            rows.to_pylist()


if __name__ == "__main__":
    flip()
