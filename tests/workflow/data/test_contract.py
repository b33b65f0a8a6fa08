"""Every format that is installed keeps the contract of readers and writers."""

import sqlite3

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamapp.core.errors import Refuse
from streamapp.testing import check_reader, check_writer
from streamapp.testing.contracts.data import ROWS
from streamapp.workflow.data import Place, reader_of, readers, writer_of, writers
from streamapp.workflow.data.contract import BATCH_ROWS

FILES = ("arrow", "csv", "json", "jsonl", "parquet")
DATABASES = ("duckdb", "sqlite")


def place(tmp_path, form):
    table = "rows" if form in DATABASES else ""
    path = tmp_path / f"rows.{form}"
    return Place("rows", folder=tmp_path, paths=(path,), shown=path.name, table=table)


def read(form, where):
    kind = reader_of(form)
    return kind(where, kind.Options()).read().read_all()


def test_every_format_is_in_one_of_the_tests():
    """``postgres`` and ``http`` have servers and files of their own, ``text`` is read alone."""
    assert set(writers()) == {*FILES, *DATABASES, "postgres"}
    assert set(readers()) == {*FILES, *DATABASES, "postgres", "http", "text"}


@pytest.mark.parametrize("form", [*FILES, *DATABASES])
def test_a_writer_keeps_the_contract(tmp_path, form):
    where = place(tmp_path, form)
    check_writer(writer_of(form), where, lambda: read(form, where))


@pytest.mark.parametrize("form", [*FILES, *DATABASES])
def test_a_reader_keeps_the_contract(tmp_path, form):
    where = place(tmp_path, form)
    kind = writer_of(form)
    kind(where, kind.Options()).write(ROWS.to_reader())
    check_reader(reader_of(form), where, expected=ROWS)


def test_text_files_keep_the_contract(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(f"text of {name}")
    paths = tuple(sorted(tmp_path.glob("*.txt")))
    rows = check_reader(reader_of("text"), Place("docs", folder=tmp_path, paths=paths))
    assert rows.to_pylist() == [
        {"document_id": "a", "path": "a.txt", "text": "text of a"},
        {"document_id": "b", "path": "b.txt", "text": "text of b"},
    ]


@pytest.mark.parametrize("form", [*FILES, *DATABASES])
def test_many_rows_come_in_order_in_batches_of_bounded_size(tmp_path, form):
    where = place(tmp_path, form)
    numbers = pa.table({"n": pa.array(range(2 * BATCH_ROWS), pa.int64())})
    kind = writer_of(form)
    assert kind(where, kind.Options()).write(numbers.to_reader(10_000)) == len(numbers)
    reader = reader_of(form)
    batches = list(reader(where, reader.Options()).read())
    assert len(batches) > 1 or form in ("csv", "jsonl")  # whose blocks are bytes
    assert pa.Table.from_batches(batches).column("n").combine_chunks() == numbers["n"].chunk(0)


@pytest.mark.parametrize("form", [*FILES, *DATABASES])
def test_an_output_without_rows_has_its_columns_where_the_format_has_any(tmp_path, form):
    where = place(tmp_path, form)
    kind = writer_of(form)
    assert kind(where, kind.Options()).write(ROWS.slice(0, 0).to_reader()) == 0
    found = read(form, where)
    assert found.num_rows == 0
    assert found.column_names == ([] if form in ("json", "jsonl") else ROWS.column_names)


def test_formats_that_others_wrote(tmp_path):
    """Not only what our own writers write."""
    pq.write_table(ROWS, tmp_path / "rows.parquet", row_group_size=1)
    with pa.ipc.new_stream(str(tmp_path / "rows.arrow"), ROWS.schema) as stream:
        stream.write_table(ROWS)
    with duckdb.connect(tmp_path / "rows.duckdb") as connection:
        connection.register("given", ROWS)
        connection.execute("create table rows as from given")
    connection = sqlite3.connect(tmp_path / "rows.sqlite")
    connection.execute("create table rows (id integer, share real, text varchar)")
    connection.executemany(
        "insert into rows values (?, ?, ?)", [tuple(r.values()) for r in ROWS.to_pylist()]
    )
    connection.commit()
    connection.close()
    for form in ("parquet", "arrow", *DATABASES):
        check_reader(reader_of(form), place(tmp_path, form), expected=ROWS)


def test_parquet_has_a_dictionary_where_values_repeat_and_none_where_they_do_not(tmp_path):
    ids = [f"id {number}" for number in range(1000)]
    cities = ["Oslo", "Rome"] * 500
    rows = pa.table({
        "id": ids, "city": cities, "n": pa.nulls(1000), "tags": [[city] for city in cities],
        "at": [{"city": city} for city in cities],
        "by": pa.array([[(city, 1)] for city in cities], pa.map_(pa.string(), pa.int64())),
    })  # fmt: skip
    where, kind = place(tmp_path, "parquet"), writer_of("parquet")
    assert kind(where, kind.Options(row_group_rows=400)).write(rows.to_reader(100)) == 1000
    assert read("parquet", where).equals(rows)
    found = pq.read_metadata(where.paths[0])
    assert [found.row_group(number).num_rows for number in range(3)] == [400, 400, 200]
    group = found.row_group(2)
    plain = [
        column.path_in_schema
        for column in map(group.column, range(group.num_columns))
        if "RLE_DICTIONARY" not in column.encodings
    ]
    assert plain == ["id"]


@pytest.mark.parametrize("form", ["parquet", "arrow", *DATABASES])
def test_a_file_that_is_none_of_its_format_is_refused(tmp_path, form):
    where = place(tmp_path, form)
    where.paths[0].write_bytes(b"no such thing" * 100)
    with pytest.raises(Refuse) as refused:
        read(form, where)
    assert where.paths[0].name in refused.value.message


def test_a_format_that_there_is_none_of_is_refused_with_the_nearest():
    with pytest.raises(Refuse, match="did you mean parquet"):
        reader_of("parqet")
    with pytest.raises(Refuse, match="no package can write the format 'text'"):
        writer_of("text")


def test_the_suite_finds_a_reader_that_breaks_the_contract(tmp_path):
    """The suite itself can fail: on other rows the second time."""
    kind = reader_of("jsonl")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n')

    class Twice(kind):
        def read(self):
            rows = super().read().read_all()
            path.write_text(path.read_text() + '{"a": 2}\n')
            return rows.to_reader()

    with pytest.raises(AssertionError, match="other rows the second time"):
        check_reader(Twice, Place("rows", folder=tmp_path, paths=(path,)))


def test_the_suite_finds_a_writer_that_breaks_the_contract(tmp_path):
    class Early(writer_of("jsonl")):
        def write(self, rows):
            self.path.write_bytes(b"")
            return super().write(rows)

    where = place(tmp_path, "jsonl")
    with pytest.raises(AssertionError, match="changed what was there"):
        check_writer(Early, where, lambda: read("jsonl", where))
