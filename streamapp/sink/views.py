"""The views and macros that users want ready, made when a store opens as far as its columns reach.

What a conversation or a minute says of a column is left out where no stage ever wrote it.
"""

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

import duckdb

from streamapp.sink import bounds
from streamapp.sink.matrix import K_MAX

#: What the stages' columns are; one of another type is somebody else's and is left alone.
_NUMBER = re.compile(r"(U?(TINY|SMALL|BIG)?INT(EGER)?|FLOAT|DOUBLE)$")
_VECTOR = re.compile(r"FLOAT\[\d+\]$")
_ANY = re.compile("")
_KINDS = {
    "intent_confidence": _NUMBER,
    "sentiment": _NUMBER,
    "velocity": _NUMBER,
    "delta_time": _NUMBER,
    "interrupt": _NUMBER,
    "spin": _VECTOR,
    "embedding": _VECTOR,
}
#: Each item of a view with the columns of ``events`` that it needs.
_Items = tuple[tuple[str, frozenset[str]], ...]


def _item(sql: str, *needs: str) -> tuple[str, frozenset[str]]:
    return sql, frozenset(needs)


_LATEST = """CREATE OR REPLACE VIEW latest AS
    SELECT * FROM events
    ORDER BY ingest_time DESC, source_topic, source_partition, source_offset DESC LIMIT 100"""

#: "last" is by event time, and by offset within a microsecond.
_CONVERSATIONS: _Items = (
    _item("conversation"),
    _item("min(time) AS first_time"),
    _item("max(time) AS last_time"),
    _item("count(*) AS events"),
    _item("count(DISTINCT actor) AS actors"),
    _item("arg_max(text, (time, source_offset)) AS last_text"),
    _item("arg_max(intent, (time, source_offset)) AS last_intent", "intent"),
    _item("arg_max(language, (time, source_offset)) AS last_language", "language"),
    _item("avg(sentiment) AS mean_sentiment", "sentiment"),
    _item("min(sentiment) AS least_sentiment", "sentiment"),
    _item("arg_max(velocity, (time, source_offset)) AS last_velocity", "velocity"),
    _item("sum(interrupt)::BIGINT AS interrupts", "interrupt"),
)
_CONVERSATIONS_VIEW = """CREATE OR REPLACE VIEW conversations AS
    SELECT {} FROM events WHERE conversation IS NOT NULL GROUP BY conversation"""

_INTENTS_BY_MINUTE: _Items = (
    _item("date_trunc('minute', time) AS minute"),
    _item("intent", "intent"),
    _item("count(*) AS events"),
    _item("count(DISTINCT conversation) AS conversations"),
    _item("avg(intent_confidence) AS mean_confidence", "intent_confidence"),
    _item("avg(sentiment) AS mean_sentiment", "sentiment"),
)
_INTENTS_VIEW = """CREATE OR REPLACE VIEW intents_by_minute AS
    SELECT {} FROM events WHERE intent IS NOT NULL GROUP BY ALL"""

#: delta_time is the logarithm of seconds, so ``acceleration`` is events per minute, per minute;
#: ``spin[1]`` is the cosine of half the angle.
_VELOCITY: _Items = (
    _item("moved.time"),
    _item("moved.actor"),
    _item("moved.text"),
    _item("moved.intent", "intent"),
    _item("moved.velocity"),
    _item(
        "(moved.velocity - lag(moved.velocity) OVER (ORDER BY moved.source_topic, "
        "moved.source_partition, moved.source_offset)) * 60 / exp(nullif(moved.delta_time, 'NaN')) "
        "AS acceleration",
        "delta_time",
    ),
    _item("exp(nullif(moved.delta_time, 'NaN')) AS seconds_since", "delta_time"),
    _item("moved.interrupt", "interrupt"),
    _item("degrees(2 * acos(least(moved.spin[1], 1))) AS turn_degrees", "spin"),
    _item("moved.fill_rate", "fill_rate"),
    _item("moved.sentiment", "sentiment"),
    _item("moved.source_offset"),
)

_VELOCITY_MACRO = """CREATE OR REPLACE MACRO velocity(conversation_id) AS TABLE
    SELECT {} FROM events AS moved WHERE moved.conversation = conversation_id::VARCHAR
    ORDER BY moved.source_topic, moved.source_partition, moved.source_offset"""

