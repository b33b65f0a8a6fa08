"""Every command and statement of docs/store.md's section on dead letters works as it stands there."""

import os
import subprocess
import sys
from pathlib import Path

from dead_letters import Place
from pages import page

from streamapp.sink import Store
from streamapp.topics.catalogue import DEAD, RAW

SECTION = page("store").section("Dead letters")
VALUE = b'{"id": "e", "message": "m"}'


def test_the_commands_in_order(tmp_path):
    """One after the other, as a reader of the page tries them."""
    place = Place(f"local://{tmp_path}/home/log", raw=RAW, dead=DEAD)
    for _ in range(3):
        place.die(VALUE)
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STREAMAPP_HOME": str(tmp_path / "home"),
    }
    said = {}
    for line in "".join(SECTION.blocks("console")).splitlines():
        command = line.removeprefix("$ ")
        told = subprocess.run(
            command, shell=True, capture_output=True, text=True, check=False, timeout=60, env=env,
            cwd=tmp_path, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert told.returncode == 0, (command, told.stderr)
        said[command] = told.stdout
    assert len(said) == 10
    assert (tmp_path / "original.json").read_bytes() == VALUE
    assert "0:0" in said["streamapp dlq ls"]
    assert said["streamapp dlq replay 0:0"].startswith("0:0 sent to events.raw:1:3")
    assert said["EDITOR=true streamapp dlq edit 0:2 || echo 'nothing was changed'"]
    assert "purged 2 letters" in said["streamapp dlq purge --before 30d --yes"]
    assert b'"hello"' in place.read(RAW, 1)[4].value
    assert "erased 3 letters" in said["streamapp dlq purge --before 30d --yes"]
    assert place.read(DEAD) == []


def test_the_statement(tmp_path):
    (statement,) = SECTION.blocks("sql")
    store = Store.open(str(tmp_path / "store.duckdb"), columns={})
    try:
        cursor = store.reader()
        assert cursor.execute(statement).fetchall() == []
    finally:
        store.close()
