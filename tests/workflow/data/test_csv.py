"""CSV: what is learned of a file, and what is saved of a half-broken one."""

import gzip
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.errors import Refuse
from streamapp.workflow.data import blocks, open_input, open_output
from streamapp.workflow.graph.spec import Input, Output


def opened(folder, text, bad=None, name="rows.csv", **options):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    keep = {} if bad is None else {"on_bad": bad.append}
    return open_input(Input(path=name, format="csv", options=options), folder, name="rows", **keep)


def test_a_half_broken_file_gives_its_good_rows_and_its_bad_ones_by_their_lines(tmp_path):
    text = (
        "id,name,price,born\n"  # 1
        "1,ann,2.5,2020-01-01\n"
        '2,"bob\nby",x,2020-01-02\n'  # 3 and 4
        "3,carl\n"
        "4,dora,1,2020-13-01\n"
        "5,ed,1,2020-01-01,9\n"
        "6.5,fay,1,2020-01-01\n"
        '7,"unclosed,1,2020-01-01\n'  # 9
        "8,gus,,\n"
        "\n"
        '9,"",3,2020-02-02\n'
        "10,\udcff,1,2020-01-01\n"  # 13
    )
    bad = []
    source = opened(
        tmp_path, text.encode("utf-8", "surrogateescape"), bad,
        columns={"id": "int", "price": "double", "born": "date"},
    )  # fmt: skip
    assert source.read().read_all().to_pylist() == [
        {"id": 1, "name": "ann", "price": 2.5, "born": date(2020, 1, 1)},
        {"id": 8, "name": "gus", "price": None, "born": None},
        {"id": 9, "name": "", "price": 3.0, "born": date(2020, 2, 2)},
    ]
    bad.sort(key=lambda row: row.line)
    assert [(row.origin, row.line, row.reason) for row in bad] == [
        ("rows.csv", 3, "column 'price' is double, not 'x'"),
        ("rows.csv", 5, "it has 2 values, not 4"),
        ("rows.csv", 6, "column 'born' is date32[day], not '2020-13-01'"),
        ("rows.csv", 7, "it has 5 values, not 4"),
        ("rows.csv", 8, "column 'id' is int64, not '6.5'"),
        ("rows.csv", 9, "a quote is not closed"),
        ("rows.csv", 13, "column 'name' is string and is not UTF-8"),
    ]
    assert bad[1].text == "3,carl"


def test_without_a_taker_the_first_bad_row_is_an_error(tmp_path):
    source = opened(tmp_path, "a,b\n1,2\n3\n")
    with pytest.raises(Refuse, match=r"rows.csv:3: it has 1 values, not 2"):
        source.read().read_all()


def test_types_are_the_narrowest_that_hold_all_values(tmp_path):
    source = opened(
        tmp_path,
        "int,float,bool,date,at,zoned,code,mixed,none,far\n"
        "-1,1,true,2020-02-29,2020-01-01 10:00,2020-01-01T10:00:00Z,007,1,,99999999999999999999\n"
        "0,1.5e3,FALSE,2020-01-01,2020-01-01T10:00:00.5,2020-01-01T10:00:00+02:00,10,x,,1\n",
    )
    kinds = [str(field.type) for field in source.schema()]
    assert kinds == [
        "int64", "double", "bool", "date32[day]", "timestamp[us]", "timestamp[us, tz=UTC]",
        "string", "string", "string", "string",
    ]  # fmt: skip
    second = source.read().read_all().to_pylist()[1]
    assert second["code"] == "10"
    assert second["zoned"] == datetime(2020, 1, 1, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["9223372036854775807", "-9223372036854775808"], "int64"),
        (["9223372036854775807", "9223372036854775808"], "string"),  # a double has 15 digits
        (["1", "123456789012345678901234567890"], "string"),
        (["0.5", "12345678901234567890"], "double"),
        (["0001-01-01", "9999-12-31"], "date32[day]"),
        (["0000-12-31"], "string"),  # no calendar but Arrow's has that year
        (["0000-12-31T10:00:00"], "string"),
        (["0001-01-01T00:00:00+01:00"], "string"),  # which is in that year, too
    ],
)
def test_what_a_narrow_type_would_not_keep_is_text(tmp_path, texts, kind):
    (tmp_path / "a.csv").write_text("\n".join(["value", *texts]))
    rows = open_input(Input(path="a.csv"), tmp_path, name="rows").read().read_all()
    assert str(rows.schema.field("value").type) == kind
    assert rows.num_rows == len(texts)
    assert kind != "string" or rows["value"].to_pylist() == texts


def test_an_empty_value_is_null_and_an_empty_text_in_quotes_is_not(tmp_path):
    source = opened(tmp_path, 'a,b,c\n,"",NA\nx,y,z\n', nulls=["", "NA"])
    assert source.read().read_all().to_pylist()[0] == {"a": None, "b": "", "c": None}


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_the_delimiter_is_found_in_the_header(tmp_path, delimiter):
    source = opened(tmp_path, f'"a,b"{delimiter}c\n1{delimiter}2\n')
    assert source.read().read_all().to_pylist() == [{"a,b": 1, "c": 2}]


def test_two_columns_of_one_name_are_refused(tmp_path):
    with pytest.raises(Refuse, match=r"rows.csv:1: columns 1 and 3 are both called 'a'"):
        opened(tmp_path, "a,b,a\n1,2,3\n").schema()