#: The events most like a text.  The largest number is that of the newest row which the asking
#: statement sees; events are found by address, since numbers may change when rows are deleted.
#: ``nearest`` refuses a k of 0, and would take one more than these may.
_SIMILAR = """CREATE OR REPLACE MACRO "similar"(query, k) AS TABLE
    SELECT found.hit.cosine, event.* EXCLUDE (embedding)
    FROM (SELECT unnest(nearest(
              embed(query::VARCHAR), if(k::BIGINT > {k_max}, 0, k::BIGINT),
              (SELECT max({row}) FROM events))) AS hit) AS found
    JOIN events AS event ON event.source_offset = found.hit."offset"
        AND event.source_partition = found.hit."partition" AND event.source_topic = found.hit.topic
    ORDER BY found.hit.cosine DESC, event.source_offset"""
#: The other events most like one event; it is the nearest to itself, so one more is asked for.
_NEAR = """CREATE OR REPLACE MACRO near(event_id, k) AS TABLE
    SELECT found.hit.cosine, event.* EXCLUDE (embedding)
    FROM (SELECT this.source_topic, this.source_partition, this.source_offset, unnest(nearest(
              this.embedding, if(k::BIGINT < 1, 0, least(k::BIGINT, {k_max} + 1) + 1),
              (SELECT max({row}) FROM events))) AS hit
          FROM (SELECT * FROM events AS one WHERE one.id = event_id::VARCHAR
                ORDER BY source_topic, source_partition, source_offset LIMIT 1) AS this) AS found
    JOIN events AS event ON event.source_offset = found.hit."offset"
        AND event.source_partition = found.hit."partition" AND event.source_topic = found.hit.topic
    WHERE (found.source_offset, found.source_partition, found.source_topic)
        <> (event.source_offset, event.source_partition, event.source_topic)
    ORDER BY found.hit.cosine DESC, event.source_offset LIMIT greatest(k::BIGINT, 1)"""

#: Events with what a language model said of them in place of what the local models were unsure of;
#: of several answers to one event a model's counts, and of those the newest.
_ANSWERED = """CREATE OR REPLACE VIEW answered AS
    WITH best AS (
        SELECT source_topic, source_partition, source_offset, kind,
               arg_max({{'answer': answer, 'confidence': confidence, 'source': source}},
                       (source = 'llm', answered_at, log_offset)) AS said
        FROM answers GROUP BY ALL)
    SELECT event.* REPLACE ({replaced}), {added}
    FROM events AS event
    LEFT JOIN best AS intents ON intents.kind = 'intent'
        AND intents.source_topic = event.source_topic
        AND intents.source_partition = event.source_partition
        AND intents.source_offset = event.source_offset
    LEFT JOIN best AS types ON types.kind = 'type'
        AND types.source_topic = event.source_topic
        AND types.source_partition = event.source_partition
        AND types.source_offset = event.source_offset"""
_REPLACED: _Items = (
    _item("coalesce(types.said.answer, event.type) AS type"),
    _item("coalesce(intents.said.answer, event.intent) AS intent", "intent"),
    _item(
        "if(intents.said IS NULL, event.intent_confidence, intents.said.confidence) "
        "AS intent_confidence",
        "intent_confidence",
    ),
    _item("coalesce(intents.said.source, event.intent_source) AS intent_source", "intent_source"),
)
_ADDED: _Items = (
    _item("types.said.source AS type_source"),
    _item("event.intent AS intent_local", "intent"),
)


def create(
    connection: duckdb.DuckDBPyConnection, columns: Mapping[str, str], *, row: str = "rowid"
) -> None:
    """Make the views and macros whose columns are there.

    Args:
        connection: whose current database is the store, and whose instance has the functions of
            :meth:`streamapp.sink.search.Search.install`: a macro is bound when it is made.
        columns: the names of the columns of ``events``, in lower case, with DuckDB's types.
        row: the column of ``events`` that numbers rows in the order they were stored.
    """
    known = {name for name, kind in columns.items() if _KINDS.get(name, _ANY).match(kind)}
    for statement in _statements(known, row):
        connection.execute(statement).fetchall()


def _statements(columns: AbstractSet[str], row: str) -> Iterator[str]:
    yield from bounds.macros()
    yield _LATEST
    yield _ANSWERED.format(replaced=_chosen(_REPLACED, columns), added=_chosen(_ADDED, columns))
    yield _CONVERSATIONS_VIEW.format(_chosen(_CONVERSATIONS, columns))
    if "intent" in columns:
        yield _INTENTS_VIEW.format(_chosen(_INTENTS_BY_MINUTE, columns))
    if "velocity" in columns:
        yield _VELOCITY_MACRO.format(_chosen(_VELOCITY, columns))
    if "embedding" in columns:
        yield _SIMILAR.format(row=row, k_max=K_MAX)
        yield _NEAR.format(row=row, k_max=K_MAX)


def _chosen(items: _Items, columns: AbstractSet[str]) -> str:
    return ", ".join(sql for sql, needs in items if needs <= columns)
