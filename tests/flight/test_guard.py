"""What clients may not do, each of which DuckDB itself would do."""

import duckdb
import pytest

from streamapp.core.errors import Refuse
from streamapp.flight.guard import check


@pytest.fixture
def cursor(store):
    with store.reader() as opened:
        yield opened


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO meta VALUES ('a', 'b')",
        "WITH x AS (INSERT INTO meta VALUES ('a', 'b') RETURNING *) SELECT * FROM x",
        "SELECT * FROM (WITH x AS (DELETE FROM meta RETURNING *) SELECT * FROM x)",
        "EXPLAIN ANALYZE INSERT INTO meta VALUES ('a', 'b')",
        "EXPLAIN ANALYZE WITH x AS (UPDATE meta SET value = '9' RETURNING 1) FROM x",
        "UPDATE meta SET value = '2'",
        "DELETE FROM meta",
        "MERGE INTO meta USING meta m ON false WHEN NOT MATCHED THEN INSERT",
        "CREATE TABLE t (i INTEGER)",
        "CREATE TEMP TABLE t AS SELECT 1",
        "DROP TABLE events",
        "TRUNCATE events",
        "COPY events TO '/tmp/x.csv'",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "EXPORT DATABASE '/tmp/x'",
        "ATTACH '/tmp/x.duckdb'",
        "DETACH db",
        "USE memory",
        "PRAGMA version",
        "CALL pragma_version()",
        "CHECKPOINT",
        "VACUUM",
        "SET threads = 1",
        "RESET threads",
        "INSTALL httpfs",
        "LOAD httpfs",
        "BEGIN",
        "PREPARE p AS SELECT 1",
        "UPDATE EXTENSIONS",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE events",
        "",
        "-- nothing",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM READ_TEXT('/etc/passwd')",
        "SELECT * FROM \"read_blob\"('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM force_checkpoint('db')",
        "SELECT (SELECT count(*) FROM checkpoint('db'))",
        "SELECT * FROM system.main.force_checkpoint('db')",
        "SELECT 1 WHERE EXISTS (FROM Force_Checkpoint('db'))",
        "SELECT * FROM query('SELECT 1')",
        "SELECT * FROM json_execute_serialized_sql('{}')",
        "SELECT * FROM arrow_scan(1, 2, 3)",
        "SELECT * FROM enable_logging()",
        "SELECT * FROM enable_profiling(save_location := '/tmp/x')",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM duckdb_secrets()",
        "FROM pragma_database_list",
        "SELECT path FROM duckdb_databases",
        "SELECT * FROM Duckdb_Settings",
        "DESCRIBE pg_catalog.pg_settings",
        "SELECT write_log('x')",
        "SELECT current_setting('temp_directory')",
        "SELECT getenv('HOME')",
        "DESCRIBE SELECT * FROM read_csv('/etc/passwd')",
        "SUMMARIZE SELECT * FROM read_csv('/etc/passwd')",
        "EXPLAIN SELECT * FROM read_csv('/etc/passwd')",
        "EXPLAIN EXPLAIN SELECT 1",
    ],
)
def test_refused(cursor, sql):
    with pytest.raises(Refuse) as caught:
        check(cursor, sql)
    assert caught.value.code in {"sql.not_allowed", "sql.syntax", "sql.empty"}, caught.value


@pytest.mark.parametrize("sql", ["FROM '/etc/passwd'", "FROM 'x.parquet'"])
def test_a_file_is_no_table(served, sql):
    with pytest.raises(Refuse, match=r"does not exist|outside the store"):
        served.query(sql)


def test_nothing_gets_past_over_the_wire(served, store):
    for sql in ("INSERT INTO meta VALUES ('a', 'b')", "COPY meta TO '/tmp/x'", "SELECT 1; SELECT 2",
                "ATTACH 'x'", "SET threads = 1", "PRAGMA version", "SELECT getenv('HOME')",
                "SELECT * FROM read_csv('/etc/passwd')"):  # fmt: skip
        with pytest.raises(Refuse) as caught:
            served.query(sql)
        assert caught.value.code == "sql.not_allowed"
    with store.reader() as cursor:
        assert cursor.execute("FROM meta").fetchall() == [("format", "1")]


def test_a_read_only_transaction_is_the_second_lock(store):
    """Should the guard miss something, DuckDB still refuses to write."""
    with store.reader() as cursor:
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        with pytest.raises(duckdb.TransactionException, match="read-only"):
            cursor.execute("INSERT INTO meta VALUES ('a', 'b')")


def test_an_interruption_is_no_error_of_the_statement():
    """Whoever interrupted has the reason, like a server that stops."""

    class Interrupted:
        def execute(self, *_):
            raise duckdb.InterruptException("INTERRUPT Error: Interrupted!")

    with pytest.raises(duckdb.InterruptException):
        check(Interrupted(), "SELECT 1")


def test_very_long_and_very_deep_statements(cursor):
    with pytest.raises(Refuse, match="longer than"):
        check(cursor, "SELECT '" + "x" * (1 << 20) + "'")
    for sql in ("SELECT " + "(" * 3000 + "1" + ")" * 3000, "SELECT " + "1+" * 5000 + "1"):
        with pytest.raises(Refuse):
            check(cursor, sql)


def test_columns_named_like_functions_are_fine(cursor):
    check(cursor, "SELECT 1 AS force_checkpoint, 'read_csv(''x'')' AS getenv")


def doubling(part, count):
    """``x0`` and so many parts that each name the one before twice."""
    return ", ".join(part.format(before=f"x{n}", this=f"x{n + 1}") for n in range(count))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS x0, " + doubling("{before} + {before} AS {this}", 40),
        "SELECT 1 AS X0, " + doubling("upper({before} || {before}) AS {this}", 40),
        "SELECT 1 FROM (SELECT 1 AS x0, " + doubling("{before} + {before} AS {this}", 40) + ")",
        "SELECT " + "nullif(" * 40 + "1" + ", 2)" * 40,
        "SELECT " + "levenshtein(" * 40 + "'a'" + ", 'b')::VARCHAR" * 40,
        "WITH x0 AS NOT MATERIALIZED (SELECT 1 AS n), "
        + doubling("{this} AS NOT MATERIALIZED (SELECT a.n FROM {before} a, {before} b)", 40)
        + " SELECT * FROM x40",
    ],
    ids=["aliases", "functions", "subquery", "macros", "bounded", "ctes"],
)
def test_what_would_double_until_nothing_ends_its_planning(cursor, sql):
    with pytest.raises(Refuse, match="grows too large") as refused:
        check(cursor, sql)
    assert refused.value.code == "sql.depth"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS x0, " + doubling("{before} + 1 AS {this}", 100),
        "SELECT " + "replace(" * 30 + "'abc'" + ", 'a', 'b')" * 30,
        "SELECT " + "nullif(" * 8 + "1" + ", 2)" * 8,
        "WITH x0 AS (SELECT 1 AS n), "
        + doubling("{this} AS (SELECT a.n FROM {before} a, {before} b)", 10)
        + " SELECT * FROM x10",
        "SELECT 1 WHERE " + " OR ".join(f"'a' = '{n}'" for n in range(5000)),
    ],
    ids=["aliases", "replace", "nullif", "ctes", "conditions"],
)
def test_what_only_looks_like_that(cursor, sql):
    check(cursor, sql)
    assert len(cursor.execute(sql).fetchall()) <= 1
