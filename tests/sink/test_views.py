"""Views and macros say what the rows say, and only of columns that are there."""

import math

import duckdb
import pyarrow as pa
import pytest

from streamapp.sink import Store

MINUTE_US = 60_000_000
STAGES = {
    "intent": pa.string(),
    "intent_confidence": pa.float32(),
    "sentiment": pa.float32(),
    "language": pa.string(),
    "delta_time": pa.float32(),
    "velocity": pa.float32(),
    "interrupt": pa.int32(),
    "spin": pa.list_(pa.float32(), 4),
    "fill_rate": pa.float32(),
}
HALF_TURN = math.sqrt(0.5)
#: conversation, actor, time (s), intent, sentiment, ln dt (s), velocity, interrupt, spin w
TALK = [
    ("a", "ann", 0, "greet", 0.5, math.nan, 0.7, 0, 1.0),
    ("b", "bob", 1, None, -0.5, math.nan, 0.7, 0, 1.0),
    ("a", "agent", 30, "cancel", -0.25, math.log(30), 1.2, 1, HALF_TURN),
    ("a", "ann", 90, None, None, math.log(60), 1.3, 0, 0.0),
    (None, None, 91, "cancel", 0.0, math.nan, 0.7, 0, 1.0),
]


def columns_of(names):
    values = {
        "intent": [row[3] for row in TALK],
        "intent_confidence": [0.5] * len(TALK),
        "sentiment": [row[4] for row in TALK],
        "language": ["en"] * len(TALK),
        "delta_time": [row[5] for row in TALK],
        "velocity": [row[6] for row in TALK],
        "interrupt": [row[7] for row in TALK],
        "spin": [[row[8], 0.0, 0.0, 0.0] for row in TALK],
        "fill_rate": [1.0] * len(TALK),
    }
    return {name: pa.array(values[name], STAGES[name]) for name in names}


@pytest.fixture
def talk(make, open_store):
    """``talk("intent", ...)``: a store of TALK whose workflow has these columns."""

    def stored(*names, path=":memory:"):
        store = open_store(path, columns={name: STAGES[name] for name in names})
        events = [
            make.event(n, time_us=row[2] * 1_000_000)
            | {"conversation": row[0], "actor": row[1], "text": f"t{n}"}
            for n, row in enumerate(TALK)
        ]
        record = make.record(0, len(TALK), events, stages=False, extra=columns_of(names))
        store.write([record])
        return store

    return stored


def names_of(store, relation):
    with store.reader() as cursor:
        return [row[0] for row in cursor.execute(f"DESCRIBE FROM {relation}").fetchall()]


def test_a_conversation_is_one_row(make, talk):
    store = talk(*STAGES)
    rows = make.rows(
        store,
        "SELECT conversation, epoch(first_time), epoch(last_time), events, actors, last_text, "
        "last_intent, last_language, mean_sentiment, least_sentiment, last_velocity, interrupts "
        "FROM conversations ORDER BY conversation",
    )
    assert rows == [
        ("a", 0, 90, 3, 2, "t3", "cancel", "en", 0.125, -0.25, pytest.approx(1.3), 1),
        ("b", 1, 1, 1, 1, "t1", None, "en", -0.5, -0.5, pytest.approx(0.7), 0),
    ]


def test_the_last_is_by_event_time_whatever_came_when(make, open_store):
    store = open_store(columns={"intent": pa.string()})
    events = [make.event(n, time_us=at) for n, at in enumerate([5, 9, 7, 9])]
    intents = {"intent": pa.array(["five", "nine", "seven", "nine again"])}
    store.write([make.record(0, 4, events, stages=False, extra=intents)])
    assert make.rows(store, "SELECT last_intent, last_text FROM conversations") == [
        ("nine again", "text 3")
    ]


def test_intents_by_minute(make, talk):
    rows = make.rows(
        talk(*STAGES),
        "SELECT epoch(minute), intent, events, conversations, mean_confidence, mean_sentiment "
        "FROM intents_by_minute ORDER BY ALL",
    )
    assert rows == [
        (0, "cancel", 1, 1, 0.5, -0.25),
        (0, "greet", 1, 1, 0.5, 0.5),
        (60, "cancel", 1, 0, 0.5, 0.0),
    ]


def test_velocity_of_a_conversation(make, talk):
    rows = make.rows(
        talk(*STAGES),
        "SELECT epoch(time), actor, text, intent, velocity, acceleration, seconds_since, "
        "interrupt, turn_degrees, fill_rate, sentiment, source_offset FROM velocity('a')",
    )
    near = pytest.approx
    assert rows == [
        (0, "ann", "t0", "greet", near(0.7), None, None, 0, 0, 1, 0.5, 0),
        (30, "agent", "t2", "cancel", near(1.2), near(1.0), near(30), 1, near(90), 1, -0.25, 2),
        (90, "ann", "t3", None, near(1.3), near(0.1, rel=1e-3), near(60), 0, near(180), 1, None, 3),
    ]
    assert make.rows(talk(*STAGES), "SELECT count(*) FROM velocity('nobody')") == [(0,)]


