"""What is sent comes out as rows, as a worker would have made them."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.plugin import BaseStage, StatefulStage, int32, stage
from streamapp.stages.embed import Embed
from streamapp.stages.intent import Intent
from streamapp.stages.kinetics import IMPULSE, Kinetics
from streamapp.testing import Pipeline
from streamapp.transport import Outgoing


@stage("word_count", version=1, reads=["text"], writes={"words": "int32"})
def word_count(text):
    return {"words": len(text.split())}


class Count(StatefulStage):
    """How many events the type had."""

    name = "count"
    reads = ("type",)
    writes = {"count": int32}  # noqa: RUF012

    def enrich(self, batch, state=None):
        counts = []
        for offset, kind in zip(batch.offsets().tolist(), batch.strings("type"), strict=True):
            counts.append((state.get("type", kind) or 0) + 1)
            state.put("type", kind, offset, counts[-1])
        return {"count": pa.array(counts, int32)}


def test_texts_objects_and_bytes_become_rows(streamapp):
    streamapp.use(word_count)
    assert [row["words"] for row in streamapp.send("hello world", {"text": "one"})] == [2, 1]
    streamapp.send(b'{"message": "a b c", "type": "UserMessage", "plan": "x"}')
    rows = streamapp.rows()
    assert [row["words"] for row in rows] == [2, 1, 3]
    assert rows[2]["type"] == "UserMessage"
    assert rows[2]["payload"] == '{"plan":"x"}' or rows[2]["payload"] == '{"plan": "x"}'
    assert rows[0]["id"] == "events.raw-0-0"
    assert streamapp.table().column("words").to_pylist() == [2, 1, 3]
    assert streamapp.table().schema.field("words").type == pa.int32()
    assert streamapp.rejects() == []


def test_before_anything_is_sent_there_are_columns_and_no_rows(streamapp):
    streamapp.use(word_count)
    assert streamapp.rows() == []
    assert streamapp.table().num_rows == 0
    assert streamapp.table().schema.field("words").type == pa.int32()
    assert streamapp.columns().names == ["words"]


def test_events_are_stamped_by_the_clock(streamapp):
    streamapp.clock.set("2026-03-01T12:00:00Z")
    streamapp.send("now")
    streamapp.clock.advance(90)
    streamapp.send("later", {"text": "then", "time": "2025-01-01T00:00:00Z"})
    moments = [row["time"] for row in streamapp.rows()]
    assert moments == [
        datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
        datetime(2026, 3, 1, 12, 1, 30, tzinfo=UTC),
        datetime(2025, 1, 1, tzinfo=UTC),
    ]
    assert streamapp.rows()[2]["ingest_time"] == moments[1]


def test_state_lasts_from_send_to_send_and_over_a_restart(streamapp):
    streamapp.use(Count)
    streamapp.send({"type": "a"}, {"type": "b"})
    streamapp.send({"type": "a"})
    streamapp.restart()
    assert streamapp.send({"type": "a"}, {"type": "b"})[1]["count"] == 2
    assert [row["count"] for row in streamapp.rows()] == [1, 1, 2, 3, 2]


def test_a_repeat_is_dropped_before_the_stages_as_a_worker_does(streamapp):
    streamapp.use(Count)
    event = {"type": "a", "id": "1"}
    assert [row["count"] for row in streamapp.send(event, event, {"type": "a", "id": "2"})] == [
        1,
        2,
    ]
    assert streamapp.send(event) == []
    streamapp.restart()
    assert [row["count"] for row in streamapp.send(event, {**event, "source": "other"})] == [3]
    assert streamapp.repeats == 3


def test_an_event_that_was_rejected_may_come_again(streamapp):
    answers = [False, True]

    @stage("moody", version=1, reads=["text"], writes={"ok": "bool"})
    def moody(text):
        return {"ok": not 1 / answers.pop(0)}

    streamapp.use(moody)
    event = {"id": "1", "text": "hello"}
    assert streamapp.send(event) == []
    assert len(streamapp.send(event)) == 1


def test_a_conversation_has_a_pace(streamapp):
    streamapp.use(Kinetics, Embed)
    for _ in range(2):
        streamapp.send({"text": "hello", "conversation_id": "c"})
        streamapp.clock.advance(60)
    assert [row["velocity"] for row in streamapp.rows()] == pytest.approx([IMPULSE, 1.5 * IMPULSE])


def test_a_bad_event_costs_itself(streamapp):
    @stage("picky", version=1, reads=["text"], writes={"ok": "bool"})
    def picky(text):
        return {"ok": not 1 / (text != "bad")}

    streamapp.use(picky)
    rows = streamapp.send("good", "bad", b"{", None, "good")
    assert [row["source_offset"] for row in rows] == [0, 4]
    found = [(r.source_offset, r.stage, r.code, r.value) for r in streamapp.rejects()]
    assert found == [
        (1, "picky", "stage.error", b'{"message":"bad"}'),
        (2, "wire", "event.json", b"{"),
        (3, "wire", "event.empty", None),
    ]


def test_a_stage_that_must_wait_leaves_the_events_in_the_log(streamapp):
    class Slow(BaseStage):
        name = "slow"
        writes = {"done": pa.bool_()}  # noqa: RUF012
        answers = False

        def enrich(self, batch):
            if not self.answers:
                raise Retry("slow.busy", "the outside does not answer")
            return {"done": pa.array([True] * len(batch))}

    slow = Slow()
    streamapp.use(slow)
    with pytest.raises(Retry):
        streamapp.send("one")
    assert streamapp.rows() == []
    slow.answers = True
    streamapp.run()
    assert [row["text"] for row in streamapp.rows()] == ["one"]


def test_a_stage_that_returns_something_else_is_named(streamapp):
    class Wrong(BaseStage):
        name = "wrong"
        writes = {"there": int32}  # noqa: RUF012

        def enrich(self, batch):
            return {"here": pa.array([0] * len(batch))}

    with pytest.raises(Halt, match="'wrong' returned columns here where there"):
        streamapp.use(Wrong).send("x")


def test_stages_by_name_with_options_and_in_any_order(streamapp):
    labels = {"cancel": "stop my plan", "greeting": "hello"}
    streamapp.use(Intent, "embed", intent={"labels": labels})
    assert streamapp.send("stop my plan")[0]["intent"] == "cancel"
    assert len(streamapp.rows()[0]["embedding"]) == 16


def test_other_stages_go_on_with_the_state_of_those_before(streamapp):
    streamapp.use(Count)
    streamapp.send({"type": "a"})
    streamapp.use(Count, word_count)
    streamapp.send({"type": "a", "text": "x y"})
    assert [(row["count"], row["words"]) for row in streamapp.table().to_pylist()] == [
        (1, None),
        (2, 2),
    ]


@pytest.mark.parametrize(
    ("stages", "options", "says"),
    [
        (["no_such"], {}, "no_such"),
        (["kinetic"], {}, "did you mean 'kinetics'"),
        ([Kinetics], {}, "reads 'embedding'"),
        ([Intent, Embed], {}, "0 labels"),
        ([Embed], {"embed": {"modle": "x"}}, "did you mean model"),
        ([Embed], {"emebd": {}}, "emebd"),
        ([Embed()], {"embed": {}}, "made already"),
        ([3], {}, "3 is no stage"),
        ([word_count, word_count], {}, "words"),
    ],
)
def test_what_cannot_run_is_refused_with_a_reason(streamapp, stages, options, says):
    with pytest.raises(Refuse) as refused:
        streamapp.use(*stages, **options)
    assert says in str(refused.value)
    streamapp.restart()  # nothing of it stays
    assert len(streamapp.send("x")) == 1


def test_partitions_by_conversation_each_with_its_state():
    pipeline = Pipeline(partitions=4).use(Count)
    pipeline.send(*({"type": "t", "conversation_id": f"c{n % 3}"} for n in range(12)))
    pipeline.send({"type": "t"}, partition=3)
    pipeline.send(Outgoing(b'{"type":"t"}', partition=3))
    rows = pipeline.rows()
    assert len(rows) == 14
    assert all(row["count"] == row["source_offset"] + 1 for row in rows)
    assert len({row["source_offset"] for row in rows}) < 14
    pipeline.close()


def test_a_large_event_is_rejected():
    pipeline = Pipeline(event_bytes_max=100)
    assert pipeline.send("x" * 200) == []
    assert [reject.code for reject in pipeline.rejects()] == ["event.too_large"]


def test_stages_are_told_how_long_they_took():
    told = []
    pipeline = Pipeline(on_stage=lambda *what: told.append(what)).use(word_count)
    pipeline.send("x", "y")
    assert [(name, rows) for name, rows, _ in told] == [("word_count", 2)]
    assert told[0][2] >= 0
