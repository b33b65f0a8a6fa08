"""3,080 labelled messages from one command to rows, frames and a reader that followed."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from streamapp.ring import RingReader

DATA = Path(__file__).parents[3] / "shared" / "data" / "banking77" / "test.csv"

pytestmark = [
    pytest.mark.models,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not DATA.is_file(), reason="BANKING77 is not beside the project"),
]


def follow(path, wanted, seen, stop):
    with RingReader.open(path) as reader:
        while len(seen) < wanted and not stop.is_set():
            seen.extend(reader.read(256, timeout=0.2).frame_id.tolist())
        seen.append(("lost", reader.lost))


def test_a_file_of_messages_becomes_rows_and_frames_once(machine):
    seen, stop = [], threading.Event()
    reader = threading.Thread(target=follow, args=(machine.ring, 3080, seen, stop), daemon=True)
    reader.start()
    command = [sys.executable, "-m", "streamapp.cli", "send", str(DATA), "--text", "text"]
    command += ["--type", "BankMessage", "--json"]
    for _ in range(2):  # the same file again changes nothing
        done = subprocess.run(command, env=machine.env, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["accepted"] == 3080
    machine.wait_rows(3080)
    machine.wait_for(lambda: len(machine.frames()[0]) >= 3080, "all frames")
    reader.join(60)
    stop.set()
    counts = "select count(*) as n, count(distinct id) as ids from events"
    assert machine.rows(counts) == [{"n": 3080, "ids": 3080}]
    length = "sqrt(array_inner_product(embedding, embedding))"
    [unit] = machine.rows(f"select min({length}) as low, max({length}) as high from events")
    assert unit["low"] == pytest.approx(1, abs=1e-5)
    assert unit["high"] == pytest.approx(1, abs=1e-5)
    assert seen[-1] == ("lost", 0)
    assert seen[:-1] == sorted(set(seen[:-1]))
    assert len(seen) == 3081
    assert len(machine.frames()[0]) == 3080
    assert machine.stop() == 0