def test_a_number_is_taken_for_the_text_that_it_is_written_as(make, open_store):
    """DuckDB would compare as numbers: '7', '07' and '7.4' were all 7."""
    store = open_store(columns={name: STAGES[name] for name in ("velocity", "interrupt")})
    events = [
        make.event(n) | {"conversation": name} for n, name in enumerate(("7", "07", "7.4", "c"))
    ]
    extra = {
        "velocity": pa.array([1.0] * 4, pa.float32()),
        "interrupt": pa.array([0] * 4, pa.int32()),
    }
    store.write([make.record(0, 4, events, stages=False, extra=extra)])
    assert make.rows(store, "SELECT source_offset FROM velocity(7)") == [(0,)]


def test_near_of_an_id_that_two_sources_have_is_of_the_first_of_them(make, open_store):
    store = open_store(columns={"embedding": pa.list_(pa.float32(), 2)})
    for topic, own in (("b", [1.0, 0.0]), ("a", [0.0, 1.0])):
        events = [make.event(n, name=name, source=topic) for n, name in enumerate(("7", topic))]
        extra = {"embedding": pa.array([own, [0.6, 0.8]], pa.list_(pa.float32(), 2))}
        store.write([make.record(0, 2, events, stages=False, extra=extra, topic=topic)])
    [(cosine,)] = make.rows(store, "SELECT cosine FROM near(7, 3) WHERE id = 'b'")
    assert cosine == pytest.approx(0.8)


def test_a_workflow_without_stages_has_what_needs_none(talk):
    store = talk()
    assert names_of(store, "conversations") == [
        "conversation", "first_time", "last_time", "events", "actors", "last_text",
    ]  # fmt: skip
    assert "id" in names_of(store, "latest")
    assert "reason" in names_of(store, "dead")
    for missing in ("intents_by_minute", "velocity('a')", "similar('a', 1)", "near('a', 1)"):
        with pytest.raises(duckdb.CatalogException):
            names_of(store, missing)


@pytest.mark.parametrize("left_out", list(STAGES))
def test_any_stage_may_be_missing(talk, left_out):
    store = talk(*(name for name in STAGES if name != left_out))
    assert left_out not in names_of(store, "latest")
    assert len(names_of(store, "conversations")) >= 10
    for relation, needs in (("intents_by_minute", "intent"), ("velocity('a')", "velocity")):
        if left_out != needs:
            assert names_of(store, relation)


@pytest.mark.parametrize("name", ["sentiment", "velocity", "spin", "interrupt", "embedding"])
def test_a_column_of_somebody_elses_type_breaks_nothing(open_store, name):
    store = open_store(columns={"intent": pa.string(), name: pa.list_(pa.string())})
    assert name in names_of(store, "latest")
    assert not any(name in column for column in names_of(store, "conversations"))


def test_what_a_new_stage_brings_comes_at_the_next_start(talk, make, path):
    with talk("intent", path=path) as store:
        assert "mean_sentiment" not in names_of(store, "conversations")
    with Store.open(path, columns={name: STAGES[name] for name in ("intent", "sentiment")}) as wide:
        assert "mean_sentiment" in names_of(wide, "conversations")
        assert make.rows(wide, "SELECT sum(events) FROM conversations") == [(4,)]


def test_what_a_stage_that_is_gone_brought_stays(talk, path):
    with talk(*STAGES, path=path):
        pass
    with Store.open(path, columns={}) as store:
        assert "mean_sentiment" in names_of(store, "conversations")


def test_nothing_is_defined_while_running(make, talk):
    """Views and macros are made at open: their definitions have no later transaction."""
    store = talk(*STAGES)
    before = make.rows(store, "SELECT view_oid FROM duckdb_views() WHERE NOT internal ORDER BY 1")
    store.write([make.record(len(TALK), len(TALK) + 3, stages=False)])
    after = make.rows(store, "SELECT view_oid FROM duckdb_views() WHERE NOT internal ORDER BY 1")
    assert before == after
    assert len(before) == 4


def test_dead_letters_are_a_table(make, open_store):
    store = open_store()
    store.write([make.record(0, 2, rejects=[make.reject(1)])])
    assert make.rows(store, "SELECT source_offset, code, reason FROM dead") == [
        (1, "event.json", "why")
    ]


def test_plain_duckdb_reads_the_file(talk, path):
    """A copy of the file is of use without us; only what needs our functions does not answer."""
    columns = STAGES | {"embedding": pa.list_(pa.float32(), 2)}
    with talk(*STAGES, path=path):
        pass
    with Store.open(path, columns=columns):
        pass
    with duckdb.connect(path, read_only=True) as plain:
        assert plain.execute("SELECT sum(events) FROM conversations").fetchall() == [(4,)]
        assert len(plain.execute("FROM velocity('a')").fetchall()) == 3
        with pytest.raises(duckdb.CatalogException, match="nearest"):
            plain.execute("FROM near('id-1', 1)")
