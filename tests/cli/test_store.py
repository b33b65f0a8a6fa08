"""``streamapp store verify|backup|archive|retain|rebuild``, with the store's process and without it."""

import json
import signal
import subprocess

import duckdb
import pyarrow.dataset as ds
import pytest
from store_host import StoreHost, in_shell, plain

from streamapp.sink import Store

#: When the first events came in, and 1,440 of a partition later.
DAY = "2024-10-04"
NEXT_DAY = "2024-10-05"
ADDRESSES = "SELECT source_partition, source_offset FROM events ORDER BY ALL"


@pytest.fixture
def host(tmp_path):
    """Two partitions of 2,000 events each, a minute apart; every 100th is a dead letter."""
    host = StoreHost(tmp_path / "home")
    host.publish(
        [(p, first, first + 250) for first in range(0, 2000, 250) for p in range(2)], dead_every=100
    )
    yield host
    for process in host.processes.values():
        process.kill()
        process.wait()


@pytest.fixture
def running(host):
    host.start("store")
    host.wait_stored(3960)
    return host


@pytest.fixture
def stopped(running):
    assert running.terminate("store") == {0}
    assert "leaked" not in running.tail("store"), "DuckDB's binding lists what outlives Python"
    return running


def archived(folder):
    table = ds.dataset(folder / "events", partitioning="hive").to_table()
    columns = (table["source_partition"].to_pylist(), table["source_offset"].to_pylist())
    return sorted(zip(*columns, strict=True))


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_in_both_states(request, state):
    """The same words, the same results: over Flight, or on the file."""
    host = request.getfixturevalue(state)
    home = host.home
    said = host.cli("verify").stdout
    assert said.splitlines() == [
        "rows 3,960  dead 40  lost 0  retained 0",
        "every promise of the store holds",
    ]
    assert host.json("verify", "--deep")["ok"]

    said = host.cli("backup", "copy.duckdb").stdout
    assert said.startswith(f"{home / 'copy.duckdb'}  ")
    everything = plain(home / "copy.duckdb", ADDRESSES)
    assert len(everything) == 3960
    refused = host.cli("backup", "copy.duckdb", code=2).stderr
    assert "copy.duckdb exists" in refused
    assert "fix: name another file, or add --replace" in refused
    host.cli("backup", "copy.duckdb", "--replace")

    done = host.json("archive", "archive", "--before", NEXT_DAY)
    assert done["rows"] == len(archived(home / "archive")) + 30 == 2 * 1440

    done = host.json("retain", "--before", NEXT_DAY, "--archive", "archive")
    assert (done["rows"], done["dead"], done["kept_for_dedup"]) == (2850, 30, 0)
    assert done["before"] == f"{NEXT_DAY}T00:00:00+00:00"
    report = host.json("verify")
    assert (report["ok"], report["rows"], report["retained"]) == (True, 1110, 2850)
    host.json("archive", "archive")
    assert archived(home / "archive") == everything
    if state == "running":
        host.terminate("store")
    kept = [one for one in everything if one[1] >= 1440]
    assert plain(host.db, ADDRESSES) == kept


def test_a_copy_takes_the_place_of_the_store(running):
    """The way back from a backup: stop, put the copy there, start; it reads on."""
    running.cli("backup", "copy.duckdb")
    running.publish([(0, 2000, 2100), (1, 2000, 2050)])
    running.wait_stored(4110)
    assert running.terminate("store") == {0}
    running.db.unlink()
    (running.home / "copy.duckdb").rename(running.db)
    running.start("store")
    running.wait_stored(4110)
    assert running.json("verify")["ok"]


def test_the_archive_is_read_back_by_duckdb(stopped):
    stopped.cli("archive", "archive")
    with duckdb.connect() as plainly:
        plainly.execute((stopped.home / "archive" / "read.sql").read_text())
        (row,) = plainly.execute(
            "SELECT count(*), count(embedding), any_value(typeof(embedding)), min(ingest_day)::VARCHAR "
            "FROM archived_events"
        ).fetchall()
    assert row == (3960, 3560, "FLOAT[4]", DAY)


def test_what_is_wrong_is_listed_and_is_the_exit_code(stopped):
    in_shell(stopped.db, "DELETE FROM events WHERE source_partition = 1 AND source_offset = 77")
    failed = stopped.cli("verify", code=70)
    assert "events.raw-1[0,2000)" in failed.stdout
    assert "the ledger counts 1980 rows; 1979 are here" in failed.stdout
    assert failed.stderr.startswith(f"error: {stopped.db}: 1 ledger.rows\nfix: ")
    assert stopped.json("verify", code=70)["counts"] == {"ledger.rows": 1}
    in_shell(stopped.db, 'UPDATE ledger SET "rows" = "rows" - 1 WHERE "partition" = 1')
    assert stopped.json("verify")["ok"]


