"""What is put in front of DuckDB's functions: small calls answer as ever, huge ones are refused."""

import duckdb
import pytest

from streamapp.sink import bounds

SMALL = """
repeat('ab', 3); repeat('ab'::BLOB, 3); repeat([1, 2], 3); repeat([], 3); repeat('', 3); repeat('ab', -1)
repeat(NULL, 3); repeat('ab', NULL); repeat('ab', 3::UTINYINT); 'a'.repeat(3); repeat('a', 400000).strlen()
lpad('1', 5, '0'); rpad('1', 5, ' '); lpad(NULL, 5, '0'); lpad('abc', 0, '0'); lpad('abc', -1, '0')
range(5); range(2, 5); range(5, 2, -1); range(0, 5, 2); range(NULL); range(0, NULL); range(0, 9, 1::UTINYINT)
generate_series(5); generate_series(1, 5); generate_series(0, 10, 5); range(100000).len(); range(0, 5, 0)
generate_series(DATE '2020-01-01', DATE '2020-03-03', INTERVAL 1 MONTH)
range(TIMESTAMP '2020-01-01', TIMESTAMP '2020-01-03', INTERVAL 1 DAY)
range(TIMESTAMP '2020-01-01', '2020-01-03', INTERVAL 1 DAY)
range(TIMESTAMPTZ '2020-01-03', TIMESTAMPTZ '2020-01-01', INTERVAL '-1 day')
list_resize([1], 3); list_resize([1], 3, 7); array_resize(['a'], 3, 'b'); list_resize([1], NULL)
list_resize(NULL, 3); list_resize([{'a': 1}], 2, {'a': 2}); list_resize([1], 3, NULL)
list_transform([1, 2], lambda x: repeat('a', x)); list_transform([1, 2], lambda x: range(x))
[repeat('a', x) for x in [1, 2]]; unnest(range(3))
repeat('a', '3'); repeat('ab'::BLOB, '3'); repeat([1, 2], ' 3 '); repeat('a', ''); repeat('a', '3'::VARCHAR)
repeat('a', 3::UBIGINT); repeat('a', 3.7); lpad('1', '5', '0'); rpad('1', '5', '0'); lpad('1', 5::BIGINT, '0')
range('5'); range('2', '5'); range(2, '5'); range('2', 5); range(5.5); generate_series('5'); range('a'); range('1', NULL)
range(0, 5, '2'); range(0, '5', 2); range('0', 5, 2); range('0', '5', '2'); range(0, 5, 1.5)
range(0, 3::UTINYINT, '1'); range(0::BIGINT, 3::SMALLINT, 1); range(NULL, 5, 1); range(NULL, NULL, 1); range(0, 5, NULL)
generate_series(DATE '2020-01-01', DATE '2020-01-03', '1 day'); range(DATE '2020-01-01', '2020-01-03', '1 day')
range(DATE '2020-01-01', TIMESTAMPTZ '2020-01-03', '1 day'); range('2020-01-01', TIMESTAMP '2020-01-03', '1 day')
range('2020-01-01', '2020-01-03', INTERVAL 1 DAY); range(DATE '2020-01-01', TIMESTAMP '2020-01-03', '1 day')
range(DATE '2020-01-01', 5, 1); range(NULL, DATE '2020-01-03', '1 day'); range(TIMESTAMP 'infinity', '2020-01-03', '1 day')
list_resize([1], '3'); list_resize([1], '3', '7'); list_resize([1], 3, 7.5); list_resize([1], -1)
""".strip().replace(";", "\n").splitlines()  # fmt: skip

