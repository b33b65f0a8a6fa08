"""streamapp text: documents in files."""

import io
import json
import sys

import pyarrow.parquet as pq
import pytest

from streamapp.cli.app import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("What a wonderful day! The red wine was excellent.")
    (tmp_path / "b.txt").write_text("The red wine was a terrible idea. What a day, day, day!")
    return tmp_path


def run(capsys, *arguments, code=0):
    assert main(["text", *arguments]) == code
    return capsys.readouterr()


def test_a_table(folder, capsys):
    lines = run(capsys, "analyze", "a.txt", "b.txt").out.splitlines()
    assert lines[0].split()[:4] == ["document", "words", "sentences", "flesch"]
    assert lines[1].split()[0] == "a"
    assert "positive +0.8" in lines[1]
    assert "red wine" in lines[1]
    assert "negative" in lines[2]


def test_json(folder, capsys):
    a, b = json.loads(run(capsys, "analyze", "a.txt", "b.txt", "--json").out)
    assert (a["document_id"], a["path"], a["words"], a["sentiment_label"]) == (
        "a", "a.txt", 9, "positive"
    )  # fmt: skip
    assert a["readability"]["flesch"] > b["readability"]["smog"]
    assert a["keywords"][0] == {"text": "wonderful day", "score": 4.0}


def test_a_file_is_written(folder, capsys):
    out = run(capsys, "analyze", "a.txt", "--out", "found.parquet", "--keywords", "0").out
    assert out == "1 row in found.parquet\n"
    found = pq.read_table(folder / "found.parquet")
    assert found["document_id"].to_pylist() == ["a"]
    assert "keywords" not in found.column_names


def test_standard_input(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Three words here.")))
    [found] = json.loads(run(capsys, "analyze", "-", "--json", "--no-language").out)
    assert (found["document_id"], found["words"]) == ("stdin", 3)
    assert "language" not in found


def test_similar_documents(folder, capsys):
    [pair] = json.loads(run(capsys, "similar", "a.txt", "b.txt", "--json").out)
    assert (pair["document_id"], pair["similar_document_id"]) == ("a", "b")
    assert pair["similarity"] == pytest.approx(7 / 11)
    lines = run(capsys, "similar", "a.txt", "b.txt", "--nearest", "1").out.splitlines()
    assert [line.split() for line in lines[1:]] == [["a", "b", "0.636"], ["b", "a", "0.636"]]
    assert run(capsys, "similar", "a.txt", "b.txt", "--threshold", "0.9").out.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.txt"], "none.txt cannot be read: No such file or directory"),
        (["*.md"], "quote the pattern"),
        (["bad.txt"], "bad.txt is not utf-8: byte 3 is 0xe9"),
        (["a.txt", "--encoding", "utf-9"], "no encoding is called 'utf-9'"),
        (["a.txt", "--out", "found.docx"], "found.docx"),
    ],
)
def test_what_cannot_be_read_or_written_is_said(folder, capsys, arguments, said):
    (folder / "bad.txt").write_bytes(b"caf\xe9")
    assert said in run(capsys, "analyze", *arguments, code=2).err


def test_another_encoding(folder, capsys):
    (folder / "bad.txt").write_bytes(b"caf\xe9")
    [found] = json.loads(run(capsys, "analyze", "bad.txt", "--encoding", "latin-1", "--json").out)
    assert found["characters"] == 4
