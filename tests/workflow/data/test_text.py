"""Text files: ids, encodings and limits."""

import pytest

from streamapp.core.errors import Refuse, Retry
from streamapp.workflow.data import open_input
from streamapp.workflow.graph.spec import Input


def opened(folder, bad=None, pattern="**/*.txt", **options):
    keep = {} if bad is None else {"on_bad": bad.append}
    return open_input(Input(pattern=pattern, options=options), folder, name="documents", **keep)


def test_a_file_that_is_not_in_the_encoding_is_a_bad_row(tmp_path):
    (tmp_path / "good.txt").write_text("fine")
    (tmp_path / "odd.txt").write_bytes(b"one\ncaf\xe9")
    bad = []
    assert opened(tmp_path, bad).read().read_all()["document_id"].to_pylist() == ["good"]
    assert [(row.origin, row.line, row.reason) for row in bad] == [
        ("odd.txt", 2, "byte 7 is not utf-8")
    ]


def test_files_of_several_encodings_are_read_where_they_are_declared(tmp_path):
    (tmp_path / "a.txt").write_bytes("café".encode())
    (tmp_path / "b.txt").write_bytes("café".encode("cp1252"))
    (tmp_path / "c.txt").write_bytes("café".encode("utf-16"))
    rows = opened(tmp_path, encoding=["utf-8", "cp1252"]).read().read_all()
    assert rows["text"].to_pylist() == ["café"] * 3


def test_two_files_may_not_have_one_id(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.txt").write_text(folder)
    with pytest.raises(Refuse, match=r"x/same.txt and y/same.txt both have the document_id 'same'"):
        opened(tmp_path)
    rows = opened(tmp_path, document_id="path").read().read_all()
    assert rows["document_id"].to_pylist() == ["x/same.txt", "y/same.txt"]


def test_a_file_beyond_the_limit_is_a_bad_row(tmp_path):
    (tmp_path / "large.txt").write_text("x" * 11)
    bad = []
    assert opened(tmp_path, bad, bytes_max=10).read().read_all().num_rows == 0
    assert bad[0].reason == "has more than bytes_max = 10 bytes"


def test_a_file_that_goes_away_is_a_source_that_died(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    source = opened(tmp_path)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(Retry, match="a.txt went away"):
        source.read().read_all()


def test_a_pattern_is_literal_where_the_folder_has_its_signs(tmp_path):
    folder = tmp_path / "[odd] *"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    assert opened(folder, pattern="*.txt").read().read_all().num_rows == 1
