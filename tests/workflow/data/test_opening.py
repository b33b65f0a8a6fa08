"""Inputs, outputs and declared sources: what is refused before anything is read."""

import pyarrow as pa
import pytest

from streamapp.core.errors import Refuse
from streamapp.workflow.data import declared_sources, format_of, open_input, open_output, writers
from streamapp.workflow.graph.spec import Input, Output


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "rows.csv").write_text("a\n1\n")
    (tmp_path / "rows.db").write_bytes(b"")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "streamapp.toml").write_text(
        '[sources.good]\npath = "rows.csv"\n[sources.secret]\nurl = "env:ROWS_URL"\n'
        'format = "http"\n'
    )
    return tmp_path


@pytest.mark.parametrize(("declared", "why"), [
    (Input(path="row.csv"), "input 'x': row.csv: there is no such file .*did you mean .*rows.csv"),
    (Input(path="."), "says its format|does not say its format"),
    (Input(path="sub", format="csv"), "there is no such file"),
    (Input(path="folder.csv"), r"folder\.csv: is a folder \(paths begin"),
    (Input(path="/dev/null", format="csv"), "/dev/null: is no file, but a device or a pipe"),
    (Input(pattern="*.none"), "does not say its format"),
    (Input(pattern="*.parquet"), r"no file matches '\*.parquet'"),
    (Input(pattern=("*.csv", "*.txt")), "files of several formats"),
    (Input(), "files of no format"),
    (Input(path="rows.csv", pattern="*.csv"), "says twice where its rows are"),
    (Input(path="rows.csv", table="t"), "has 'table', which the format csv does not take"),
    (Input(path="rows.db"), "needs a table or a query"),
    (Input(path="rows.db", table="t", query="select 1"), "needs a table or a query"),
    (Input(path="rows.csv", format="cvs"), "did you mean csv"),
    (Input(type="sqlite", path="rows.db", table="t", format="csv"), "of type sqlite and of format csv"),
    (Input(source="goood"), "no source 'goood' .*did you mean good"),
    (Input(source="good", path="rows.csv"), "has 'path' beside a source"),
    (Input(type="source"), "names no source"),
    (Input(source="secret"), "the environment has no ROWS_URL"),
    (Input(type="http", url="https://ann:pass@host/"), "has a password written out"),
    (Input(type="http", url="ftp://host/"), "is no web address"),
    (Input(type="http", url="http://host:no/"), "is no web address"),
    (Input(type="http", url="http://[host/"), "its URL is none"),
    (Input(path="~nobody-of-this-name/rows.csv"), "home directory"),
    (Input(path="a" * 300 + ".csv"), "File name too long"),
    (Input(path="rows.csv", options={"header": "perhaps"}), "option 'header'"),
])  # fmt: skip
def test_an_input_that_cannot_be_is_refused(folder, declared, why):
    with pytest.raises(Refuse, match=why) as refused:
        open_input(declared, folder, name="x")
    assert "pass@" not in refused.value.message
    assert refused.value.fix


@pytest.mark.parametrize(("declared", "why"), [
    (Output(source="x"), "says no format"),
    (Output(source="x", format="txt"), "no package can write the format 'txt'"),
    (Output(source="x", path="../out.csv"), "is outside of"),
    (Output(source="x", path="/tmp/out.csv"), "is outside of"),
    (Output(source="x", format="csv", table="t"), "has 'table'"),
    (Output(source="x", path="a\0.csv"), "is no path"),
    (Output(source="x", format="postgres"), "says not where its rows are"),
    (Output(source="x", format="csv", options={"nope": 1}), "no option 'nope'"),
])  # fmt: skip
def test_an_output_that_cannot_be_is_refused(folder, declared, why):
    with pytest.raises(Refuse, match=why):
        open_output(declared, folder, name="x")


def test_an_output_is_named_by_itself_unless_it_is_said(folder):
    assert (
        open_output(Output(source="s", format="jsonl"), folder, name="x").path == folder / "x.jsonl"
    )
    assert (
        open_output(Output(source="s", path="a/b.csv"), folder, name="x").path == folder / "a/b.csv"
    )


@pytest.mark.parametrize(("path", "form"), [
    ("a.CSV", "csv"), ("a.tsv.gz", "csv"), ("a.ndjson", "jsonl"), ("a.b.db", "sqlite"), ("a.md", "text"),
])  # fmt: skip
def test_a_suffix_says_the_format(path, form):
    assert format_of(path) == form


def test_a_declared_source_is_a_source(folder):
    sources = declared_sources(folder)
    assert sources.names == ("good", "secret")
    source = sources.source("good")
    assert (source.name, source.format, source.files) == ("good", "csv", (folder / "rows.csv",))
    assert source.read().read_all().to_pylist() == [{"a": 1}]
    assert open_input(Input(source="good"), folder, name="x").read().read_all().num_rows == 1


@pytest.mark.parametrize(("table", "why"), [
    ('pth = "x"', r"\[sources.s\] has no key 'pth' .*did you mean path"),
    ("path = 3", r"\[sources.s\]: Expected `str"),
    ('source = "other"', "has no key 'source'"),
])  # fmt: skip
def test_a_source_that_is_declared_wrongly_is_refused(tmp_path, table, why):
    (tmp_path / "streamapp.toml").write_text(f"[sources.s]\n{table}\n")
    with pytest.raises(Refuse, match=why):
        declared_sources(tmp_path)


def test_the_identity_of_an_input_is_what_was_declared_and_no_secret(folder, monkeypatch):
    def identity(**keys):
        return open_input(Input(**keys), folder, name="x").identity

    same = identity(path="rows.csv")
    assert identity(path="rows.csv") == same
    assert identity(path="rows.csv", options={"header": False}) != same
    monkeypatch.setenv("ROWS_URL", "https://host/?key=one")
    one = declared_sources(folder).source("secret")
    monkeypatch.setenv("ROWS_URL", "https://host/?key=two")
    two = declared_sources(folder).source("secret")
    assert one.identity == two.identity
    assert one.files == ()


def test_a_file_that_two_patterns_find_is_read_once(folder):
    (folder / "one.jsonl").write_text("{}\n")
    found = open_input(Input(pattern=("*.jsonl", "one.jsonl")), folder, name="x")
    assert [path.name for path in found.files] == ["one.jsonl"]


def test_an_output_of_an_unknown_suffix_is_told_what_can_be_written(tmp_path):
    with pytest.raises(Refuse) as refused:
        open_output(Output(source="s", path="rows.xyz"), tmp_path, name="rows")
    assert set(writers()) == set(refused.value.fix.rpartition("one of ")[2].split(", "))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_two_columns_of_one_name_are_refused(tmp_path, name):
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    output = open_output(Output(source="s", path=name), tmp_path, name="rows")
    output.write(twice.to_reader())
    with pytest.raises(Refuse, match=f"{name} has two columns that are called 'a'"):
        open_input(Input(path=name), tmp_path, name="x").schema()
