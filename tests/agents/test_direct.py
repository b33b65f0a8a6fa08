"""Direct mode on a log in memory: the worker's frames are a mirror's, whatever dies or goes wrong."""

import asyncio
import random

import numpy as np
import pytest
from direct_host import Delivery, Host, Whole
from enrich_worker import WAIT_S
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.agents import backfill, outcome
from streamapp.agents import direct as direct_module
from streamapp.agents.feed import Feed
from streamapp.core.errors import Refuse, Retry
from streamapp.plugin import vector_column
from streamapp.plugin.testing import HashModels, batch_of
from streamapp.ring import RingWriter
from streamapp.topics.catalogue import ENRICHED, RAW

TEXTS = ["one two", None, "three", "", "one", "two three four", "  ", "five"]


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path / "direct.ring")


@pytest.fixture
def said(ended, monkeypatch):
    """What would have ended the process; tries follow at once."""
    monkeypatch.setattr(outcome, "WAIT_S_FIRST", 0.0)
    return ended


async def enrich(host, log, sizes=(3,), **options):
    """Run a worker over what its position says is left, in batches of these sizes in turn."""
    async with host.worker(log, **options) as worker:
        at, end, turn = worker.positions[RAW, 0], len(log.records[RAW]), 0
        while at < end:
            next_ = min(at + sizes[turn % len(sizes)], end)
            await worker.finished(Delivery(log, at, next_, worker.generation))
            at, turn = next_, turn + 1
        return worker


async def test_frames_are_those_of_a_mirror(host, tmp_path):
    log = Whole([*TEXTS, "early", "six", "late", "seven", "eight", "late"])
    await enrich(host, log, sizes=(5, 1, 4))
    ours = host.frames()
    mirrored = Host(tmp_path / "mirror.ring")
    await mirrored.mirror(log)
    theirs = mirrored.frames()
    assert len(ours) == 11
    for name in ours.records.dtype.names:
        if name not in {"stamp", "frame_id", "epoch"}:
            np.testing.assert_array_equal(ours.records[name], theirs.records[name], name)
    np.testing.assert_array_equal(ours.semantic, theirs.semantic)
    np.testing.assert_array_equal(ours.columns["twice"], theirs.columns["twice"])
    assert (
        ours.semantic.any(axis=1).tolist() == [bool((t or "").strip()) for t in TEXTS] + [True] * 3
    )
    assert ours.lost == 0


async def test_a_batch_that_nothing_was_taken_from_is_not_copied(host, monkeypatch):
    copied = []
    monkeypatch.setattr(direct_module, "copy_vectors", lambda _rows, name, *_: copied.append(name))
    log = Whole(TEXTS)
    await enrich(host, log, sizes=(4,))
    assert copied == ["twice", "twice"]  # what the ring is given no memory for
    assert host.offsets() == list(range(8))
    assert (np.linalg.norm(host.frames().semantic, axis=1) > 0).sum() == 5


def test_only_rows_in_their_place_lie_in_reserved_memory():
    memory = np.arange(12, dtype=np.float32).reshape(3, 4)
    rows = batch_of(text=["a"] * 3).with_columns({"embedding": vector_column(memory)}).rows
    assert direct_module.lies_in(rows, memory)
    assert direct_module.lies_in(rows.slice(0, 2), memory[:2])
    assert not direct_module.lies_in(rows.slice(1), memory[:2])
    assert not direct_module.lies_in(rows, memory.copy())
    assert not direct_module.lies_in(rows.slice(0, 0), memory[:0])


async def test_a_stage_that_knows_nothing_of_it_makes_the_same_frames(tmp_path):
    host = Host(tmp_path / "direct.ring", stages=("stubborn",))
    await enrich(host, Whole(["a"] * 6), sizes=(3,))
    expected = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(host.frames().semantic, np.concatenate([expected, expected]))
    assert host.frames().void == 0


async def test_a_batch_too_large_for_a_reservation_is_copied_in_parts(tmp_path):
    host = Host(tmp_path / "small.ring", capacity=8)
    await enrich(host, Whole(["a"] * 6 + ["b"] * 6), sizes=(6,))
    assert host.offsets() == list(range(4, 12))
    assert host.position()[0] == 12


