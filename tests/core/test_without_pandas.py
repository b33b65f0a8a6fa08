"""Our processes start without pandas, and whoever imports it finds pyarrow as it always is."""

import os
import subprocess
import sys

import pytest

BEGIN = """
import sys
import streamapp.{module}
import pyarrow as pa
table = pa.table({{"a": [1.5]}})
assert "pandas" not in sys.modules, "who brought it in?"
"""
ASKED = """
assert list(table.to_pandas()["a"]) == [1.5]
"""
IMPORTED = """
from importlib.util import find_spec
assert find_spec("pandas"), "who only asks whether it is there is told so"
assert "pandas" not in sys.modules
import pandas
series = pandas.Series([1.0, float("nan")])
assert pa.array(series).null_count == 1
assert pa.table({"a": series})["a"].null_count == 1
assert pandas.__spec__.name == "pandas"
assert not [one for one in sys.meta_path if type(one).__module__.startswith("streamapp")]
"""


@pytest.mark.parametrize(
    ("module", "after"), [("worker", IMPORTED), ("store", ASKED), ("terminal", IMPORTED)]
)
def test_our_processes_do_without_pandas_until_it_is_asked_for(module, after):
    pytest.importorskip("pandas")
    # As users have it: what tests start otherwise finds no pandas.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", BEGIN.format(module=module) + after],
        env=environ, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
