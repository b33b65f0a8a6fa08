"""Answers are stored once, whoever was killed, and joined to events by address; in both sinks."""

import pyarrow as pa
import pytest
from sinks import DuckSink, ParquetSink, record

from streamapp.sink.answers import ANSWERS, Answers
from streamapp.topics.catalogue import ANSWERS as TOPIC

COLUMNS = {
    "intent": pa.string(),
    "intent_confidence": pa.float32(),
    "intent_source": pa.string(),
}


@pytest.fixture(params=["duckdb", "parquet"])
def sink(request, tmp_path):
    return DuckSink(tmp_path) if request.param == "duckdb" else ParquetSink(str(tmp_path / "root"))


def answer(log_offset, offset=0, said="refund", **given):
    return {
        "source_topic": "events.raw",
        "source_partition": 0,
        "source_offset": offset,
        "id": f"id-{offset}",
        "kind": "intent",
        "answer": said,
        "confidence": 0.5,
        "source": "llm",
        "local": "unknown",
        "model": "m",
        "prompt": "intent@1",
        "reason": None,
        "tokens_in": 10,
        "tokens_out": 2,
        "answered_at": 1_760_000_000_000_000 + log_offset,
        "log_offset": log_offset,
    } | given


def answers(first, next_, *rows):
    rows = rows or [answer(n, n) for n in range(first, next_)]
    return Answers(TOPIC, 0, next_, pa.Table.from_pylist(rows, schema=ANSWERS))


def unsure(first, next_, intents=("unknown",)):
    """Events whose local intent is unknown."""
    count = next_ - first
    said = [intents[n % len(intents)] for n in range(count)]
    extra = {
        "intent": pa.array(said, pa.string()),
        "intent_confidence": pa.array([0.25] * count, pa.float32()),
        "intent_source": pa.array(["prototype"] * count, pa.string()),
    }
    return record(first, next_, extra=extra)


def fetched(store, sql):
    with store.reader() as cursor:
        return cursor.execute(sql).fetchall()


def stored(store):
    return fetched(store, "SELECT log_offset, source_offset, answer FROM answers ORDER BY 1")


def test_rows_and_position_are_one(sink):
    with sink.open(columns=COLUMNS) as store:
        assert store.write_answers(answers(0, 3)) == 3
        assert store.positions() == {(TOPIC, 0): 3}
        assert stored(store) == [(n, n, "refund") for n in range(3)]
    with sink.open(columns=COLUMNS) as store:
        assert store.positions() == {(TOPIC, 0): 3}
        assert fetched(store, 'SELECT topic, partition, "next" FROM position') == [(TOPIC, 0, 3)]


def test_what_comes_again_is_left_out(sink):
    with sink.open(columns=COLUMNS) as store:
        store.write_answers(answers(0, 3))
        assert store.write_answers(answers(0, 3)) == 0
        assert store.write_answers(answers(1, 5)) == 2
        assert stored(store) == [(n, n, "refund") for n in range(5)]
        assert store.write_answers(answers(2, 4)) == 0
        assert store.positions() == {(TOPIC, 0): 5}


def test_a_position_without_rows_moves(sink):
    """Records that were no answers, or that compaction took."""
    with sink.open(columns=COLUMNS) as store:
        empty = Answers(TOPIC, 0, 9, ANSWERS.empty_table())
        assert store.write_answers(empty) == 0
        assert store.positions() == {(TOPIC, 0): 9}


def test_events_and_answers_do_not_disturb_each_other(sink):
    with sink.open(columns=COLUMNS) as store:
        store.write_answers(answers(0, 2))
        written = store.write([unsure(0, 3)])
        assert (written.rows, written.holes) == (3, 0)
        store.write_answers(answers(2, 3))
        assert store.write([unsure(0, 3)]).duplicates_by_range == 3
        assert len(stored(store)) == 3
        assert store.positions() == {(TOPIC, 0): 3, ("events.enriched", 0): 3}


ANSWERED = """SELECT source_offset, intent, round(intent_confidence, 2), intent_source, intent_local
    FROM answered ORDER BY 1"""


