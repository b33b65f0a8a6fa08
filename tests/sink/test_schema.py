"""Opening: what is made, widened or refused."""

import subprocess
import sys

import duckdb
import pyarrow as pa
import pytest

from streamapp.core.errors import Refuse
from streamapp.sink import Store


def test_a_new_stage_column_is_added_and_an_old_one_stays(make, open_store, path):
    with open_store(path, columns={"words": pa.int32()}) as store:
        store.write([make.record(0, 2)])
    vector = pa.list_(pa.float32(), 4)
    store = open_store(path, columns={"embedding": vector})
    assert store.write([make.record(2, 3)]).left_out == {"entities": 1}
    rows = make.rows(store, "SELECT words, embedding FROM events ORDER BY source_offset")
    assert rows == [(0, None), (1, None), (2, None)]
    store.write([make.record(3, 4)])
    assert make.rows(store, "SELECT words, embedding[4] FROM latest LIMIT 1") == [(3, 1.0)]


def test_a_changed_type_is_refused_with_the_way_out(open_store, path):
    open_store(path, columns={"words": pa.int32()}).close()
    with pytest.raises(
        Refuse, match=r"column 'words' of .* is INTEGER, .* now writes VARCHAR"
    ) as e:
        open_store(path, columns={"words": pa.string()})
    assert "another name" in e.value.fix
    open_store(path, columns={"words": pa.int32()})  # the refused open let go of the file


@pytest.mark.parametrize("name", ["provenance", "ID", "source_topic"])
def test_a_column_of_ours_is_refused(open_store, name):
    with pytest.raises(Refuse, match="has already"):
        open_store(columns={name: pa.int32()})


def test_two_columns_that_differ_in_case_are_refused(open_store):
    with pytest.raises(Refuse, match="has already"):
        open_store(columns={"words": pa.int32(), "Words": pa.int32()})


@pytest.mark.parametrize(
    "kind", [pa.float16(), pa.null(), pa.dense_union([pa.field("a", pa.int8())])]
)
def test_a_type_duckdb_has_not_is_refused(open_store, kind):
    with pytest.raises(Refuse, match="column 'odd'"):
        open_store(columns={"odd": kind})


@pytest.mark.parametrize(
    "kind",
    [
        pa.bool_(), pa.float64(), pa.uint8(), pa.large_string(), pa.date32(), pa.binary(),
        pa.timestamp("us"), pa.duration("us"), pa.dictionary(pa.int8(), pa.string()),
        pa.map_(pa.string(), pa.int32()), pa.list_(pa.list_(pa.int16())), pa.decimal128(10, 2),
        pa.struct([("Some Name", pa.string()), ('q"', pa.list_(pa.float32(), 2))]),
    ],
    ids=str,
)  # fmt: skip
def test_a_store_opens_again_with_the_same_columns(open_store, path, kind):
    columns = {'Odd "name"': kind}
    open_store(path, columns=columns).close()
    open_store(path, columns=columns)


def test_someone_elses_file_is_refused(open_store, path):
    with duckdb.connect(path) as other:
        other.execute("CREATE TABLE mine (i INTEGER)")
    with pytest.raises(Refuse, match=r"someone else \(it has mine\)"):
        open_store(path)


def test_another_format_is_refused(open_store, path):
    open_store(path).close()
    with duckdb.connect(path) as other:
        other.execute("UPDATE meta SET value = '2' WHERE name = 'format'")
    with pytest.raises(Refuse, match="store format 2, this version of streamapp reads 1"):
        open_store(path)


def test_what_is_no_database_is_refused(open_store, tmp_path):
    broken = tmp_path / "x.duckdb"
    broken.write_bytes(b"not a database" * 1000)
    with pytest.raises(Refuse, match="not a DuckDB file") as caught:
        open_store(str(broken))
    assert caught.value.code == "store.corrupt"
    with pytest.raises(Refuse, match="cannot open"):
        open_store(str(broken / "below"))


def test_a_second_process_is_told_who_has_the_file(open_store, path):
    open_store(path)
    code = f"from streamapp.sink import Store; Store.open({path!r}, columns={{}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert "streamapp.core.errors.Refuse" in done.stderr
    assert "is open in another process" in done.stderr
    assert "PID" in done.stderr
    with pytest.raises(Refuse, match="open in another process: this one"):
        open_store(path)


def test_ledger_and_position_are_rewritten_to_what_they_amount_to(make, open_store, path):
    with open_store(path, dedup_window_s=0) as store:
        for at in range(6):
            store.write(
                [make.record(at, at + 1), make.record(2 * at, 2 * at + 1, partition=1, at=at)]
            )
        store.write([make.record(6, 10, lost=4)])
        ledger = list(store.ledger)
        assert make.rows(store, "SELECT count(*) FROM ledger") == [(13,)]
    store = open_store(path)
    assert list(store.ledger) == ledger
    assert make.rows(store, 'SELECT "next", lost, rows FROM ledger WHERE "partition" = 0') == [
        (10, 4, 6)
    ]
    assert make.rows(store, "SELECT count(*) FROM ledger") == [(7,)]
    assert make.rows(store, 'SELECT "partition", "next" FROM position ORDER BY 1') == [
        (0, 10),
        (1, 5),
    ]


def test_latest_is_the_newest_hundred(make, open_store):
    store = open_store()
    store.write([make.record(0, 150)])
    rows = make.rows(store, "SELECT source_offset FROM latest")
    assert rows == [(offset,) for offset in range(149, 49, -1)]


def test_near_finds_the_most_similar(make, open_store):
    """Vectors of the factory point along axis ``offset % 4``; every third offset has none."""
    store = open_store()
    store.write([make.record(0, 13)])
    rows = make.rows(store, "SELECT id, cosine FROM near('id-12', 3)")
    assert {rows[0], rows[1]} == {("id-0", 1.0), ("id-4", 1.0)}
    assert rows[2][1] == 0.0
    assert make.rows(store, "SELECT count(*) FROM near('id-0', 3) WHERE id = 'id-0'") == [(0,)]


def test_no_vectors_no_near(open_store):
    cursor = open_store(columns={}).reader()
    with pytest.raises(duckdb.CatalogException):
        cursor.execute("FROM near('x', 1)")
    cursor.close()


def test_memory_store_is_gone_when_closed(make, open_store):
    with open_store() as store:
        store.write([make.record(0, 1)])
    assert make.rows(open_store(), "SELECT count(*) FROM events") == [(0,)]


def test_readers_are_shut_in(open_store, path, tmp_path):
    """What SQL may not reach, whoever runs it."""
    (tmp_path / "secret").write_text("s")
    secret = pa.table({"a": [1]})
    cursor = open_store(path).reader()
    for sql in (
        f"SELECT * FROM read_text('{tmp_path}/secret')",
        f"COPY events TO '{tmp_path}/out.csv'",
        f"ATTACH '{tmp_path}/other.duckdb'",
        "SET threads = 1",
        "INSTALL httpfs",
        "SELECT * FROM secret",
    ):
        with pytest.raises(duckdb.Error):
            cursor.execute(sql).fetchall()
    cursor.close()
    assert secret.num_rows == 1


def test_defaults(path):
    with Store.open(path, columns={}) as store:
        assert store.positions() == {}
