"""CSV that is wrong in ways in which rows could be lost without a word."""

import pyarrow as pa
import pytest

from streamapp.core.errors import Refuse
from streamapp.workflow.data import open_input
from streamapp.workflow.data.blocks import Block
from streamapp.workflow.data.csv_rows import COLUMNS_MAX, Dialect, texts
from streamapp.workflow.data.misfits import misfits
from streamapp.workflow.data.types import TYPES as KINDS
from streamapp.workflow.graph.spec import Input


def read(tmp_path, data, **options):
    """The rows, and the bad ones by their lines."""
    (tmp_path / "rows.csv").write_bytes(data)
    bad = []
    declared = Input(path="rows.csv", options=options)
    opened = open_input(declared, tmp_path, name="rows", on_bad=bad.append)
    rows = opened.read().read_all().to_pylist()
    return [tuple(row.values()) for row in rows], [row.line for row in bad]


@pytest.mark.parametrize(
    ("lines", "rows", "bad"),
    [
        (b'1,"x\n2,y\n3,z\n', [(2, "y"), (3, "z")], [2]),
        (b'1,x\n2,"y', [(1, "x")], [3]),
        (b'1,"x\n2,y\n3,"z\n4,w\n', [(2, "y"), (4, "w")], [2, 4]),
        (b'1,"x"y\n2,z\n', [(2, "z")], [2]),
        (b'1,5" pipe\n2,x\n3,"y\nz"\n', [(1, '5" pipe'), (2, "x"), (3, "y\nz")], []),
        (b'1,"x""y"\n2,""\n3,""""\n', [(1, 'x"y'), (2, ""), (3, '"')], []),
    ],
)
def test_a_quote_takes_no_other_rows_along(tmp_path, lines, rows, bad):
    assert read(tmp_path, b"a,b\n" + lines) == (rows, bad)


def test_a_quote_that_is_never_closed_costs_its_row_whatever_the_size_of_the_file(tmp_path):
    lines = b"".join(b"%d,x\n" % number for number in range(3_000))
    rows, bad = read(tmp_path, b'a,b\n-1,"x\n' + lines)
    assert (len(rows), rows[0], bad) == (3_000, (0, "x"), [2])


@pytest.mark.parametrize("quote", [b"", b'"'])
def test_a_long_value_beside_a_bad_row_is_not_taken_for_an_open_quote(tmp_path, quote):
    value = quote + b"x" * 200_000 + quote
    rows, bad = read(tmp_path, b"a,b\n1," + value + b"\nonly\n2,y\n")
    assert (rows, bad) == ([(1, "x" * 200_000), (2, "y")], [3])


@pytest.mark.parametrize(
    ("row", "count"),
    [
        (b"a,b\n", 2),
        (b"a,\r\n", 2),
        (b",", 2),
        (b'"a,\nb",""\n', 2),
        (b'"a""",b"c\n', 2),
        (b'"a"b,c\n', 0),  # a quote that ends no value
        (b'"a,b\n', 0),
        (b"a\rb,c\n", 0),  # two rows
        (b'"a"\n"b"\n', 0),
        (b"\n", 0),
    ],
)
def test_values_of_a_row_are_counted(row, count):
    assert Dialect(",", '"', ()).count(row) == count


def test_records_of_an_open_quote_are_put_together_in_one_pass():
    [record] = Dialect(",", '"', ()).records(Block(1, b'"' + b"\n" * 20_000))
    assert (record.line, len(record.data)) == (1, 20_001)


def test_a_cut_looks_for_quotes_not_for_lines():
    cut = Dialect(",", '"', ()).whole
    assert cut(b'a,"' + b"\n" * 1_000_000) == 0
    assert cut(b'a\nb,"\n"\nc') == 8
    assert cut(b'a\nb,"\n"') == 2
    assert cut(b"a") == 0