def test_the_view_has_every_event_once_with_the_best_answer(sink):
    with sink.open(columns=COLUMNS) as store:
        store.write([unsure(0, 5, ("unknown", "cancel"))])
        rows = [
            answer(0, 0, "refund", source="llm"),
            answer(1, 0, "unknown", source="fallback"),  # asked again, in vain
            answer(2, 2, "unknown", source="fallback", confidence=None, reason="llm.circuit"),
            answer(3, 4, "billing"),
            answer(4, 4, "refund"),
            answer(5, 77, "refund"),  # of an event that is not stored (yet)
            answer(6, 1, "Order", kind="type"),
        ]
        store.write_answers(answers(0, 7, *rows))
        assert fetched(store, ANSWERED) == [
            (0, "refund", 0.5, "llm", "unknown"),
            (1, "cancel", 0.25, "prototype", "cancel"),
            (2, "unknown", None, "fallback", "unknown"),
            (3, "cancel", 0.25, "prototype", "cancel"),
            (4, "refund", 0.5, "llm", "unknown"),
        ]
        types = "SELECT type, type_source FROM answered WHERE type_source IS NOT NULL"
        assert fetched(store, types) == [("Order", "llm")]
        counts = "SELECT count(*) FROM answered UNION ALL SELECT count(*) FROM events"
        assert fetched(store, counts) == [(5,), (5,)]


def test_a_store_without_intents_has_the_view(sink):
    with sink.open() as store:
        store.write([record(0, 2)])
        store.write_answers(answers(0, 1, answer(0, 1, "Order", kind="type")))
        assert fetched(store, "SELECT type FROM answered ORDER BY source_offset") == [
            ("message",),
            ("Order",),
        ]


def test_many_commits_are_tidied_and_found_again(tmp_path):
    """The Parquet store merges small files of this table, too."""
    sink = ParquetSink(str(tmp_path / "root"))
    with sink.open(columns=COLUMNS, checkpoint_commits=20) as store:
        for n in range(45):
            store.write_answers(answers(n, n + 1))
        assert [row[0] for row in stored(store)] == list(range(45))
        assert len(sink.paths("answers")) < 30
    with sink.open(columns=COLUMNS) as store:
        assert [row[0] for row in stored(store)] == list(range(45))
    assert sink.arrow("answers").num_rows == 45


def test_two_writers_of_one_root_store_each_answer_once(tmp_path):
    """Each starts where the other one stands."""
    url = f"memory://{tmp_path.name}"
    first, second = (ParquetSink(url).open(columns=COLUMNS) for _ in range(2))
    from streamapp.core.errors import Retry

    with first, second:
        first.write_answers(answers(0, 3))
        with pytest.raises(Retry) as error:
            second.write_answers(answers(0, 4))
        assert error.value.code == "store.conflict"
        assert second.write_answers(answers(0, 4)) == 1
        assert [row[0] for row in stored(second)] == [0, 1, 2, 3]


def test_a_store_from_before_gets_the_table(tmp_path):
    import duckdb

    sink = DuckSink(tmp_path)
    with sink.open(columns=COLUMNS) as store:
        store.write([unsure(0, 2)])
    with duckdb.connect(sink.url) as plain:
        plain.execute("DROP VIEW answered")
        plain.execute("DROP TABLE answers")
    with sink.open(columns=COLUMNS) as store:
        assert fetched(store, ANSWERED)[0] == (0, "unknown", 0.25, "prototype", "unknown")


def test_what_is_retained_takes_its_answers_along_and_an_archive_keeps_them(tmp_path):
    from datetime import UTC, datetime

    import duckdb

    from streamapp.sink import retain
    from streamapp.sink.archive import archive
    from streamapp.sink.verify import Window

    with DuckSink(tmp_path).open(columns=COLUMNS, dedup_window_s=0) as store:
        store.write([unsure(0, 10)])
        store.write_answers(answers(0, 10))
        cut = retain.bound(store, Window(0, 0), before=datetime.fromtimestamp(4, UTC))
        list(retain.retain(store, cut, archive_to=tmp_path / "a"))
        assert [row[1] for row in stored(store)] == list(range(4, 10))
        store.write_answers(answers(10, 12))
        for _ in range(2):
            list(archive(store.reader, tmp_path / "a"))
    assert len(list((tmp_path / "a" / "answers").iterdir())) == 2
    with duckdb.connect(":memory:") as plain:
        plain.execute((tmp_path / "a" / "read.sql").read_text())
        found = plain.execute("SELECT log_offset FROM archived_answers ORDER BY 1").fetchall()
    assert [offset for (offset,) in found] == list(range(12))
