"""One process started alone: it says in two lines what it lacks, and makes nothing behind anybody's back."""

import asyncio
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from streamapp.topics.catalogue import RAW, defaults
from streamapp.transport import TopicSpec, open_admin


async def make_topic(url, name, partitions):
    admin = open_admin(url)
    await admin.start()
    try:
        await admin.create(TopicSpec(name, partitions, 1 << 20))
    finally:
        await admin.stop()


AGENTS = ("worker", "store", "terminal")


@pytest.fixture
def alone(machines):
    machine = machines()
    machine.home.mkdir(parents=True)

    def run(name, wait_s=60, **settings):
        env = {**machine.env, **{f"STREAMAPP_{k.upper()}": str(v) for k, v in settings.items()}}
        done = subprocess.run(
            [sys.executable, "-m", "streamapp.cli", *name.split()],
            env=env, cwd=machine.home, capture_output=True, text=True, timeout=wait_s, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr
        return done.returncode, done.stderr

    run.machine = machine
    return run


@pytest.mark.parametrize("name", AGENTS)
def test_missing_topics_are_named_and_not_made(alone, name):
    code, said = alone(name)
    assert code == 2
    assert said.splitlines()[0].endswith("has no topic events.raw, events.enriched, events.dead")
    assert "streamapp topics apply" in said.splitlines()[1]
    assert not list(alone.machine.home.rglob("events.*.db"))


def test_partition_counts_that_do_not_fit_are_refused(alone, tmp_path):
    folder = shutil.copytree(defaults("topics"), tmp_path / "topics")
    enriched = folder / "events.enriched.toml"
    enriched.write_text(enriched.read_text().replace("partitions = 4", "partitions = 2"))
    raw = folder / "events.raw.toml"
    raw.write_text(raw.read_text().replace("partitions = 4", "partitions = 2"))
    assert alone("topics apply", topics_dir=folder)[0] == 0
    for file in (alone.machine.home / "log").glob(f"{RAW}.db*"):
        file.unlink()
    asyncio.run(make_topic(f"local://{alone.machine.home}/log", RAW, 3))
    code, said = alone("store")
    assert code == 2
    assert "events.raw has 3 partitions and events.enriched has 2" in said


@pytest.mark.parametrize(
    ("name", "held"), [("store", "store.duckdb"), ("terminal", "writes the ring")]
)
def test_a_second_process_of_one_view_is_refused_and_the_first_keeps_all(alone, name, held):
    assert alone("topics apply")[0] == 0
    machine = alone.machine
    first = subprocess.Popen(
        [sys.executable, "-m", "streamapp.cli", name], env=machine.env, cwd=machine.home
    )
    try:
        machine.wait_for(lambda: machine.ready(name), "the first to be ready")
        code, said = alone(name, **{f"{name}_port": 0})
        assert code == 2
        assert held in said.splitlines()[0]
        assert said.splitlines()[1].startswith("fix: ")
        assert machine.ready(name)
        with closing(sqlite3.connect(machine.home / "log" / "groups" / "groups.db")) as groups:
            assert groups.execute("SELECT generation FROM groups").fetchall() == [(1,)]
    finally:
        first.terminate()
        assert first.wait(30) == 0


def test_a_web_port_in_use_is_named(alone):
    assert alone("topics apply")[0] == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = alone("terminal", terminal_port=port)
    assert code == 2
    assert f"web port {port} on 127.0.0.1 is in use" in said


def test_a_topic_made_anew_halts_with_its_own_exit_code(alone):
    assert alone("topics apply")[0] == 0
    machine = alone.machine
    from streamapp.sink import Store

    with Store.open(str(machine.home / "store.duckdb"), columns={}) as store, store.reader() as db:
        db.execute("insert into position values ('events.enriched', 0, 7, now())")
    code, said = alone("store", store_port=0)
    assert code in {2, 70}  # refused by the store's own look at the log, or halted by the transport
    assert "events.enriched" in said
    assert "fix: " in said


@pytest.mark.parametrize("words", ["agents", "tables"])
def test_fausts_own_commands_lock_and_load_nothing(alone, words):
    machine = alone.machine
    done = subprocess.run(
        [sys.executable, "-m", "faust", "-A", "streamapp.worker", words],
        env={**os.environ, **machine.env}, cwd=machine.home, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(machine.home.iterdir()) == []