def test_a_hole_is_another_exit_code(running):
    running.publish([(1, 2100, 2200)])
    running.wait_stored(4060)
    report = running.json("verify", code=65)
    assert report["holes"] == ["events.raw-1[2000,2100)"]
    assert "1 ledger.hole" in running.cli("verify", code=65).stderr


class TestRebuild:
    def test_it_makes_the_same_store(self, stopped):
        before = plain(stopped.db, "SELECT * EXCLUDE (provenance) FROM events ORDER BY 2, 3")
        assert "is new, the old one is" in stopped.cli("rebuild").stdout
        assert (
            plain(stopped.db, "SELECT * EXCLUDE (provenance) FROM events ORDER BY 2, 3") == before
        )
        stopped.publish([(0, 2000, 2010)])
        stopped.start("store")
        stopped.wait_stored(3970)

    def test_of_one_that_cannot_be_read_it_says_that_nothing_was_known(self, stopped):
        stopped.db.write_bytes(b"no database" * 1000)
        said = stopped.cli("rebuild").stdout
        assert "the old one told nothing" in said
        assert "what was dropped is back" in said

    def test_not_while_the_store_runs(self, running):
        refused = running.cli("rebuild", code=2).stderr
        pid = running.processes["store"].pid
        assert f"PID {pid}" in refused
        assert "fix: stop the store's process first" in refused
        assert running.stored() == 3960

    def test_killed_the_old_store_is_whole_and_it_goes_on(self, stopped):
        before = plain(stopped.db, ADDRESSES)
        with stopped.begin("rebuild") as process:
            stopped.wait_for((stopped.home / "events.duckdb.rebuild").exists, "the new file")
            process.kill()
        assert plain(stopped.db, ADDRESSES) == before
        assert stopped.json("rebuild", "--replace")["rows"] == 3960
        assert sorted(one.name for one in stopped.home.glob("*.duckdb*")) == ["events.duckdb"]
        assert stopped.json("verify", "--deep")["ok"]

    def test_a_kafka_that_is_not_there(self, stopped):
        failed = stopped.cli("rebuild", "--broker", "local:///none/log", code=2).stderr
        assert failed.startswith("error: there is no log at /none/log\nfix: ")


class TestKilledStore:
    """kill -9 of the store's own process while it does what the command line asked for."""

    @pytest.mark.parametrize("verb", ["backup", "archive", "retain"])
    def test_it_starts_again_and_the_next_try_ends_it(self, running, verb):
        arguments = {
            "backup": ("backup", "copy.duckdb"),
            "archive": ("archive", "archive"),
            "retain": ("retain", "--before", NEXT_DAY, "--archive", "archive"),
        }[verb]
        made = running.home / ("copy.duckdb.part" if verb == "backup" else "archive")
        with running.begin(*arguments) as asking:
            running.wait_for(
                lambda: made.exists() or asking.poll() is not None, "the work to begin"
            )
            running.kill("store")
            said = asking.communicate(timeout=60)[1]
            if asking.returncode:
                assert said.startswith("error: ")
        running.publish([(0, 2000, 2100)])
        running.start("store")
        running.wait_for(lambda: running.query(
            "select max(source_offset) as o from events").to_pylist() == [{"o": 2099}], "the news"
        )  # fmt: skip
        again = ("backup", "copy.duckdb", "--replace") if verb == "backup" else arguments
        running.cli(*again)
        assert running.json("verify", "--deep")["ok"]
        if verb == "backup":
            assert running.json("verify", "--db-path", running.home / "copy.duckdb")["rows"] >= 4060
        else:
            running.cli("archive", "archive")
            everything = [(p, o) for p in (0, 1) for o in range(2000) if o % 100]
            everything += [(0, o) for o in range(2000, 2100)]
            assert archived(running.home / "archive") == sorted(everything)

    def test_the_client_dies_and_the_store_goes_on(self, running):
        with running.begin("archive", "archive") as asking:
            running.wait_for((running.home / "archive").exists, "the archive to begin")
            asking.send_signal(signal.SIGKILL)
        running.wait_for(lambda: "busy" not in running.begin_archive(), "the store to notice")
        assert len(archived(running.home / "archive")) == 3960
        assert running.stored() == 3960


