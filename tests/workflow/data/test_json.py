"""JSON and JSON lines: columns of objects, and the lines that are none."""

import gzip
import json
import random

import pyarrow as pa
import pytest

from streamapp.core.errors import Refuse
from streamapp.workflow.data import blocks, json_rows, open_input
from streamapp.workflow.data.json_faults import Faults, sieve
from streamapp.workflow.data.recovering import Record, plain
from streamapp.workflow.graph.spec import Input


def opened(folder, text, bad=None, name="rows.jsonl", **options):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    keep = {} if bad is None else {"on_bad": bad.append}
    return open_input(Input(path=name, options=options), folder, name="rows", **keep)


LINES = (
    '{"a": 1, "b": {"x": ["y"]}, "at": "2020-01-01T10:00:00Z", "none": null}\n'
    "\n"
    '{"a": 2.5, "b": null}\r\n'
    '{"a": 3\n'  # line 4 and 5: an object on two lines is none
    ', "b": null}\n'
    '{"a": "four"}\n'
    "[7]\n"
    '{"a": 8, "new": 1}\n'
    '{"a": 9, "a": 10}\n'
    '{"at": "\udcff"}\n'
    '{"a": 11}'
)


def test_a_half_broken_file_gives_its_good_rows_and_its_bad_ones_by_their_lines(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 120)
    monkeypatch.setattr(blocks, "START_BLOCKS", 1)  # the schema is that of the first lines
    bad = []
    source = opened(tmp_path, LINES.encode("utf-8", "surrogateescape"), bad)
    assert [str(kind) for kind in source.schema().types] == [
        "double", "struct<x: list<item: string>>", "string", "string",
    ]  # fmt: skip
    rows = source.read().read_all().to_pylist()
    assert [row["a"] for row in rows] == [1.0, 2.5, 11.0]
    assert rows[0]["b"] == {"x": ["y"]}
    assert rows[0]["at"] == "2020-01-01T10:00:00Z"
    assert [(row.line, row.reason.partition(" '")[0]) for row in bad] == [
        (4, "Missing a comma or"),
        (5, "The document is empty."),
        (6, "Column(/a) changed from number to string"),
        (7, "Column() changed from object to array"),
        (8, "unexpected field"),
        (9, "Column(/a) was specified twice"),
        (10, "it is not UTF-8"),
    ]


def test_declared_types_are_read_as_such(tmp_path):
    bad = []
    text = '{"at": "2020-01-01 10:00:00", "n": null}\n{"at": "soon", "n": 1}\n'
    source = opened(tmp_path, text, bad, columns={"at": "timestamp", "n": "int", "more": "bool"})
    assert [str(kind) for kind in source.schema().types] == ["timestamp[us]", "int64", "bool"]
    assert source.read().read_all().num_rows == 1
    assert [row.line for row in bad] == [2]


def test_blocks_end_between_lines_wherever_they_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    rows = [{"n": n, "text": "x" * (n % 40)} for n in range(100)]
    data = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    assert opened(tmp_path, data, name="rows.jsonl.gz").read().read_all().to_pylist() == rows


@pytest.mark.parametrize(("text", "options"), [
    ('[{"a": 1},\n {"a":\n 2}]', {}),
    ('{"data": {"items": [{"a": 1}, {"a": 2}]}, "next": null}', {"records": "data.items"}),
])  # fmt: skip
def test_an_array_of_objects_is_rows(tmp_path, text, options):
    rows = opened(tmp_path, text, name="rows.json", **options).read().read_all().to_pylist()
    assert rows == [{"a": 1}, {"a": 2}]


def test_an_object_alone_is_a_row_and_a_bad_element_is_told_by_its_number(tmp_path):
    assert opened(tmp_path, '{"a": 1}', name="one.json").read().read_all().to_pylist() == [{"a": 1}]
    bad = []
    source = opened(tmp_path, '[{"a": 1}, {"a": 2}, 3, {"a": 4}]', bad, name="rows.json")
    assert source.read().read_all()["a"].to_pylist() == [1, 2, 4]
    assert [(row.line, row.text) for row in bad] == [(3, "3")]


