"""Sizes, admission, retries, cuts of parts, secrets: what the engine is made of."""

import asyncio
import os
import random
import resource
import sys

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.plugin.registered import operation_class
from streamapp.workflow.data import BadRow
from streamapp.workflow.graph.spec import Resources, RetryPolicy
from streamapp.workflow.run import keys
from streamapp.workflow.run.budget import Budget
from streamapp.workflow.run.cache import Cache, Entry
from streamapp.workflow.run.jobs import Jobs
from streamapp.workflow.run.keys import Key, why_again
from streamapp.workflow.run.messages import Part, Setup
from streamapp.workflow.run.parts import part_path, read_parts, write_table
from streamapp.workflow.run.record import Record, find_record, keep_record
from streamapp.workflow.run.retry import delay_s, is_tried_again
from streamapp.workflow.run.secrets import Redactor
from streamapp.workflow.run.sizing import Limits, Measured, remember, size
from streamapp.workflow.run.watch import usage

LIMITS = Limits(4.0, 8 << 30)
NONE = Resources()


@given(
    rows=st.integers(0, 10**7),
    row_bytes=st.integers(1, 10**5),
    cpu=st.floats(0.5, 64),
    asked=st.builds(
        Resources,
        cpu=st.none() | st.floats(0.5, 64),
        workers=st.none() | st.integers(1, 64),
        chunk_rows=st.none() | st.integers(10**4, 10**6),
        memory_mb=st.none() | st.integers(1, 10**5),
    ),
    parallel=st.sampled_from(["processes", "threads", "none"]),
    measured=st.none() | st.builds(
        Measured, st.floats(1e-7, 10), st.floats(0.1, 8), st.integers(1 << 20, 1 << 34)
    ),
)  # fmt: skip
def test_any_size_covers_all_rows_within_the_limits(
    rows, row_bytes, cpu, asked, parallel, measured
):
    limits = Limits(cpu, 8 << 30)
    given_ = size("row", parallel, asked, limits, rows, rows * row_bytes, measured)
    if rows:
        ends = [0, *(end for _, end in given_.cuts)]
        assert [first for first, _ in given_.cuts] == ends[:-1]
        assert ends[-1] == rows
        assert len(given_.cuts) <= max(512, -(-rows // 10**4))
    else:
        assert given_.cuts == (None,)
    assert 1 <= given_.workers <= max(len(given_.cuts), 1)
    assert given_.threads >= 1
    assert given_.cpu <= max(cpu, 1)
    assert given_.memory_bytes <= given_.memory_bytes_max <= 8 << 30


def test_workers_and_cuts_follow_the_input():
    small = size("row", "processes", NONE, LIMITS, 10, 1_000, None)
    assert (small.workers, small.cuts) == (1, ((0, 10),))
    large = size("row", "processes", NONE, LIMITS, 100_000, 100 << 20, None)
    assert large.workers == 4
    assert len(large.cuts) > 50
    quick = size("row", "processes", NONE, LIMITS, 100_000, 100 << 20, Measured(1e-6, 1, 1 << 28))
    assert quick.workers == 1  # another process would take longer to start than it saves
    heavy = size("row", "processes", NONE, LIMITS, 100_000, 100 << 20, Measured(1, 1, 3 << 30))
    assert heavy.workers == 2  # of three gigabytes each, where there are eight
    whole = size("table", "none", NONE, LIMITS, 100_000, 100 << 20, None)
    assert (whole.workers, whole.cuts, whole.threads) == (1, (None,), 4)


def test_what_a_stage_took_is_remembered(tmp_path):
    cache = Cache(tmp_path)
    remember(cache, "a", rows=100, seconds=2, cpu_s=4, workers=2, processes=2, bytes_=1000)
    assert cache.load("measured", "a", Measured) == Measured(0.04, 1.0, 500)
    remember(cache, "a", rows=100, seconds=1, cpu_s=1, workers=2, processes=2, bytes_=400)
    mixed = cache.load("measured", "a", Measured)
    assert mixed == Measured(pytest.approx(0.03), 0.75, 350, 2)
    remember(cache, "a", rows=0, seconds=1, cpu_s=1, workers=1, processes=1, bytes_=1)
    assert cache.load("measured", "a", Measured) == mixed


async def test_who_stops_waiting_while_others_leave_holds_nothing():
    budget = Budget(Limits(1, 100))
    gate = asyncio.Event()

    async def work(event):
        async with budget.admitted(1, 10):
            await event.wait()

    first, second = asyncio.create_task(work(gate)), asyncio.create_task(work(gate))
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()  # both at once: the first leaves before the second knows of it
    done, _ = await asyncio.wait([first, second])
    assert all(task.cancelled() for task in done)
    async with asyncio.timeout(5), budget.admitted(1, 100):
        pass


async def test_who_holds_most_gives_way_and_waits_for_what_is_held():
    budget = Budget(Limits(4, 100))
    async with budget.admitted(1, 10, "small"), budget.admitted(1, 10, "large"):
        assert not budget.is_crowded("large", 60)
        assert not budget.is_crowded("small", 50)
        assert budget.is_crowded("large", 60)
    async with budget.admitted(1, 10, "small"):
        assert not budget.is_crowded("small", 101)  # alone it is for another limit
        budget.is_crowded("small", 50)
        entered = asyncio.Event()

        async def large():
            async with budget.admitted(1, 60, "large"):
                entered.set()

        again = asyncio.create_task(large())
        await asyncio.sleep(0)
        assert not entered.is_set()
    async with asyncio.timeout(5):
        await again


async def test_who_waits_longest_is_let_in_first():
    budget = Budget(Limits(2, 100))
    order, inside = [], set()
    gate = asyncio.Event()

    async def work(name, cpu, memory):
        async with budget.admitted(cpu, memory):
            inside.add(name)
            order.append(name)
            await gate.wait()
            inside.remove(name)

    tasks = [asyncio.create_task(work("a", 1, 10)), asyncio.create_task(work("big", 9, 999)),
             asyncio.create_task(work("b", 1, 10)), asyncio.create_task(work("gone", 1, 10))]  # fmt: skip
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert inside == {"a"}  # "big" wants all, and "b" does not overtake it
    tasks[3].cancel()
    gate.set()
    await asyncio.wait(tasks)
    assert order == ["a", "big", "b"]
    async with asyncio.timeout(5), budget.admitted(2, 100):
        pass  # all was given back


@pytest.mark.parametrize(
    ("policy", "error", "attempt", "again"),
    [
        (None, Retry("a.b", ""), 1, False),
        (RetryPolicy(max=2), Retry("a.b", ""), 2, True),
        (RetryPolicy(max=2), Retry("a.b", ""), 3, False),
        (RetryPolicy(), Refuse("a.b", ""), 1, False),
        (RetryPolicy(on=("a.b",)), Refuse("a.b", ""), 1, True),
        (RetryPolicy(on=("a",)), Halt("a.b", ""), 1, True),
        (RetryPolicy(on=("a",)), Retry("ab.c", ""), 1, False),
        (RetryPolicy(on=("timeout",)), Retry("workflow.timeout", ""), 1, True),
        (RetryPolicy(on=("timeout",)), Retry("a.b", ""), 1, False),
    ],
)
def test_what_is_tried_again(policy, error, attempt, again):
    assert is_tried_again(policy, error, attempt) is again


@given(attempt=st.integers(1, 50), seed=st.integers())
def test_waits_grow_to_their_limit_and_differ_a_little(attempt, seed):
    policy = RetryPolicy(delay_s=1, backoff=2, delay_s_max=30, jitter=0.25)
    plain = min(2 ** (attempt - 1), 30)
    wait = delay_s(policy, attempt, random.Random(seed))
    assert 0.75 * plain <= wait <= 1.25 * plain


@settings(max_examples=25)
@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=5), data=st.data())
def test_a_cut_of_parts_is_that_of_the_whole(tmp_path_factory, counts, data):
    cache = tmp_path_factory.mktemp("cache")
    numbers = iter(range(100))
    tables = [pa.table({"n": [next(numbers) for _ in range(c)]}, schema=N) for c in counts]
    parts = [write_table(cache, table) for table in tables]
    whole = pa.concat_tables(tables)
    first = data.draw(st.integers(0, whole.num_rows))
    end = data.draw(st.integers(first, whole.num_rows))
    assert read_parts(cache, parts).equals(whole)
    assert read_parts(cache, parts, (first, end)).to_pylist() == whole.to_pylist()[first:end]


