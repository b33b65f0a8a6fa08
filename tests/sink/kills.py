"""Does a piece of the store's upkeep again and again, and is killed before each of its file operations in turn.

Usage: kills.py WHAT FOLDER TIMES.  WHAT is backup, archive, retain or rebuild, or retain-parquet;
FOLDER has the stores ``s.duckdb`` and ``root``.  TIMES other than 0: at so many random lines of the sink instead.  Every attempt and
every look at what it left is a process of its own; the last attempt is left alone.  Prints how
often it killed.
"""

import asyncio
import functools
import os
import random
import re
import shutil
import signal
import sys
import threading
import traceback
from collections import Counter
from pathlib import Path

import kept
from store_host import plain

from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Slice
from streamapp.sink import parquet, upkeep
from streamapp.sink.parquet.read import checked
from streamapp.sink.rebuild import Source, old_file, rebuild

#: Operations that may change what is on the disk.
_EVENTS = {"open", "os.rename", "os.remove", "os.link", "os.mkdir"}
_BEFORE = "1970-01-02"
#: Within the second day, and within a file.
_WITHIN = "1970-01-02T05:00"
#: What differs from attempt to attempt in the names of the Parquet store's files.
_CHANGING = re.compile(r"[0-9a-f]{16}$|(?<=-)\d{12}|\d{12}(?=.json)")


class Log:
    """An enriched topic of one partition, read from a list of records."""

    def __init__(self, records):
        self.records = records

    async def bounds(self, _topic, _partition):
        return 0, len(self.records)

    async def read(self, topic, partition, offset, **_limits):
        found = self.records[offset : offset + 3]
        return Slice(OffsetRange(topic, partition, offset, offset + len(found)), found)


def source(folder):
    """What a rebuild reads: the records that the test has put beside the store."""
    import pickle

    records, columns = pickle.loads((folder / "records").read_bytes())
    return Source(
        reader=Log(records), topic="events.enriched", partitions=1, columns=columns,
        window=kept.NO_WINDOW,
    )  # fmt: skip


def work(what, folder):
    path = folder / "s.duckdb"
    if what == "rebuild":

        async def run():
            async for _ in rebuild(path, source(folder)):
                pass

        asyncio.run(run())
        return
    if what == "retain-parquet":
        with upkeep.of_root(str(folder / "root"), kept.NO_WINDOW) as action:
            list(action({"before": _WITHIN}))
        return
    arguments = {
        "backup": {"target": str(folder / "copy"), "replace": True},
        "archive": {"folder": str(folder / "archive")},
        "retain": {"before": _BEFORE, "archive": str(folder / "archive")},
    }
    with upkeep.of_file(str(path), kept.NO_WINDOW, what) as action:
        for _ in action(arguments[what]):
            pass


def look(what, folder):
    """What holds whenever it is killed."""
    if what == "retain-parquet":
        look_at_root(str(folder / "root"))
        return
    path = folder / "s.duckdb"
    assert kept.is_sound(path, deep=False)
    here = set(plain(path, "SELECT source_topic, source_partition, source_offset FROM events"))
    away = kept.archived(folder / "archive") if any((folder / "archive").rglob("*.parquet")) else []
    assert len(away) == len(set(away))
    if what == "retain":
        everything = {("events.raw", 0, offset) for offset in range(60)}
        assert here | set(away) == everything
    else:
        assert len(here) == 60
    if what == "backup" and (folder / "copy").exists():
        assert plain(folder / "copy", kept.EVERYTHING) == plain(path, kept.EVERYTHING)
    if old_file(path).exists():
        assert kept.is_sound(old_file(path), deep=False)


def look_at_root(url):
    """Everything of a Parquet store is as before, or as behind; readers find every file."""
    *_, report = checked(url, kept.NO_WINDOW)
    assert report["ok"], report
    counts = report["rows"], report["dead"], report["retained"]
    assert counts in {(58, 2, 0), (30, 0, 28)}
    offsets = sorted(parquet.dataset(url).to_table()["source_offset"].to_pylist())
    assert offsets == [o for o in range(0 if counts[2] == 0 else 29, 60) if o not in {7, 41}]
    answered = sorted(parquet.dataset(url, "answers").to_table()["source_offset"].to_pylist())
    assert answered == ([3, 50] if counts[2] == 0 else [50])


def changes(event, arguments):
    """Whether an audited operation changes what is on the disk."""
    reads = event == "open" and arguments[2] & os.O_ACCMODE == os.O_RDONLY
    return event in _EVENTS and not reads


def kill_before_a_new_one(folder, killed):
    """End this process before the first file operation under ``folder`` that no one was yet."""
    known = set(killed.read_text().splitlines()) if killed.exists() else set()
    seen = Counter()

    def hook(event, arguments):
        if changes(event, arguments) and str(arguments[0]).startswith(str(folder)):
            operation = f"{event} {_CHANGING.sub('*', str(arguments[0]))}"
            if operation.endswith("*"):  # one of many drafts
                seen[operation] += 1
                operation += f" {seen[operation]}"
            if operation not in known:
                known.add(operation)
                with killed.open("a") as file:
                    file.write(f"{operation}\n")
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def count_lines(at, then):
    """Call ``then`` when so many lines of the sink have run, in whichever thread."""
    left = at

    def line(_frame, event, _argument):
        nonlocal left
        if event == "line":
            left -= 1
            if left == 0:
                then()
        return line

    def call(frame, _event, _argument):
        return line if "/streamapp/sink/" in frame.f_code.co_filename else None

    threading.settrace(call)
    sys.settrace(call)
    return lambda: at - left


def kill_at_line(number):
    count_lines(number, lambda: os.kill(os.getpid(), signal.SIGKILL))


def lines_of(what, folder):
    """How many lines of the sink the whole work runs; tried on a copy."""
    copy = folder.with_name(f"{folder.name}-tried")
    shutil.copytree(folder, copy)

    def count():
        counted = count_lines(0, list)
        work(what, copy)
        sys.settrace(None)
        (copy / "lines").write_text(str(counted()))

    assert in_child(count) == 0
    lines = int((copy / "lines").read_text())
    shutil.rmtree(copy)
    return lines


def in_child(*calls):
    """The exit code of a child that makes these calls; nothing of DuckDB runs in the parent."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for call in calls:
                call()
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def attempt(what, folder, kill):
    """One attempt and a look at what it left; was it killed?"""
    ended = in_child(kill, lambda: work(what, folder))
    assert ended in {0, -signal.SIGKILL}, ended
    assert in_child(lambda: look(what, folder)) == 0
    return ended != 0


def before_each_operation(what, folder):
    killed = folder.with_name(f"{folder.name}-killed")
    kills = 0
    while attempt(what, folder, functools.partial(kill_before_a_new_one, folder, killed)):
        kills += 1
    return kills


def at_lines(what, folder, times, seed=20261122):
    """Each time from the beginning, and to the end after the kill."""
    rng, lines = random.Random(seed), lines_of(what, folder)
    untouched = folder.with_name(f"{folder.name}-untouched")
    shutil.copytree(folder, untouched)
    kills = 0
    for _ in range(times):
        shutil.rmtree(folder)
        shutil.copytree(untouched, folder)
        kills += attempt(what, folder, functools.partial(kill_at_line, rng.randint(1, lines)))
        assert not attempt(what, folder, list)
    return kills


def main():
    what, folder, times = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    kills = at_lines(what, folder, times) if times else before_each_operation(what, folder)
    sys.stdout.write(f"{kills}\n")


if __name__ == "__main__":
    main()