@pytest.mark.parametrize(("text", "options", "why"), [
    ('[{"a": 1}', {}, r"rows.json: Input data was truncated"),
    ('{"a": [1]}', {"records": "b"}, "there is no 'b' on the way to 'b'"),
    ("[1]" * 10, {"bytes_max": 20}, "more than bytes_max = 20 bytes"),
    ("[" * 100_000, {}, "rows.json: maximum recursion depth"),
    ('["\udcff"]', {}, "rows.json:1: byte 2 is not utf-8"),
])  # fmt: skip
def test_a_file_that_cannot_be_taken_is_refused(tmp_path, text, options, why):
    data = text.encode("utf-8", "surrogateescape")
    with pytest.raises(Refuse, match=why):
        opened(tmp_path, data, name="rows.json", **options).read()


def test_files_with_columns_that_no_type_holds_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"n": "one"}\n')
    with pytest.raises(Refuse, match=r"column 'n' is int64 in .*a.jsonl, and string in .*b.jsonl"):
        open_input(Input(pattern="*.jsonl"), tmp_path, name="rows").schema()


def test_a_packed_file_counts_as_it_is_unpacked(tmp_path):
    (tmp_path / "rows.json.gz").write_bytes(gzip.compress(b"[" + b" " * 10_000 + b"]"))
    declared = Input(path="rows.json.gz", options={"bytes_max": 1_000})
    with pytest.raises(Refuse, match="more than bytes_max = 1000 bytes"):
        open_input(declared, tmp_path, name="rows").read()


def test_lines_that_are_nested_too_deep_are_refused(tmp_path):
    text = '{"a": ' * 5_000 + "1" + "}" * 5_000
    with pytest.raises(Refuse, match="rows.jsonl: its values are nested too deep"):
        opened(tmp_path, text, name="rows.jsonl").read()


@pytest.mark.parametrize("value", ["[" * 20_000 + "]" * 20_000, '{"b":' * 100 + "1" + "}" * 100])
def test_an_object_that_is_nested_too_deep_is_a_bad_row_and_no_crash(tmp_path, value):
    bad = []
    lines = f'{{"a": [1]}}\n{{"a": {value}}}\n{{"a": [2]}}\n'
    rows = opened(tmp_path, lines, bad).read().read_all()
    assert rows["a"].to_pylist() == [[1], [2]]
    assert [(row.line, row.reason) for row in bad] == [(2, "it is nested deeper than 64")]


def test_brackets_in_texts_nest_nothing(tmp_path):
    text = json.dumps({"a": "[" * 100 + '"{'})
    assert opened(tmp_path, text).read().read_all()["a"].to_pylist() == ["[" * 100 + '"{']


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (r'{"a": "\ud800"}', '{"a": "x"}'),
        (r'{"\ud800": 1}', '{"a": 1}'),
        ('{"a": 1e999}', '{"a": 1.5}'),
    ],
)
def test_a_bad_first_object_does_not_hide_the_columns_of_those_like_it(tmp_path, first, other):
    bad = []
    rows = opened(tmp_path, f"{first}\n{other}\n", bad).read().read_all()
    assert (rows.to_pylist(), [row.line for row in bad]) == ([json.loads(other)], [1])


@pytest.mark.parametrize(("name", "data"), [("a.jsonl", "{}\n{ }\n"), ("a.json", "[{}, {}]")])
def test_objects_that_are_all_empty_are_not_lost_without_a_word(tmp_path, name, data):
    (tmp_path / name).write_text(data)
    with pytest.raises(Refuse, match="none of its objects has a value"):
        open_input(Input(path=name), tmp_path, name="rows").read()
    told = open_input(Input(path=name, options={"columns": {"a": "int"}}), tmp_path, name="rows")
    assert told.read().read_all().to_pylist() == [{"a": None}, {"a": None}]


@pytest.mark.parametrize(("name", "text"), [
    ("a.jsonl", 'null\n{"n": 1, "s": "x"}\n  null\n{"n": 2, "s": "y"}\n'),
    ("a.json", '[null, {"n": 1, "s": "x"}, null, {"n": 2, "s": "y"}]'),
])  # fmt: skip
def test_a_null_in_place_of_an_object_is_a_bad_row(tmp_path, name, text):
    bad = []
    rows = opened(tmp_path, text, bad, name=name).read().read_all().to_pylist()
    assert rows == [{"n": 1, "s": "x"}, {"n": 2, "s": "y"}]
    why = "Column() changed from object to null"
    assert [(row.line, row.reason) for row in bad] == [(1, why), (3, why)]