N = pa.schema([("n", pa.int64())])


def test_parts_are_named_by_content_and_whole(tmp_path):
    one = write_table(tmp_path, pa.table({"n": [1, 2]}))
    assert write_table(tmp_path, pa.table({"n": [1, 2]})) == one
    assert write_table(tmp_path, pa.table({"n": [1, 3]})).digest != one.digest
    assert not list((tmp_path / "data").glob("*.new"))
    with pytest.raises(Halt, match="No such file"):
        read_parts(tmp_path, [Part("0" * 40, 1, 1)])


def test_rows_that_cannot_be_read_are_one_part_whatever_their_reasons(tmp_path):
    setup = Setup((), str(tmp_path), str(tmp_path), {}, "", 1, 1 << 30)
    bad = [BadRow("rows.csv", n, f"no number: {n}", "x") for n in range(100)]
    (aside,) = Jobs(setup, lambda *_: None)._bad_rows(bad)
    assert read_parts(tmp_path, [aside.part])["reason"].to_pylist() == [row.reason for row in bad]


def test_a_full_disk_is_said_with_the_cache(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(Refuse, match=f"^{tmp_path}: File too large") as caught:
            write_table(tmp_path, pa.table({"n": range(100_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.code == "workflow.disk"
    assert not list((tmp_path / "data").iterdir())


def test_a_cache_keeps_what_was_used_last(tmp_path):
    cache = Cache(tmp_path)
    parts = [write_table(cache.folder, pa.table({"n": [n]})) for n in range(3)]
    for age, part in enumerate(parts):
        cache.keep(f"key{age}", Entry((part,)))
        os.utime(part_path(cache.folder, part.digest), (age, age))
    assert cache.find("key0") is not None  # looked at, so it is the newest
    assert cache.prune(2 * parts[0].bytes) == parts[1].bytes
    assert [cache.find(f"key{n}") is None for n in range(3)] == [False, True, False]


def test_a_cache_forgets_old_entries_and_what_killed_runs_left(tmp_path, monkeypatch):
    monkeypatch.setattr("streamapp.workflow.run.cache.ENTRIES_MAX", 2)
    cache = Cache(tmp_path)
    for age in range(3):
        cache.keep(f"key{age}", Entry(()))
        os.utime(cache.folder / "done" / f"key{age}.json", (age, age))
    assert cache.find("key0") is not None  # looked at, so it is the newest
    old, new = cache.folder / "data" / "old.new", cache.folder / "done" / "new.new"
    old.touch()
    new.touch()
    os.utime(old, (1, 1))
    cache.prune()
    assert [cache.find(f"key{n}") is None for n in range(3)] == [False, True, False]
    assert (old.exists(), new.exists()) == (False, True)


def test_another_version_of_what_rows_are_computed_with_is_other_code(monkeypatch, tmp_path):
    kind = operation_class("pipeline.filter")

    def code():
        keys._installed_code.cache_clear()
        keys._releases.cache_clear()
        return keys.code_of(kind)

    now = code()
    assert code() == now
    real = keys.version
    for name in ("polars", "pyarrow", "streamapp"):
        monkeypatch.setattr(keys, "version", lambda n, name=name: "0" if n == name else real(n))
        assert code() != now
    monkeypatch.undo()
    assert code() == now


def test_of_another_package_all_files_are_its_code(monkeypatch, tmp_path):
    inner = tmp_path / "theirs" / "inner"
    inner.mkdir(parents=True)
    (inner / "work.py").write_text("class Work: ...\n")
    (tmp_path / "theirs" / "util.py").write_text("A = 1\n")
    for folder in (inner, inner.parent):
        (folder / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    from theirs.inner.work import Work

    before = keys.code_of(Work)
    keys._installed_code.cache_clear()
    (tmp_path / "theirs" / "util.py").write_text("A = 2\n")
    assert keys.code_of(Work) != before


def test_what_changed_is_said():
    old = Key("a.b@1", "c", {"x": 1, "y": 2}, {"rows": "1"})
    assert why_again(None, old) == "it has not run before"
    changes = {
        "a.b@2 took the place of a.b@1": Key("a.b@2", "c", {}, {}),
        "its code changed": Key("a.b@1", "d", {}, {}),
        "config changed: y": Key("a.b@1", "c", {"x": 1, "y": 3}, {"rows": "1"}),
        "rows changed": Key("a.b@1", "c", {"x": 1, "y": 2}, {"rows": "2"}),
        "more is new": Key("a.b@1", "c", {"x": 1, "y": 2}, {"rows": "1"}, {"more": "1"}),
    }
    for why, new in changes.items():
        assert why_again(old, new) == why
        assert new.digest != old.digest
    other = Key("a.b@1", "c", {}, {"p": "1", "q": "2"})
    assert other.digest != Key("a.b@1", "c", {}, {"q": "2", "p": "1"}).digest


def test_the_run_that_is_resumed_is_the_newest_that_did_not_end_well(tmp_path):
    cache = Cache(tmp_path)
    with pytest.raises(Refuse, match="no run is waiting"):
        find_record(cache)

    def record(run, path, state):
        keep_record(
            cache,
            Record(run=run, workflow="w", path=path, params={}, folder_out="o", started_us=1,
                   state=state),
        )  # fmt: skip

    record("1", "/a", "running")
    record("2", "/b", "failed")
    record("3", "/a", "done")
    assert find_record(cache).run == "2"
    assert find_record(cache, run="1").run == "1"
    with pytest.raises(Refuse, match="no run of /a"):
        find_record(cache, path=tmp_path / "/a")
    (cache.folder / "runs" / "9.json").write_text("{")
    assert find_record(cache).run == "2"


def test_a_redactor_knows_what_was_read():
    redactor = Redactor()
    read = redactor.reading({"env:A": "abc", "env:B": "abcdef"}.__getitem__)
    assert read("env:A") + read("env:B") == "abcabcdef"
    assert redactor.text("it is abcdef, or abc") == "it is ***, or ***"
    error = redactor.error(Refuse("c", "no abc", "abc"))
    assert (type(error), error.code, error.message, error.fix) == (Refuse, "c", "no ***", "***")


def test_usage_is_that_of_this_process():
    held = bytearray(os.urandom(1)) * (64 << 20)
    assert usage(os.getpid()).memory_bytes > len(held)
    assert usage(os.getpid()).cpu_s > 0
    assert usage(2**22 + 1) == (0, 0)
