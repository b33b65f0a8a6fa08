"""What every reader and writer of a format must do, whatever the format is.

Call them in a test of yours::

    from streamapp.testing import check_reader, check_writer

    def test_my_format(tmp_path):
        place = Place("rows", paths=(tmp_path / "rows.mine",))
        check_writer(MyWriter, place, lambda: MyReader(place, MyReader.Options()).read().read_all())
        check_reader(MyReader, place, expected=ROWS)
"""

from collections.abc import Callable, Iterator
from typing import Any, get_args

import msgspec
import pyarrow as pa

from streamapp.core.errors import Retry
from streamapp.workflow.data.contract import BATCH_ROWS, Key, Place, Reader, Writer

#: What a writer is given: a null, an empty text, one that needs care in every text format.
ROWS = pa.table(
    {
        "id": pa.array([1, 2, None], pa.int64()),
        "share": pa.array([0.5, None, -1e300], pa.float64()),
        "text": pa.array(['a "quoted",\n🙂 line', "", None], pa.string()),
    }
)


def check_reader(
    kind: type[Reader],
    place: Place,
    options: dict[str, Any] | None = None,
    *,
    expected: pa.Table | None = None,
) -> pa.Table:
    """Assert that a reader keeps the contract on a place, and return its rows.

    Args:
        kind: the reader's class.
        place: what it reads; bad rows may be among them.
        options: of its ``Options``.
        expected: its rows.
    """
    _check_class(kind)
    given = msgspec.convert(options or {}, kind.Options)
    reader = kind(place, given)
    schema = reader.schema()
    assert schema == reader.schema(), "schema() says something else the second time"
    first = reader.read()
    assert first.schema == schema, "read() has other columns than schema() says"
    batches = list(first)
    for batch in batches:
        assert batch.schema == schema, "a batch has other columns than schema() says"
        assert batch.num_rows <= 4 * BATCH_ROWS, "a batch is far larger than it may be"
        batch.validate(full=True)
    rows = pa.Table.from_batches(batches, schema)
    assert reader.read().read_all() == rows, "read() gives other rows the second time"
    assert kind(place, given).read().read_all() == rows, "another reader gives other rows"
    stopped = reader.read()
    next(iter(stopped), None)
    stopped.close()
    if expected is not None:
        assert rows == expected, "its rows are not those expected"
    return rows


def check_writer(
    kind: type[Writer],
    place: Place,
    read: Callable[[], pa.Table],
    options: dict[str, Any] | None = None,
) -> None:
    """Assert that a writer keeps the contract: all rows or none, and the old ones until then.

    Args:
        kind: the writer's class.
        place: what it writes.
        read: gives what is there now.
        options: of its ``Options``.
    """
    _check_class(kind)
    writer = kind(place, msgspec.convert(options or {}, kind.Options))
    assert writer.write(ROWS.to_reader(2)) == ROWS.num_rows, "write() returns another number"
    before = read()
    assert before.num_rows == ROWS.num_rows, "rows were lost, or came to be"
    assert before.column_names == ROWS.column_names, "columns have other names or another order"
    assert before.to_pylist() == ROWS.to_pylist(), "values are not what was written"
    code = ""
    try:
        writer.write(pa.RecordBatchReader.from_batches(ROWS.schema, _dying()))
    except Retry as error:
        code = error.code
    assert code == "source.died", "rows whose source died were taken, or its error became another"
    assert read() == before, "a write that failed changed what was there"
    for path in place.paths:
        left = [one.name for one in path.parent.iterdir() if one.name.startswith(f".{path.name}")]
        assert not left, f"a write that failed left {left}"
    assert writer.write(ROWS.slice(0, 1).to_reader()) == 1
    assert read().num_rows == 1, "rows of the write before are still there"


def _check_class(kind: type[Reader] | type[Writer]) -> None:
    kind.Options()  # every option has a default
    assert kind.takes <= set(get_args(Key)), "takes names a key that there is none of"
    assert kind.takes & {"path", "url"}, "it takes neither a path nor a URL"
    assert all(suffix.startswith(".") for suffix in kind.suffixes), "a suffix has no dot"


def _dying() -> Iterator[pa.RecordBatch]:
    yield ROWS.to_batches()[0]
    raise Retry("source.died", "it went away", "")
