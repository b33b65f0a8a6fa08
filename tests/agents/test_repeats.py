"""A rejected event's id does not count as seen: what repairs it may come again, however soon."""

import json

import pyarrow as pa
import pytest
from enrich_worker import Event, Log, Worker
from enrich_worker import Plan as Nothing

from streamapp.core.batch import Batch
from streamapp.core.errors import Retry
from streamapp.core.slice import Record
from streamapp.topics.catalogue import DEAD, ENRICHED
from streamapp.topics.enriched import decode
from streamapp.topics.wire import rejected


class Picky(Nothing):
    """Refuses texts that begin with ``bad``, and counts the others of a conversation."""

    def run(self, batch, state, raw):
        self.before(batch)
        bad = [text.startswith("bad") for text in batch.strings("text")]
        rejects = [
            rejected(raw[offset], "picky", "picky.bad", "it is bad")
            for offset, is_bad in zip(batch.offsets().tolist(), bad, strict=True)
            if is_bad
        ]
        rows = batch.rows.filter(pa.array([not one for one in bad], pa.bool_()))
        kept = Batch(rows, batch.range, (*batch.rejects, *rejects))
        overlay = state.overlay()
        view, counts = overlay.view("picky"), []
        for offset in kept.offsets().tolist():
            counts.append((view.get("count", "") or 0) + 1)
            view.put("count", "", offset, counts[-1])
        overlay.commit()
        return kept.with_columns({"count": pa.array(counts, pa.int32())}), overlay.changes


def slice_of(first, *texts_by_id):
    event = Event(first, list(range(first, first + len(texts_by_id))))
    values = [json.dumps({"id": id_, "message": text}).encode() for id_, text in texts_by_id]
    event.value.records[:] = [Record(first + n, 0, None, v) for n, v in enumerate(values)]
    return event


def rows(log):
    """Id, offset and count of every row on the enriched topic."""
    found = []
    for record in log.records[ENRICHED]:
        part = decode(record).rows
        names = ("id", "source_offset", "count")
        found += zip(*(part.column(name).to_pylist() for name in names), strict=True)
    return found


def covered(log):
    return [(cover.first, cover.next) for cover in log.covers()]


async def test_a_repaired_event_in_the_same_slice_as_the_refused_one_goes_through():
    async with Worker(Picky()) as worker:
        await worker.finished(
            slice_of(0, ("a", "good"), ("b", "bad"), ("a", "again"), ("b", "mended"), ("c", "good"))
        )
        assert rows(worker.log) == [("a", 0, 1), ("b", 3, 2), ("c", 4, 3)]
        assert covered(worker.log) == [(0, 3), (3, 5)]
        assert len(worker.log.records[DEAD]) == 1
        assert worker.metrics.duplicates.labels("repeat")._value.get() == 1


async def test_it_is_stored_once_however_the_log_is_cut():
    texts = [("b", "bad 1"), ("b", "bad 2"), ("b", "mended"), ("b", "again"), ("b", "bad 3")]
    for cut in range(1, len(texts) + 1):
        async with Worker(Picky(), Log()) as worker:
            parts = [slice_of(0, *texts[:cut])]
            if texts[cut:]:
                parts.append(slice_of(cut, *texts[cut:]))
            await worker.finished(*parts)
            assert rows(worker.log) == [("b", 2, 1)], cut
            assert len(worker.log.records[DEAD]) == 2, cut
            assert covered(worker.log)[-1][1] == len(texts)


@pytest.mark.parametrize("fails_at", [1, 2, 3])
async def test_a_retry_in_the_middle_of_the_parts_begins_again_with_the_first(fails_at):
    calls = []

    def sometimes(batch):
        calls.append(len(batch))
        if len(calls) == fails_at:
            raise Retry("model.remote", "the model does not answer")

    async with Worker(Picky(sometimes)) as worker:
        await worker.finished(slice_of(0, ("a", "good"), ("b", "bad"), ("b", "mended")))
        assert rows(worker.log) == [("a", 0, 1), ("b", 2, 2)]


async def test_a_new_owner_knows_what_went_through():
    log = Log()
    async with Worker(Picky(), log) as worker:
        await worker.finished(slice_of(0, ("b", "bad"), ("b", "mended")))
    log.stopped = 0
    async with Worker(Picky(), log, generation=2) as second:
        again = slice_of(2, ("b", "again"), ("d", "good"))
        again.generation_id = 2
        await second.finished(again)
        assert rows(log) == [("b", 1, 1), ("d", 3, 2)]
