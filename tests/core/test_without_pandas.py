"""The store and the terminal agent start without pandas, and give a DataFrame to who wants one."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import streamapp.store, streamapp.terminal
import pyarrow as pa
table = pa.table({"a": [1.5]})
assert "pandas" not in sys.modules, "who brought it in?"
assert list(table.to_pandas()["a"]) == [1.5]
"""


def test_processes_of_our_own_do_without_pandas_until_it_is_asked_for():
    pytest.importorskip("pandas")
    # As users have it: what tests start otherwise finds no pandas.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environ, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
