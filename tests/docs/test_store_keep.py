"""The commands, snippets and tables of docs/store.md's section on keeping the store are true."""

import re
import subprocess
import sys

import pytest
from pages import page
from store_host import StoreHost, plain

from streamapp.sink.retain import STEP_ROWS
from streamapp.sink.verify import CHECKS, DEEP, HOLE, failure

SECTION = page("store").section("Keep it")


@pytest.fixture
def host(tmp_path):
    host = StoreHost(tmp_path / "home")
    host.publish([(0, first, first + 250) for first in range(0, 2000, 250)])
    host.start("store")
    host.wait_stored(2000)
    yield host
    for process in host.processes.values():
        process.kill()
        process.wait()


def run(host, line):
    words = line.removeprefix("$ streamapp ").split()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "streamapp.cli", *words],
        env=host.env, cwd=host.home, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


def test_the_page_from_top_to_bottom(host, capsys):
    """Commands on the running store, snippets on what they made, then the rebuild."""
    commands, rebuild = ([*text.splitlines()] for text in SECTION.blocks("console"))
    for line in commands:
        said = run(host, line)
    assert "retained 1,440" in said
    for text in SECTION.blocks("python"):
        exec(text, {"archive": host.home / "archive"})
    out = capsys.readouterr().out
    assert "fixed_size_list<element: float>[4]" in out
    assert "FLOAT[4]" in out
    assert host.terminate("store") == {0}
    for line in rebuild:
        run(host, line)
    assert plain(host.db, "SELECT count(*) FROM events") == [(560,)]
    assert plain(host.home / "copy.duckdb", "SELECT count(*) FROM events") == [(2000,)]
    assert plain(host.db, "SELECT DISTINCT version FROM migrations WHERE \"column\" = 'embedding'")
    assert host.db.with_name(host.db.name + ".before-rebuild").exists()


def test_the_table_of_codes_is_complete():
    table = SECTION[SECTION.index("| code |") :].split("\n\n")[0]
    said = {}
    for line in table.splitlines()[2:]:
        codes, _, exit_code = line.strip("| ").split("|")
        said |= dict.fromkeys(re.findall(r"`([\w.]+)`", codes), int(exit_code))
    assert set(said) == {HOLE, DEEP.code, *(check.code for check in CHECKS)}
    for code, exit_code in said.items():
        assert failure({"counts": {code: 1}}, "path").exit_code == exit_code


def test_the_step_is_as_long_as_it_says():
    assert f"transactions of {STEP_ROWS:,}" in SECTION