#: DuckDB binds these in its own way each.
PLACES = [
    "SELECT * FROM range(3)",
    "SELECT * FROM range(200000) LIMIT 1",
    "SELECT * FROM generate_series(DATE '2020-01-01', DATE '2020-03-03', INTERVAL 1 MONTH)",
    "SELECT * FROM (VALUES (1), (2)) t(x), range(t.x) ORDER BY ALL",
    "SELECT * FROM (VALUES (3)) t(x), unnest(range(x))",
    "SELECT * FROM (VALUES (3)) t(x), unnest(range(0, x, 1))",
    "SELECT * FROM (VALUES (3)) t(x), unnest([repeat('a', x), lpad('a', x, 'b')])",
    "SELECT x FROM (VALUES (1)) t(x), LATERAL (SELECT unnest(range(x + 2)))",
    "SELECT (SELECT sum(n) FROM (SELECT unnest(range(x)) AS n)) FROM (VALUES (3)) t(x)",
    "SELECT string_agg(repeat('a', x), ',' ORDER BY x) FROM range(3) t(x)",
    "SELECT repeat('a', max(x)) FROM range(3) t(x) HAVING repeat('a', count(*)) = 'aaa'",
    "SELECT repeat('a', x) AS s FROM range(3) t(x) GROUP BY repeat('a', x) ORDER BY s",
    "SELECT * FROM repeat('a', 3)",
    # What DuckDB takes for volatile may not stand there.
    "SELECT count(*) OVER (PARTITION BY rpad(s, 2, 'b')) FROM (VALUES ('a'), ('b')) t(s)",
    "SELECT repeat(s, 2) AS s FROM (VALUES ('a')) t(s) GROUP BY ALL HAVING repeat(s, 2) > '' ORDER BY s",
    "SELECT string_agg(DISTINCT lpad(s, 2, 'x'), ',' ORDER BY lpad(s, 2, 'x')) FROM (VALUES ('a')) t(s)",
    "SELECT * FROM (VALUES (DATE '2020-01-01')) t(x), unnest(range(x, '2020-01-03', '1 day'))",
    "SELECT * FROM (VALUES ('3')) t(x), unnest([repeat('a', x)])",
    "SELECT TRY(repeat('a', 5)), TRY(range(3)), TRY(levenshtein('a', 'b'))",
]

HUGE = """
repeat('x', 4000000000); repeat('x'::BLOB, 4000000000); repeat([1], 4000000000); repeat('', 4000000000000)
repeat(repeat('x', 90000), 90000); lpad('x', 2000000000, 'y'); rpad('x', 2000000000, 'y')
range(2000000000); range(-9223372036854775807, 9223372036854775807); range(0, 2000000000, 3)
range(2000000000, 0, -3); generate_series(0, 9223372036854775806); unnest(range(10000000000))
range(TIMESTAMP '0001-01-01', TIMESTAMP '9999-01-01', INTERVAL '1 microsecond')
range(DATE '0001-01-01', DATE '9999-01-01', INTERVAL '1 day')
range(TIMESTAMPTZ '2020-01-03', TIMESTAMPTZ 'infinity', INTERVAL '1 day')
list_resize([1], 300000000); array_resize([1], 300000000, 2); list_resize([''], 90000, repeat('x', 90000))
list_transform([4000000000], lambda n: repeat('a', n))
repeat('x', '4000000000'); lpad('x', '2000000000', 'y'); range('2000000000'); range('0', '2000000000')
range(0, '2000000000', '3'); range(DATE '0001-01-01', '9999-01-01', '1 day')
""".strip().replace(";", "\n").splitlines()  # fmt: skip


@pytest.fixture(scope="module")
def bounded():
    with duckdb.connect() as connection:
        connection.execute("ATTACH ':memory:' AS db").fetchall()
        connection.execute("USE db").fetchall()
        for statement in bounds.macros():
            connection.execute(statement).fetchall()
        yield connection


def outcome(connection, sql):
    """The types and rows, or that DuckDB refuses."""
    try:
        answer = connection.execute(sql)
        return [column[1] for column in answer.description], answer.fetchall()
    except duckdb.Error as error:
        return type(error)


@pytest.mark.parametrize("sql", [*(f"SELECT {call.strip()}" for call in SMALL), *PLACES])
def test_small_calls_are_duckdbs_own(bounded, sql):
    with duckdb.connect() as plain:
        expected = outcome(plain, sql)
    assert outcome(bounded, sql) == expected


@pytest.mark.parametrize("call", [call.strip() for call in HUGE])
def test_huge_calls_are_refused_by_name(bounded, call):
    with pytest.raises(duckdb.ConversionException, match="too (long|many)"):
        bounded.execute(f"SELECT {call}").fetchall()


def test_parameters(bounded):
    for call, given, answer in (
        ("range(?, ?, ?)", [0, 5, 2], [0, 2, 4]),
        ("repeat(?, ?)", ["a", 3], "aaa"),
        ("lpad(?, ?, ?)", ["a", 3, "b"], "bba"),
        ("list_resize(?, ?)", [[1], 2], [1, None]),
        ("repeat(?, ?)", ["a", "3"], "aaa"),
        ("lpad(?, ?, ?)", ["a", "3", "b"], "bba"),
        ("range(?, ?, ?)", [0, 5, "2"], [0, 2, 4]),
    ):
        assert bounded.execute(f"SELECT {call}", given).fetchall() == [(answer,)]


def test_every_bounded_function_is_one_of_duckdbs(bounded):
    """A name that DuckDB drops or renames would leave a macro that fails."""
    there = bounded.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE schema_name = 'main' AND internal"
    ).fetchall()
    assert {(name,) for name in bounds.BOUNDED} <= set(there)
