"""Expressions reach the columns of their row, and nothing else."""

import pyarrow as pa
import pytest
from table_work import result

from streamapp.core.errors import Refuse
from streamapp.services import call
from streamapp.services.pipeline.expression import literal
from streamapp.services.pipeline.rows import Filter, Map

ROWS = pa.table({"n": [1], "s": ["x"], "A": [1], "a": [2], "l": [[1, 2]], "odd name": [3]})


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("n + 1", 2),
        ("N + 1", 2),
        ("a", 2),
        ("A", 1),
        ('"odd name" * 2', 6),
        ("list_transform(l, lambda q: q + n)", [2, 3]),
        ("list_transform(l, lambda current_date: current_date + n)", [2, 3]),
        ("case when n > 0 then 'pos' else 'neg' end", "pos"),
        ("n -- a comment", 1),
        ("regexp_extract(s, '(x)', 1)", "x"),
        ("strptime('2026-01-02', '%Y-%m-%d')::date::varchar", "2026-01-02"),
        ("s in ('x', 'y')", True),
        ("null", None),
        ("'now()'", "now()"),
        ("1::hugeint", 1),
        ("uuid '00000000-0000-0000-0000-000000000001'", "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_what_can_be_said(sql, value):
    assert result(Map, {"columns": {"found": sql}}, rows=ROWS)["found"].to_pylist() == [value]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("n from rows", "does not parse at character 3"),
        ("n; select 1", "does not parse at character 2"),
        ("n, (select 1)", "sub-select"),
        ("n in (select n from read_csv('/etc/passwd'))", "sub-select"),
        ("exists(from '/etc/passwd')", "sub-select"),
        ("(from glob('/*'))", "sub-select"),
        ("n) from (values (1", "does not parse"),
        ("n), (s", "more than one expression"),
        ("n) as x, (s", "more than one expression"),
        ("1) union (select 1", "does not parse|more than one|sub-select"),
        ("*", "a star"),
        ("columns('n')", "a star"),
        ("?", "a parameter"),
        ("#1", "a column by number"),
        ("random()", "another value each time"),
        ("uuid()", "another value each time"),
        ("now()", "another value each time"),
        ("sleep_ms(1000)", "another value each time"),
        ("pg_sleep(1)", r"sleep_ms\(\), which gives another value each time"),
        ("ago('1 day')", "reads current_timestamp"),
        ("current_localtimestamp()", "another value each time"),
        ("get_block_size('x')", "sub-select"),
        ("geomean(n)", r"avg\(\), which is over many rows"),
        ("geometric_mean(n)", "over many rows"),
        ("unnest(l)", "several values for a row"),
        ("generate_subscripts(l, 1)", "several values for a row"),
        ("list_value(" * 800 + "n" + ")" * 800, "nested too deep"),
        ("write_log('x')", "another value each time"),
        ("current_setting('memory_limit')", "another value each time"),
        ("current_date", "another one each time"),
        ("sum(n)", "over many rows"),
        ("sum(n) over ()", "an OVER clause"),
        ("read_csv('/etc/passwd')", "table function"),
        ("read_text('/etc/passwd')", "table function"),
        ("getenv('HOME')", "does not exist"),
        ("nope", "no 'nope' column"),
        ("nope.n", "no 'nope' column"),
        ("rowid", "no 'rowid' column"),
        ("n + s", "No function matches"),
        ("  ", "is empty"),
        ("n" + " + n" * 5_000, "more than 10,000 characters"),
        ("len(system.main.range(30000))", r"calls range\(\) by a schema"),
        ("len(main.range(30000))", r"calls range\(\) by a schema"),
        ("format('{:>1000000000}', s)", "widths of more than 10,000 characters"),
        ("'{:>20000}'.format(s)", "widths of more than 10,000 characters"),
        ("format('{0:.20000f}{1:5}', 1.5, n)", "widths of more than 10,000 characters"),
        ("format('{:6000}{:6000}', n, n)", "widths of more than 10,000 characters"),
        ("format('{:>{}}', s, 20000)", "a width from another value"),
        ("format(s, n)", "a format that is no text"),
        ("printf('%20000d', n)", "widths of more than 10,000 characters"),
        ("printf('%-5.20000f', n::double)", "widths of more than 10,000 characters"),
        ("printf('%*d', 20000, n)", "a width from another value"),
        (
            "list_transform(l, lambda a: list_transform(l, lambda b: range(b)))",
            r"calls range\(\) in a lambda within a lambda",
        ),
        ("\x00", "config.columns.found"),
        ("(" * 4_000 + "n" + ")" * 4_000, "config.columns.found"),
    ],
)
def test_what_cannot(sql, said):
    with pytest.raises(Refuse, match=said) as caught:
        result(Map, {"columns": {"found": sql}}, rows=ROWS)
    assert "config.columns.found" in caught.value.message


def test_two_columns_of_one_name():
    table = pa.table([[1], [2]], names=["N", "N"])
    with pytest.raises(Refuse, match="two 'n' column"):
        result(Filter, {"where": "n > 1"}, rows=table)


@pytest.mark.parametrize(
    ("value", "sql"),
    [(None, "NULL"), (True, "TRUE"), (1, "1"), (1.5, "1.5"), ("o'x", "'o''x'"), ("", "''")],
)
def test_values(value, sql):
    assert literal(value) == sql


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1], b"x"])
def test_values_that_cannot_be_written(value):
    with pytest.raises(Refuse):
        literal(value)


@pytest.mark.parametrize(
    "sql",
    [
        "list_sum(range(0, 100000000))",
        "range(100000000)",
        "len(range(0, -100000000, -1))",
        "generate_series(timestamp '2024-01-01', timestamp '2025-01-01', interval 1 second)",
        "repeat('ab', 100000000)",
        "lpad('a', 100000000, '-')",
        "list_resize([1], 100000000)",
        "bar(1, 0, 10, 100000000)",
        "try(len(range(100000000)))",
    ],
)
def test_a_call_does_not_make_a_value_without_bounds(sql):
    with pytest.raises(Refuse, match="more than 10,000 values"):
        result(Map, {"columns": {"found": sql}}, rows=ROWS)


def test_a_row_that_asks_for_too_large_a_value_is_set_aside():
    rows = pa.table({"n": [2, 100_000_000]})
    aside = []
    kept = call("pipeline.map", rows, columns={"found": "len(range(n))"}, aside=aside)
    assert kept.to_pylist() == [{"n": 2, "found": 2}]
    assert sum(len(bad) for bad, _ in aside) == 1


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("range(3)", [0, 1, 2]),
        ("range(5, 1, -2)", [5, 3]),
        ("len(generate_series(1, 10000))", 10_000),
        ("list_transform(l, lambda b_: len(range(b_, b_ + n)))", [1, 1]),
        ("range(date '2024-01-01', date '2024-01-03', interval 1 day)[2]::varchar",
         "2024-01-02 00:00:00"),
        ("repeat(s, 3)", "xxx"),
        ("repeat(l, 2)", [1, 2, 1, 2]),
        ("repeat(null, 3)", None),
        ("rpad(s, 3, '-')", "x--"),
        ("format('{{{:>3}}} 20000', s)", "{  x} 20000"),
        ("printf('%05.1f%% 20000', n + 0.25)", "001.2% 20000"),
        ("list_transform(l, lambda a: list_transform(l, lambda b: a * b))", [[1, 2], [2, 4]]),
    ],
)  # fmt: skip
def test_functions_with_a_limit_are_what_they_were(sql, value):
    assert result(Map, {"columns": {"found": sql}}, rows=ROWS)["found"].to_pylist() == [value]
