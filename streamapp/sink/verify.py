"""What a store promises, checked in one snapshot of it: rows against the ledger, ids, positions.

Each check is one SELECT whose rows are what is wrong; nothing is written.  Checks ask for narrow
columns only, so that they spill little; ``deep`` reads every value besides, and with it DuckDB
checks the checksum of every block.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import duckdb

from streamapp.core.errors import Halt, Reject, StreamappError
from streamapp.sink import recall

#: Findings of one check that are listed; all are counted.
LISTED_MAX = 20
#: Holes are data that is missing; whatever else is found is an invariant of ours that broke.
HOLE = "ledger.hole"
_REPEATED = "ids.repeated"

#: For this connection only, and gone with the transaction.
_WORDS = (
    """CREATE TEMP MACRO span(topic, part, "from", til) AS
       concat(topic, '-', part, '[', "from", ',', til, ')')""",
    "CREATE TEMP MACRO spot(topic, part, place) AS concat(topic, '-', part, '@', place)",
    """CREATE TEMP VIEW addresses AS
       SELECT source_topic AS topic, source_partition AS "partition", source_offset AS place,
              'row' AS kind FROM events
       UNION ALL
       SELECT source_topic, source_partition, source_offset, 'dead letter' FROM dead""",
)
#: An older store has no table ``retained`` before it is opened to write: then nothing was.
_NOTHING_RETAINED = """CREATE TEMP TABLE retained (topic VARCHAR, "partition" INTEGER,
    "first" BIGINT, "next" BIGINT, "rows" BIGINT, dead BIGINT)"""


class Window(NamedTuple):
    """What ``ids.once`` promises, as a store is opened with."""

    dedup_window_s: int
    dedup_window_events: int


class Check(NamedTuple):
    """What should not be there: ``sql`` gives (where, what) of each that is."""

    code: str
    about: str
    sql: str


CHECKS = (
    Check(
        "ledger.overlap",
        "source ranges are disjoint",
        """SELECT span(topic, "partition", "first", "next"),
               concat('begins before ', ended, ', where another ends')
        FROM (SELECT *, max("next") OVER (PARTITION BY topic, "partition" ORDER BY "first", "next"
              ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS ended FROM ledger)
        WHERE "first" < ended""",
    ),
    Check(
        "ledger.range",
        "source ranges are ranges",
        """SELECT span(topic, "partition", "first", "next"),
               concat("rows", ' rows and ', lost, ' lost are no counts of it')
        FROM ledger WHERE "first" < 0 OR "next" <= "first" OR "rows" < 0 OR lost < 0""",
    ),
    Check(
        "ledger.rows",
        "each range has the rows it counts",
        """WITH here AS (
            SELECT l.topic, l."partition", l."first", count(*) FILTER (kind = 'row') AS "rows",
                   count(*) FILTER (kind <> 'row') AS dead
            FROM addresses AS a ASOF JOIN ledger AS l ON a.topic = l.topic
                AND a."partition" = l."partition" AND a.place >= l."first"
            WHERE a.place < l."next" GROUP BY ALL),
        gone AS (
            SELECT l.topic, l."partition", l."first", sum(r."rows") AS "rows", sum(r.dead) AS dead
            FROM retained AS r ASOF JOIN ledger AS l ON r.topic = l.topic
                AND r."partition" = l."partition" AND r."first" >= l."first"
            WHERE r."next" <= l."next" GROUP BY ALL),
        counted AS (
            SELECT span(l.topic, l."partition", l."first", l."next") AS place,
                   l."next" - l."first" AS size, l.lost, l."rows" AS promised,
                   coalesce(gone."rows", 0) AS dropped, coalesce(here."rows", 0) AS here,
                   coalesce(here.dead, 0) + coalesce(gone.dead, 0) AS dead
            FROM ledger AS l
            LEFT JOIN here USING (topic, "partition", "first")
            LEFT JOIN gone USING (topic, "partition", "first"))
        SELECT place, concat('the ledger counts ', promised, ' rows',
            if(dropped > 0, concat(', of which ', dropped, ' were retained'), ''),
            '; ', here, ' are here') FROM counted WHERE promised - dropped <> here
        UNION ALL
        SELECT place, concat(promised, ' rows, ', dead, ' dead letters and ', lost,
            ' lost are more than its ', size, ' offsets')
        FROM counted WHERE promised + dead + lost > size""",
    ),
    Check(
        "ledger.stray",
        "nothing is outside the ledger",
        """SELECT spot(a.topic, a."partition", a.place),
               concat('no range of the ledger covers this ', kind)
        FROM addresses AS a ASOF LEFT JOIN ledger AS l ON a.topic = l.topic
            AND a."partition" = l."partition" AND a.place >= l."first"
        WHERE NOT coalesce(a.place < l."next", false)""",
    ),
    Check(
        "address.repeated",
        "each source offset is one row or one dead letter",
        """SELECT spot(topic, "partition", place),
               concat(count(*) FILTER (kind = 'row'), ' rows and ',
                      count(*) FILTER (kind <> 'row'), ' dead letters')
        FROM addresses GROUP BY topic, "partition", place HAVING count(*) > 1""",
    ),
    Check(
        _REPEATED,
        "each (source, id) is stored once within the dedup window",
        """WITH numbered AS (
            SELECT *, row_number() OVER () AS number,
                   max(ingest_time) OVER (ROWS UNBOUNDED PRECEDING) AS newest
            FROM (SELECT spot(source_topic, source_partition, source_offset) AS place, source, id,
                         ingest_time, hash(source, id) AS key FROM events)),
        twice AS (SELECT hash(source, id) AS key FROM events GROUP BY 1 HAVING count(*) > 1),
        paired AS (
            SELECT *, lag(number) OVER same AS number_then, lag(ingest_time) OVER same AS came_then,
                   lag(place) OVER same AS place_then
            FROM numbered WHERE key IN (FROM twice)
            WINDOW same AS (PARTITION BY source, id ORDER BY number))
        SELECT place, concat('id ', id, ' of source ', source, ' is at ', place_then,
                             ' too (or the dedup window was smaller then)') FROM paired
        WHERE number - number_then <= $events_max AND came_then >= newest - to_seconds($span_s)""",
    ),
    Check(
        "position.back",
        "positions only grow",
        """SELECT concat(topic, '-', "partition"), concat('goes from ', earlier, ' to ', "next")
        FROM (SELECT *, lag("next") OVER (PARTITION BY topic, "partition" ORDER BY rowid) AS earlier
              FROM position)
        WHERE "next" <= earlier OR "next" < 0""",
    ),
    Check(
        "position.missing",
        "each partition of the ledger has a position",
        """SELECT concat(topic, '-', "partition"), 'ranges of it are stored, and no position'
        FROM (SELECT DISTINCT topic, "partition" FROM ledger)
        WHERE "partition" NOT IN (SELECT "partition" FROM position)""",
    ),
    Check(
        "provenance.missing",
        "each row's provenance is explained",
        """SELECT spot(source_topic, source_partition, source_offset),
               concat('provenance ', provenance, ' is not in its table')
        FROM events WHERE provenance NOT IN (SELECT id FROM provenance)""",
    ),
    Check(
        "retained.returned",
        "nothing that was retained came back",
        """SELECT spot(a.topic, a."partition", a.place),
               concat('retain dropped this ', kind, ', and it is here')
        FROM addresses AS a ASOF JOIN retained AS r ON a.topic = r.topic
            AND a."partition" = r."partition" AND a.place >= r."first"
        WHERE a.place < r."next" """,
    ),
    Check(
        "retained.stray",
        "the ledger covers what was retained",
        """SELECT span(r.topic, r."partition", r."first", r."next"),
               'was retained, and the ledger does not cover it'
        FROM retained AS r ASOF LEFT JOIN ledger AS l ON r.topic = l.topic
            AND r."partition" = l."partition" AND r."first" >= l."first"
        WHERE NOT coalesce(r."next" <= l."next", false)""",
    ),
)
DEEP = Check(
    "file.damaged",
    "every value can be read",
    """SELECT '', '' FROM (SELECT sum(hash(events)::HUGEINT) AS total FROM events
    UNION ALL SELECT sum(hash(dead)::HUGEINT) FROM dead) WHERE total < 0""",
)
_TOTALS = """SELECT (SELECT count(*) FROM events) AS "rows", (SELECT count(*) FROM dead) AS dead,
    (SELECT coalesce(sum(lost), 0)::BIGINT FROM ledger) AS lost,
    (SELECT coalesce(sum("rows"), 0)::BIGINT FROM retained) AS retained"""


@dataclass(slots=True)
class Report:
    """What a verification found; ``as_dict`` is what it says in JSON."""

    totals: Mapping[str, int]
    holes: Sequence[str]
    findings: list[Mapping[str, str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, code: str, found: Sequence[Sequence[Any]], count: int) -> None:
        """What one check found, listed up to a limit and counted."""
        if not count:
            return
        self.counts[code] = self.counts.get(code, 0) + count
        self.findings += [{"code": code, "where": where, "what": what} for where, what in found]

    def as_dict(self) -> dict[str, Any]:
        """``ok``, totals, the first findings, and how many there are of each kind."""
        return {
            "ok": not self.counts,
            **self.totals,
            "holes": list(self.holes),
            "findings": self.findings,
            "counts": self.counts,
        }


def verify(
    connection: duckdb.DuckDBPyConnection,
    window: Window,
    *,
    deep: bool = False,
) -> Iterator[Mapping[str, Any]]:
    """Check everything in one read transaction, which ends with the generator.

    Args:
        connection: a cursor of its own whose current database is the store.
        window: what is promised of ids now.
        deep: read every value of every row too.

    Yields:
        ``{"check", "at", "of"}`` before each check, then ``Report.as_dict()`` with ``done``.
    """
    checks = (*CHECKS, *([DEEP] if deep else ()))
    connection.begin()
    try:
        _prepare(connection)
        report = _report(connection)
        for at, check in enumerate(checks):
            yield {"check": check.about, "at": at, "of": len(checks)}
            try:
                _run(connection, check, window, report)
            except duckdb.OutOfMemoryException:
                raise
            except duckdb.Error as error:
                text = str(error).partition("\n")[0]
                report.add("file.damaged", [(check.about, text)], 1)
                break  # DuckDB answers nothing more in this transaction
    finally:
        connection.rollback()
    yield {"done": True, **report.as_dict()}


def failure(report: Mapping[str, Any], path: str) -> StreamappError | None:
    """The error that a report amounts to, if it found something.

    Reject (exit 65): events are missing or repeated.  Halt (exit 70): the store contradicts itself.
    """
    counts: Mapping[str, int] = report["counts"]
    if not counts:
        return None
    said = ", ".join(f"{count:,} {code}" for code, count in counts.items())
    if counts.keys() <= {HOLE, _REPEATED}:
        fix = "a later record may fill a hole; else `streamapp store rebuild` reads the topic again"
        return Reject("store.incomplete", f"{path}: {said}", fix)
    fix = "go back to a backup, or `streamapp store rebuild`; and report it"
    return Halt("store.broken", f"{path}: {said}", fix)


def _report(connection: duckdb.DuckDBPyConnection) -> Report:
    (row,) = connection.execute(_TOTALS).fetchall()
    totals = dict(zip(("rows", "dead", "lost", "retained"), row, strict=True))
    holes = [str(hole) for hole in recall.read_ledger(connection).holes()]
    report = Report(totals, holes)
    listed = [(hole, "no record of it was stored") for hole in holes[:LISTED_MAX]]
    report.add(HOLE, listed, len(holes))
    return report


def _run(
    connection: duckdb.DuckDBPyConnection, check: Check, window: Window, report: Report
) -> None:
    parameters = {}
    if check.code == _REPEATED:
        if not all(window):
            return
        parameters = {"span_s": window.dedup_window_s, "events_max": window.dedup_window_events}
    wrong = connection.sql(check.sql, params=parameters)
    if found := wrong.limit(LISTED_MAX).fetchall():
        ((count,),) = wrong.count("*").fetchall()
        report.add(check.code, found, count)


def _prepare(connection: duckdb.DuckDBPyConnection) -> None:
    tables = connection.execute(
        "SELECT count(*) FROM duckdb_columns() "  # of tables and of views
        "WHERE database_name = current_database() AND table_name = 'retained'"
    ).fetchall()
    for statement in (*([_NOTHING_RETAINED] if tables == [(0,)] else []), *_WORDS):
        connection.execute(statement).fetchall()
