"""The one statement that every transaction is made of: planned once, right for as long as it runs."""

import duckdb
import pyarrow as pa
import pytest

from streamapp.sink.recall import Inserting

NUMBERS = pa.schema([("n", pa.int64())])
WORDS = pa.schema([("word", pa.string())])
SCHEMAS = {"numbers": NUMBERS, "words": WORDS}


def numbers(*values):
    return pa.table([values], schema=NUMBERS)


def words(*values):
    return pa.table([values], schema=WORDS)


def stored(db, table):
    return [row[0] for row in db.execute(f"FROM {table} ORDER BY rowid").fetchall()]


@pytest.fixture
def db():
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE numbers (n BIGINT CHECK (n >= 0))").fetchall()
        connection.execute("CREATE TABLE words (word JSON)").fetchall()
        yield connection


def test_each_table_gets_its_rows_once(db):
    inserting = Inserting(db, SCHEMAS)
    inserting.insert({"numbers": numbers(1, 2), "words": words("1")})
    inserting.insert({"words": words("2", "3")})
    inserting.insert({"numbers": numbers(3)})
    inserting.insert({})
    assert stored(db, "numbers") == [1, 2, 3]
    assert stored(db, "words") == ["1", "2", "3"]


def test_a_failed_transaction_leaves_nothing_for_the_next(db):
    inserting = Inserting(db, SCHEMAS)
    for bad in ({"numbers": numbers(-1), "words": words("1")}, {"words": words("no JSON")}):
        db.begin()
        with pytest.raises(duckdb.Error, match="CHECK|JSON"):
            inserting.insert({"numbers": numbers(7)} | bad)
        db.rollback()
        inserting.insert({})
    inserting.insert({"numbers": numbers(1)})
    assert stored(db, "numbers") == [1]
    assert stored(db, "words") == []


def test_it_knows_of_tables_that_another_connection_changed(db):
    inserting = Inserting(db, SCHEMAS)
    inserting.insert({"numbers": numbers(1)})
    with db.cursor() as other:
        other.execute("ALTER TABLE numbers ADD COLUMN noted BOOLEAN DEFAULT true").fetchall()
        other.execute("CREATE VIEW seen AS FROM words").fetchall()
    inserting.insert({"numbers": numbers(2), "words": words("1")})
    assert db.execute("SELECT n, noted FROM numbers ORDER BY n").fetchall() == [
        (1, True),
        (2, True),
    ]
    assert stored(db, "words") == ["1"]


def test_rows_of_many_row_groups_stay_in_their_order(db):
    inserting = Inserting(db, SCHEMAS)
    for first in (0, 300_000):
        inserting.insert({"numbers": numbers(*range(first, first + 300_000))})
    assert stored(db, "numbers") == list(range(600_000))