class TestRefused:
    def test_no_store_and_nobody_who_answers(self, host):
        refused = host.cli("verify", code=2).stderr
        assert f"there is no store at {host.db}, and nothing answers at 127.0.0.1:" in refused

    def test_a_file_that_somebody_else_has_open(self, stopped):
        with duckdb.connect(str(stopped.db)):
            refused = stopped.cli("verify", code=2).stderr
        assert "is open in another process" in refused
        assert "PID" in refused

    def test_a_wrong_token(self, running):
        refused = running.cli("verify", "--token", "wrong", code=2).stderr
        assert "token" in refused.splitlines()[0]
        assert running.cli("verify").returncode == 0

    def test_only_the_admin_token_may(self, host):
        host.env["STREAMAPP_FLIGHT_ADMIN_TOKEN"] = "adm1n"
        host.start("store")
        host.wait_stored(3960)
        assert host.cli("retain", "--keep-rows", "0").returncode == 0
        host.env["STREAMAPP_FLIGHT_ADMIN_TOKEN"] = ""
        assert "admin" in host.cli("verify", code=2).stderr

    def test_the_store_of_another_project_is_not_touched(self, running, tmp_path):
        other = tmp_path / "other.duckdb"
        running.cli("backup", other)
        with duckdb.connect(str(other)):
            refused = running.cli("retain", "--keep-rows", "0", "--db-path", other, code=2).stderr
        assert "the store that answers has" in refused
        assert running.stored() == 3960

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("retain",), "give one of --days, --before and --keep-rows"),
            (("retain", "--days", "1", "--keep-rows", "5"), "give one of"),
            (("retain", "--days", "-1"), "-1 is not in the range"),
            (("retain", "--before", "yesterday"), "'yesterday' is no date"),
            (("archive", "a", "--before", "soon"), "'soon' is no date"),
            (("archive", "a", "--before", "0001-01-01T00:00:00+05:00"), "is no date"),
            (("retain", "--before", "9999-12-31T23:59:59-01:00"), "is no date"),
            (("backup",), "Missing argument 'TARGET'"),
            (("backup", ""), "the path is empty"),
            (("archive", ""), "the path is empty"),
            (("archive", " "), "the path is empty"),
            (("retain", "--days", "1", "--archive", ""), "the path is empty"),
            (("--db-path", "x.duckdb", "verify"), "write the options behind the verb"),
            (("verfy",), "Did you mean 'verify'?"),
            (("rebuild", "--db-path", ":memory:"), "the store is in memory"),
        ],
    )
    def test_bad_words(self, run, clean, arguments, said):
        Store.open(str(clean / "s.duckdb"), columns={}).close()
        result = run("store", *arguments) if "--db-path" in arguments else run(
            "store", *arguments, "--db-path", "s.duckdb"
        )  # fmt: skip
        assert (result.code, said in result.err) == (2, True), result.err
        assert result.err.startswith("error: ")

    @pytest.mark.parametrize("verb", ["backup", "archive"])
    def test_only_the_store_decides_what_it_may_write(self, run, clean, monkeypatch, verb):
        """The user who asks may not read what the store's user writes."""
        import os

        Store.open(str(clean / "s.duckdb"), columns={}).close()
        target = clean / "there"
        target.touch() if verb == "backup" else target.mkdir()
        with monkeypatch.context() as patched:
            patched.setattr(os, "access", lambda *_, **__: False)
            result = run("store", verb, "there", "--db-path", "s.duckdb")
        assert "not readable" not in result.err
        assert (result.code, "exists" in result.err) == (
            (2, True) if verb == "backup" else (0, False)
        )

    def test_json_says_the_same(self, host):
        refused = json.loads(host.cli("verify", "--json", code=2).stdout)
        assert refused["error"]["code"] == "store.missing"


def test_progress_is_shown_on_a_terminal_only(stopped):
    """A pseudo-terminal for stderr: the bar is there; the result is on stdout alone."""
    import os
    import pty

    leader, follower = pty.openpty()
    done = subprocess.run(
        stopped.command("verify"), env=stopped.env | {"TERM": "xterm"}, cwd=stopped.home,
        stdout=subprocess.PIPE, stderr=follower, check=True,
    )  # fmt: skip
    os.close(follower)
    shown = os.read(leader, 1 << 20).decode()
    os.close(leader)
    assert "━━━" in shown  # each step's name stands there for as long as it takes
    assert done.stdout.startswith(b"rows 3,960")