def test_lines_that_end_in_cr_alone_are_lines_also_where_a_block_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("streamapp.workflow.data.blocks.BLOCK_BYTES", 24)
    rows, bad = read(tmp_path, b"a,b\r" + b"".join(b"%d,word\r" % n for n in range(50)))
    assert (rows, bad) == ([(number, "word") for number in range(50)], [])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (",".join(f"c{n}" for n in range(COLUMNS_MAX + 1)).encode(), "columns, more than 16,384"),
        (b"a," * (1 << 19), "its first row has more than 1,048,576 bytes"),
        (b"a\n1\n" + b"x" * 300 + b"\n", r"rows.csv:3: a line of more than 100 bytes"),
    ],
)
def test_rows_beyond_all_measure_are_refused(tmp_path, data, why, monkeypatch):
    if len(data) < 1000:
        monkeypatch.setattr("streamapp.workflow.data.blocks.BLOCK_BYTES", 50)
        monkeypatch.setattr("streamapp.workflow.data.blocks.RECORD_BYTES_MAX", 100)
    with pytest.raises(Refuse, match=why):
        read(tmp_path, data)


@pytest.mark.parametrize("encoding", ["hex", "rot13", "zip", "undefined", "base64"])
def test_what_is_no_encoding_of_text_is_refused(tmp_path, encoding):
    with pytest.raises(Refuse, match=f"no encoding is called '{encoding}'"):
        read(tmp_path, b"a\n1\n", encoding=encoding)


VALUES = [
    "1", "-3", "007", " 5", "5 ", "+5", "5\u00a0", "1.5", "1e5", "nan", "inf", "0x1F", "1e999", "",
    "9223372036854775807", "9223372036854775808", "2147483648", "true", "TRUE", "tRue", "0", "\t",
    "yes", "2024-01-01", " 2024-01-01", "2024-02-30", "0000-00-00", "1500-01-01", "2024-1-1",
    "2024-01-01 10:00", "2024-01-01T10:00:00.123456", "2024-01-01T10:00:00.1234567",
    "2024-01-01T10:00:00Z", "2024-01-01 10:00:00+02:00", "2024-01-01 24:00:00", "12:00", "word",
]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in KINDS if name not in {"string", "text"}])
def test_columns_find_the_misfits_that_the_parser_does_not_take(name):
    dialect, schema = Dialect(",", '"', ("",)), pa.schema([("k", pa.string()), ("v", KINDS[name])])
    lines = [f"x,{each}\n".encode() for value in VALUES for each in (value, f'"{value}"')]

    def is_taken(line):
        try:
            return dialect.parse(line, schema).num_rows == 1
        except pa.ArrowException:
            return False

    rows = dialect.parse(b"".join(lines), texts(schema.names))
    wrong = {place for place, line in enumerate(lines) if not is_taken(line)}
    assert set(misfits(rows, schema)) == wrong
    assert 0 < len(wrong) < len(lines)


def test_a_file_with_many_bad_rows_is_parsed_as_often_as_one_with_few(tmp_path, monkeypatch):
    parse, calls = Dialect.parse, []
    monkeypatch.setattr(Dialect, "parse", lambda *args: calls.append(1) or parse(*args))
    good = [b"%d,2024-01-01,true\n" % number for number in range(20_000)]
    kinds = {"a": "int", "b": "date", "c": "bool"}
    counts = []
    for every in (10_000, 10):
        broken = list(good)
        broken[5::every] = [b"%d,2024-01-00,true\n" % n for n in range(len(good[5::every]))]
        broken[6::every] = [b"0,2024-01-01,%d\n" % (n % 2) for n in range(len(good[6::every]))]
        calls.clear()
        rows, bad = read(tmp_path, b"a,b,c\n" + b"".join(broken), columns=kinds)
        assert len(rows) + len(bad) == len(good)
        assert bad == sorted(place + 2 for at in (5, 6) for place in range(at, len(good), every))
        counts.append(len(calls))
    assert counts[0] == counts[1]


def test_one_bad_row_in_ten_is_not_most_of_them_wherever_they_stand(tmp_path):
    lines = b"".join(b"%d,x\n" % n + b"1,2,3\n" * (n % 10 == 0) for n in range(20_000))
    rows, bad = read(tmp_path, b"a,b\n" + lines)
    assert (len(rows), len(bad)) == (20_000, 2_000)