OF_ALL_KINDS = pa.schema([
    ("id", pa.int64()), ("name", pa.string()), ("price", pa.float64()), ("ok", pa.bool_()),
    ("tags", pa.list_(pa.string())), ("small", pa.int32()),
    ("in", pa.struct([("a", pa.int64()), ("l", pa.list_(pa.struct([("z", pa.float64())])))])),
])  # fmt: skip
GOOD = (
    b'{"id": 12, "name": "a\\u00e4 \xc3\xa4 \\"x", "price": -1.25, "ok": true, "small": 7, '
    b'"tags": ["a", null], "in": {"a": 5, "l": [{"z": 1}, {"z": null}, null]}}'
)
PIECES = (
    b'"x"', b"5", b"1.5", b"1e5", b"null", b"true", b"{", b"}", b"[", b"]", b",", b":", b" ",
    b"-", b'"id"', b"9999999999999999999", b"N", b'"', b"\\", b"0", b".", b"\xff", b"\t", b"",
)  # fmt: skip


def asked(data):
    """What Arrow says of one object; None: it takes it."""
    try:
        json_rows.parse([Record(1, data)], OF_ALL_KINDS)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        return plain(error)
    return None


def test_what_is_wrong_with_an_object_is_said_as_the_parser_says_it():
    faults, fits, chance = Faults(OF_ALL_KINDS), sieve(OF_ALL_KINDS), random.Random(7)
    assert fits(GOOD)
    assert asked(GOOD) is None
    told = set()
    for end in range(1, len(GOOD)):
        at = chance.randrange(1, len(GOOD))
        cut = at + chance.randrange(8)
        for data in (GOOD[:end], GOOD[:at] + chance.choice(PIECES) + GOOD[cut:]):
            reason = faults.of(data)
            if reason is not None:
                assert reason == asked(data), data
                told.add(reason)
            elif fits(data):
                assert asked(data) is None, data
    assert len(told) > 15


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_a_file_with_many_bad_rows_is_parsed_as_often_as_one_with_few(tmp_path, monkeypatch, name):
    parse, calls = json_rows._read, []  # each call of it starts threads
    monkeypatch.setattr(json_rows, "_read", lambda *args: calls.append(1) or parse(*args))
    wrong = ['{"n": "no", "at": null}', '{"n": 1.5}', '{"n": 1, "at": "soon"}', '{"n": 1, "o": 2}']
    if name == "rows.jsonl":
        wrong.append('{"n": 1, "at"')
    counts = []
    for every in (4_000, 10):
        lines = [f'{{"n": {n}, "at": "2024-01-01 10:00:00"}}' for n in range(20_000)]
        lines[5_000::every] = [wrong[n % len(wrong)] for n in range(len(lines[5_000::every]))]
        text = "\n".join(lines) if name == "rows.jsonl" else f"[{','.join(lines)}]"
        calls.clear()
        bad = []
        source = opened(tmp_path, text, bad, name=name, columns={"at": "timestamp", "n": "int"})
        source.schema()
        rows = source.read().read_all()
        assert len(rows) + len(bad) == 20_000
        counts.append(len(calls))
    assert counts[1] <= counts[0] + 20  # one for each 1,000 rows that types are learned from


def test_columns_are_learned_from_the_good_ones_of_many_bad_rows(tmp_path):
    lines = ['{"a": 1, "b": {"c": [1]}}', '{"a": 2, "a": 3}', '{"a": "x", "d": 1}', "null", '{"a"',
             '{"a": 1.5, "b": {"c": [2.5]}}', '{"e": NaN}', '{"a": null, "b": null}']  # fmt: skip
    source = opened(tmp_path, "\n".join(lines * 500), [])
    assert {field.name: str(field.type) for field in source.schema()} == {
        "a": "double", "b": "struct<c: list<item: double>>", "d": "int64", "e": "double",
    }  # fmt: skip
    assert source.read().read_all().num_rows == 4 * 500