@pytest.mark.parametrize(
    ("texts", "voids"),
    [
        (["a", "early", "b"], 0),  # reserved is what was left
        (["a", "late", "b"], 1),
        (["late", "b"], 1),  # one row is left, at another place of the same memory
        (["late", "late"], 2),
        (["a", "b", "late"], 1),
    ],
)
async def test_rejected_rows_are_no_frames(host, texts, voids):
    log = Whole(texts)
    worker = await enrich(host, log, sizes=(3,))
    assert host.offsets() == [at for at, text in enumerate(texts) if len(text) == 1]
    frames = host.frames()
    assert frames.void == voids
    for row, offset in zip(frames.semantic, host.offsets(), strict=True):
        vector = HashModels(8).embedder().embed([texts[offset]])[0][0]
        np.testing.assert_array_equal(row, vector)
    assert host.position()[0] == len(texts)
    assert worker.value("streamapp_ring_frames_total") == len(frames)


async def test_retries_leave_void_rows_once_and_then_frames(host, said, monkeypatch):
    tries, reserved = iter([1, 2, 3]), []
    reserve = RingWriter.reserve
    monkeypatch.setattr(RingWriter, "reserve", lambda *a: reserved.append(a[1]) or reserve(*a))

    def fail_often(_batch):
        if next(tries, None):
            raise Retry("late.busy", "try again")

    host.late.before = fail_often
    await enrich(host, Whole(["a", "b", "c"]), sizes=(2,))
    assert host.offsets() == [0, 1, 2]
    assert host.frames().void == 2
    assert reserved == [2, 2, 1]  # the first try, the copy after the last one, and as before
    assert not said


async def die(worker):
    """Nothing is finished, as after kill -9: the kernel frees the lock, and that is all."""
    await asyncio.sleep(0)  # its tasks have begun
    worker.body.cancel()
    tasks = [worker.body, worker.agent._direct._beating]
    for one in worker.agent._partitions.values():
        one.drop()
        tasks += one._tasks
    worker.agent._direct._beating.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for executor in (worker.agent._decoding, worker.agent._inference):
        executor.shutdown()
    worker.agent._direct.frames.feed.ring.close()


async def live(host, log, generation, size):
    """Deliver all that is left until it is done or the worker dead."""
    worker = host.worker(log, generation)
    await worker.agent.open()
    at = (await worker.agent.start_positions([(RAW, 0)]))[RAW, 0]
    worker.body = asyncio.create_task(worker.agent.run(worker.stream))
    log.killed.clear()
    event = None
    while at < len(log.records[RAW]):
        next_ = min(at + size, len(log.records[RAW]))
        event = Delivery(log, at, next_, generation)
        worker.stream.queue.put_nowait(event)
        at = next_
    ends = [asyncio.ensure_future(log.killed.wait())]
    ends += [asyncio.ensure_future(event.acked.wait())] if event else []
    async with asyncio.timeout(WAIT_S):
        if event is not None:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
    await die(worker)
    return event is None or event.acked.is_set()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    texts=st.lists(st.sampled_from(["a", "b c", "early", "late", None]), min_size=1, max_size=30),
    fates=st.lists(st.sampled_from(["", "killed before", "killed after"]), max_size=8),
    seed=st.integers(0, 99),
)
async def test_killed_at_any_moment_every_event_is_a_frame_once(
    tmp_path_factory, texts, fates, seed
):
    host = Host(tmp_path_factory.mktemp("killed") / "direct.ring")
    log, chance, generation = Whole(texts), random.Random(seed), 1
    log.fates = iter(fates)
    while not await live(host, log, generation, chance.randint(1, 5)):
        generation += 1
    assert host.offsets() == [at for at, text in enumerate(texts) if text not in {"early", "late"}]
    assert host.frames().lost == 0
    assert host.position()[0] == len(texts)


