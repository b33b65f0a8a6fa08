"""Readers hold a few blocks, however large their file is."""

import subprocess
import sys

import pytest

READ = """
import resource, sys
from pathlib import Path
from streamapp.workflow.data import open_input
from streamapp.workflow.graph.spec import Input

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

folder, small, large = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def rows(name):
    return sum(batch.num_rows for batch in open_input(Input(path=name), folder, name="x").read())
rows(small)
before = peak_mb()
print(rows(large), peak_mb() - before)
"""
LINES = {
    "csv": ("id,name,amount\n", b"12345,some name of a customer,99.95\n"),
    "jsonl": ("", b'{"id": 12345, "name": "some name of a customer", "amount": 99.95}\n'),
}
MORE_MB_MAX = 64


def _file(path, head, line, megabytes):
    block = line * (1_000_000 // len(line))
    with path.open("wb") as file:
        file.write(head.encode())
        for _ in range(megabytes):
            file.write(block)
    return megabytes * (1_000_000 // len(line))


@pytest.mark.parametrize("form", LINES)
@pytest.mark.parametrize("megabytes", [40, pytest.param(400, marks=pytest.mark.soak)])
def test_a_large_file_takes_little_more_memory_than_a_small_one(tmp_path, form, megabytes):
    """The small one is some blocks long, so that all that is loaded once is loaded."""
    head, line = LINES[form]
    _file(tmp_path / f"small.{form}", head, line, 12)
    rows = _file(tmp_path / f"large.{form}", head, line, megabytes)
    names = [f"small.{form}", f"large.{form}"]
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path), *names],
        capture_output=True,
        text=True,
        check=True,
    )
    found, more_mb = done.stdout.split()
    assert int(found) == rows
    assert float(more_mb) < MORE_MB_MAX