def test_utf_16_without_a_mark_is_told_and_can_be_declared(tmp_path):
    data = "a,b\n1,ü\n".encode("utf-16-le")
    with pytest.raises(Refuse, match=r"rows.csv:1: there are NUL bytes") as refused:
        opened(tmp_path, data).schema()
    assert "utf-16-le" in refused.value.fix
    found = opened(tmp_path, data, encoding="utf-16-le").read().read_all()
    assert found.to_pylist() == [{"a": 1, "b": "ü"}]


def test_a_column_without_a_name_is_called_by_its_place(tmp_path):
    assert opened(tmp_path, ",a\n0,1\n").schema().names == ["column_1", "a"]
    assert opened(tmp_path, "5,6\n", header=False).read().read_all().to_pylist() == [
        {"column_1": 5, "column_2": 6}
    ]


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(Refuse, match="rows.csv is empty"):
        opened(tmp_path, "").schema()


def test_several_files_are_one_table_of_the_wider_types(tmp_path):
    (tmp_path / "a.csv").write_text("n,x\n1,1\n")
    (tmp_path / "b.csv").write_text("x,n,more\nword,1.5,true\n")
    rows = open_input(Input(pattern="*.csv"), tmp_path, name="rows").read().read_all()
    assert rows.to_pylist() == [
        {"n": 1.0, "x": "1", "more": None},
        {"n": 1.5, "x": "word", "more": True},
    ]


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ("a\ncafé\n".encode("cp1252"), {"encoding": "cp1252"}),
        ("a\ncafé\n".encode("cp1252"), {"encoding": ["utf-8", "cp1252"]}),
        ("a\ncafé\n".encode("utf-8-sig"), {"encoding": "cp1252"}),  # its mark counts for more
        ("a\ncafé\n".encode("utf-16"), {}),
    ],
)
def test_an_encoding_is_declared_or_marked(tmp_path, data, options):
    assert opened(tmp_path, data, **options).read().read_all()["a"].to_pylist() == ["café"]


def test_a_file_in_none_of_the_declared_encodings_is_refused(tmp_path):
    with pytest.raises(Refuse, match="is in none of utf-8, ascii"):
        opened(tmp_path, "a\ncafé\n".encode("cp1252"), encoding=["utf-8", "ascii"]).schema()
    with pytest.raises(Refuse, match="no encoding is called 'utf-9'"):
        opened(tmp_path, "a\n", encoding="utf-9").schema()


def test_a_packed_file_is_unpacked(tmp_path):
    source = opened(tmp_path, gzip.compress(b"a\n1\n"), name="rows.csv.gz")
    assert source.read().read_all().to_pylist() == [{"a": 1}]


def test_a_file_of_another_kind_is_refused_rather_than_quarantined_whole(tmp_path):
    bad = []
    text = "a,b\n1,2\n" + "not,a,row\n" * 1_002
    with pytest.raises(Refuse, match="1001 are bad, the last one because it has 3 values"):
        opened(tmp_path, text, bad).read().read_all()
    assert len(bad) == 1_000


@pytest.mark.parametrize("size", [64, 100, 1000])
def test_blocks_end_between_rows_wherever_they_are_cut(tmp_path, monkeypatch, size):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    rows = [{"n": n, "text": f'line\n"{n}",\r\nend'} for n in range(50)]
    text = "n,text\n" + "".join('{n},"line\n""{n}"",\r\nend"\n'.format(**row) for row in rows)
    assert opened(tmp_path, text).read().read_all().to_pylist() == rows


@pytest.mark.parametrize(("options", "why"), [
    ({"delim": ";"}, "no option 'delim'.*did you mean delimiter"),
    ({"delimiter": ";;"}, "option 'delimiter'"),
    ({"columns": {"b": "int"}}, "no column 'b' to have a type"),
    ({"columns": {"a": "integr"}}, "no type 'integr'"),
])  # fmt: skip
def test_wrong_options_are_refused(tmp_path, options, why):
    with pytest.raises(Refuse, match=why):
        opened(tmp_path, "a\n1\n", **options).schema()


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
ROWS = st.lists(
    st.fixed_dictionaries({"text": st.none() | TEXTS, "n": st.none() | st.integers(-(2**53), 2**53)}),
    min_size=1, max_size=30,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_what_is_written_is_read_again(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("csv")
    schema = pa.schema([("text", pa.string()), ("n", pa.int64())])
    table = pa.Table.from_pylist(rows, schema)
    open_output(Output(source="x", format="csv"), folder, name="rows").write(table.to_reader())
    declared = Input(path="rows.csv", options={"columns": {"text": "string", "n": "int"}})
    assert open_input(declared, folder, name="rows").read().read_all().to_pylist() == rows


def test_decimals_stay_exact_and_bytes_are_written_as_base64(tmp_path):
    price = pa.array([Decimal("12345678901234567.89"), None], pa.decimal128(25, 2))
    rows = pa.table({"price": price, "raw": [b"\xff\x00", None]})
    open_output(Output(source="x", format="csv"), tmp_path, name="rows").write(rows.to_reader())
    written = (tmp_path / "rows.csv").read_text()
    assert written == '"price","raw"\n12345678901234567.89,"/wA="\n,\n'
