"""Paths at which no store can be."""

import os
import sqlite3

import pytest

from streamapp.core.errors import Refuse


def test_a_path_of_something_else_is_refused(open_store, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for other in (pipe, tmp_path, "/dev/null"):
        with pytest.raises(Refuse, match=f"cannot open {other}: it is no file") as caught:
            open_store(str(other))
        assert caught.value.code == "store.path"
    for name in ("a\0b.duckdb", "\udce9.duckdb"):
        with pytest.raises(Refuse, match="its name is not UTF-8"):
            open_store(str(tmp_path / name))
    lite = tmp_path / "lite.duckdb"
    with sqlite3.connect(lite) as connection:
        connection.execute("CREATE TABLE events (a)")
    with pytest.raises(Refuse, match="not a valid DuckDB") as caught:
        open_store(str(lite))
    assert caught.value.code == "store.corrupt"
