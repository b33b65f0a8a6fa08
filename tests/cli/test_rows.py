"""Rows of a file as events: every value arrives, ids are a function of file, line and content."""

import csv
import io
import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from streamapp.cli.rows import LINE_BYTES_MAX, BadRow, Lines, Row, Shape, read_rows

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
KEYS = st.text("abcdefgh_", min_size=1, max_size=5).filter(lambda key: key != "id")
VALUES = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT | st.lists(TEXT, max_size=3)
)


def read(data, kind, shape=None, key="k"):
    return list(read_rows(Lines(io.BytesIO(data)), kind, shape or Shape(), key))


def events(rows):
    return [json.loads(row.body) for row in rows]


@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=8))
def test_json_rows_arrive_as_they_are(values):
    data = "".join(json.dumps(value) + "\n" for value in values).encode()
    found = events(read(data, "jsonl"))
    assert [{k: v for k, v in event.items() if k != "id"} for event in found] == values
    assert len({event["id"] for event in found}) == len(values)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=8))
def test_csv_cells_arrive_as_they_are(cells):
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(["message", "other"])
    writer.writerows(cells)
    found = events(read(text.getvalue().encode(), "csv"))
    assert [(e.get("message", ""), e.get("other", "")) for e in found] == cells


@given(st.binary(max_size=400), st.sampled_from(["csv", "tsv", "jsonl", "text"]))
def test_no_bytes_break_it(data, kind):
    head = b"message,x\n" if kind == "csv" else b"message\tx\n" if kind == "tsv" else b""
    for row in read(head + data.replace(b"[", b"("), kind):
        assert isinstance(row, Row | BadRow)


def test_ids_depend_on_key_line_and_content():
    one = read(b"same\nsame\n", "text")
    assert one == read(b"same\nsame\n", "text")
    others = [
        *one,
        *read(b"same\nsame\n", "text", key="other"),
        *read(b"diff\nsame!\n", "text"),
        *read(b"same\nsame\n", "text", Shape(kind="T")),
    ]
    assert len({json.loads(row.body)["id"] for row in others}) == 8


def test_a_bad_line_does_not_change_the_ids_of_others():
    good = read(b'{"message": "a"}\n{"message": "b"}\n{"message": "c"}\n', "jsonl")
    torn = read(b'{"message": "a"}\n{"message": \n{"message": "c"}\n', "jsonl")
    assert (torn[0], torn[2]) == (good[0], good[2])
    assert torn[1].line == 2


def test_lines_are_numbered_as_an_editor_does():
    rows = read(b'message\n"a\nb"\n\nc\n', "csv")
    assert [row.line for row in rows] == [3, 5]


def test_a_line_without_end_is_skipped_not_held():
    data = b"short\n" + b"x" * (2 * LINE_BYTES_MAX + 5) + b"\nlast\n"
    first, bad, last = read(data, "text")
    assert (first.line, bad.line, last.line) == (1, 2, 3)
    assert "longer than" in bad.reason


def test_a_column_may_serve_twice():
    shape = Shape(text="t", id="t", conversation="t")
    (event,) = events(read(b"t,u\nx,y\n", "csv", shape))
    assert event == {"id": "x", "message": "x", "conversation_id": "x", "u": "y"}


def test_a_flag_wins_over_a_column():
    (event,) = events(read(b"message,type\nx,mine\n", "csv", Shape(kind="Flag")))
    assert event["type"] == "Flag"


def test_what_comes_without_a_format_is_looked_at():
    assert events(read(b'{"message": "x"}\n', ""))[0]["message"] == "x"
    assert events(read(b"plain\n", ""))[0]["message"] == "plain"
    assert read(b"", "") == []


def test_the_conversation_is_known_beside_the_body():
    rows = read(b'{"conversation_id": "a"}\n{"conversation": "b"}\n{"c": 3}\n', "jsonl")
    assert [row.conversation for row in rows] == ["a", "b", ""]
    assert all(one.line < two.line for one, two in pairwise(rows))