async def test_a_mirror_and_a_worker_take_turns_without_a_gap_or_a_repeat(host, tmp_path):
    log, elsewhere = Whole(["a"] * 5), Host(tmp_path / "elsewhere.ring")
    await enrich(elsewhere, log, sizes=(2,))
    await host.mirror(log)
    log.add(["b"] * 5)
    await enrich(elsewhere, log, sizes=(3,))  # no mirror had these
    log.add(["c"] * 5)
    await enrich(host, log, sizes=(2,))
    assert host.offsets() == list(range(15))
    log.add(["d"] * 5)
    await enrich(elsewhere, log, sizes=(2,))
    await host.mirror(log)
    assert host.offsets() == list(range(20))
    await enrich(host, log)
    assert host.offsets() == list(range(20))
    assert host.position() == (20, len(log.records[ENRICHED]))


async def test_a_ring_that_is_new_begins_with_the_newest_of_the_log(tmp_path):
    log, elsewhere = Whole(["a"] * 20), Host(tmp_path / "elsewhere.ring")
    await enrich(elsewhere, log, sizes=(3,))
    log.add(["b"] * 3)
    host = Host(tmp_path / "new.ring", capacity=16)
    await enrich(host, log, sizes=(2,))
    assert host.offsets() == list(range(7, 23))


async def test_what_is_revoked_in_the_models_is_no_frame_until_its_owner_makes_it(host):
    log = Whole(["a"] * 4)
    async with host.worker(log) as worker:
        seen = []

        def revoke(_batch):
            seen.append(worker.generation)
            worker.generation = 2

        host.late.before = revoke
        old = Delivery(log, 0, 2)
        worker.stream.queue.put_nowait(old)
        async with asyncio.timeout(WAIT_S):
            while not seen:
                await asyncio.sleep(0.001)
        await worker.agent.start_positions([(RAW, 0)])  # waits for the models' thread
        assert host.offsets() == []
        await worker.finished(Delivery(log, 0, 4, generation=2))
        assert not old.acked.is_set()
    assert host.offsets() == [0, 1, 2, 3]
    assert host.frames().void == 2


async def test_what_the_log_lost_is_no_gap_for_ever(host):
    log = Whole(["a"] * 9)
    async with host.worker(log) as worker:
        await worker.finished(Delivery(log, 0, 2))
        log.begin = 5
        await worker.finished(Delivery(log, 2, 9))
    assert host.offsets() == [0, 1, 5, 6, 7, 8]
    assert host.position()[0] == 9


async def test_a_ring_that_is_removed_is_built_anew(host, monkeypatch):
    monkeypatch.setattr(direct_module, "BEAT_S", 0.01)
    log = Whole(["a"] * 6)
    async with host.worker(log) as worker:
        await worker.finished(Delivery(log, 0, 3))
        host.path.unlink()
        async with asyncio.timeout(WAIT_S):
            while not host.path.exists():
                await asyncio.sleep(0.005)
        await worker.finished(Delivery(log, 3, 6))
        assert host.offsets() == [3, 4, 5]
    assert host.position()[0] == 6


async def test_a_second_worker_on_the_host_is_told_the_way_out(host, said):
    log = Whole()
    async with host.worker(log):
        second = host.worker(log, generation=2)
        with pytest.raises(asyncio.CancelledError):
            await second.agent.open()
        await second.agent.stop()
    (error,) = said
    assert isinstance(error, Refuse)
    assert str(host.path) in error.message
    assert "one worker on a host" in error.fix
    assert 'ring = "c"' in error.fix


async def test_a_ring_removed_while_its_past_is_filled_in(host, tmp_path, said, monkeypatch):
    monkeypatch.setattr(direct_module, "BEAT_S", 0.0)
    log = Whole(["a"] * 8)
    await enrich(Host(tmp_path / "elsewhere.ring"), log, sizes=(1,))
    put, first = Feed.put, iter([host.path])

    def remove_first(feed, records):
        for path in first:
            path.unlink()
        put(feed, records)

    monkeypatch.setattr(Feed, "put", remove_first)
    monkeypatch.setattr(backfill, "RECORDS_MAX", 1)
    log.add(["b"] * 2)
    async with host.worker(log) as worker:
        await worker.finished(Delivery(log, 8, 10))
    assert not said
