"""The topics of an installed agent, and the ``faust -A`` commands that make and show them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from click import IntRange
from faust.cli import AppCommand, option

from streamapp.agents.log import AppLog
from streamapp.agents.outcome import guarded
from streamapp.agents.twin import json_twin
from streamapp.core.batch import Batch
from streamapp.core.counted import counted
from streamapp.core.errors import Refuse
from streamapp.topics.catalogue import CONTEXT_BYTES, DEAD, ENRICHED, RAW, TWIN, Catalogue
from streamapp.topics.enriched import decode
from streamapp.transport import Reader, TopicSpec

#: Enriched records looked through for a partition's last rows.
RECORDS_BACK = 64


@dataclass(frozen=True, slots=True)
class Route:
    """From where to where an agent works; ``partitions`` are those of a source made anew.

    ``twin`` is the topic of the JSON twin, empty where there is none.
    """

    source: str
    enriched: str
    dead: str
    twin: str
    partitions: int


async def declare(
    log: AppLog, routes: Sequence[Route], catalogue: Catalogue, *, create: bool = True
) -> dict[str, tuple[int, bool]]:
    """Have the routes' topics: by name their partitions, and whether each was created now.

    What the catalogue says of raw, enriched and dead topics holds for these.  An enriched topic has
    as many partitions as its source.

    Raises:
        Refuse: a topic is missing and ``create`` is False; an enriched topic has other partitions
            than its source; it or the dead topic takes smaller records than it has to.
        Retry: the log does not answer.
    """
    admin = log.admin()
    await admin.start()
    try:
        there = dict(await admin.topics())
        done: dict[str, tuple[int, bool]] = {}
        for route in routes:
            for wanted in _wanted(route, there, catalogue):
                if wanted.name not in there and not create:
                    raise Refuse(
                        "topic.missing",
                        f"{log.url} has no topic {wanted.name}, and topic_allow_declare is off",
                        "create it: faust -A YOUR_APP streamapp-topics",
                    )
                made = wanted.name not in there and await admin.create(wanted)
                _check(there.get(wanted.name, wanted), wanted, route)
                done[wanted.name] = there.get(wanted.name, wanted).partitions, made
        return done
    finally:
        await admin.stop()


def _wanted(route: Route, there: dict[str, TopicSpec], catalogue: Catalogue) -> list[TopicSpec]:
    """Source, enriched, dead topic and JSON twin as they should be."""
    names = (RAW, ENRICHED, DEAD, *([TWIN] if route.twin else []))
    like = {name: TopicSpec(*catalogue[name].log_spec()) for name in names}
    source = there.get(route.source) or like[RAW]._replace(
        name=route.source, partitions=route.partitions
    )
    least = source.record_bytes_max + CONTEXT_BYTES
    return [
        source,
        like[ENRICHED]._replace(
            name=route.enriched,
            partitions=source.partitions,
            record_bytes_max=max(like[ENRICHED].record_bytes_max, least),
        ),
        like[DEAD]._replace(
            name=route.dead, record_bytes_max=max(like[DEAD].record_bytes_max, least)
        ),
        *(
            spec._replace(name=route.twin, partitions=source.partitions)
            for name, spec in like.items()
            if name == TWIN
        ),
    ]


def _check(found: TopicSpec, wanted: TopicSpec, route: Route) -> None:
    if found.name in {route.enriched, route.twin} and found.partitions != wanted.partitions:
        raise Refuse(
            "topic.partitions",
            f"{route.source} has {wanted.partitions} partitions and {found.name} "
            f"has {found.partitions}",
            "name another topic: partition p of an enriched one holds partition p of its source",
        )
    if found.record_bytes_max < wanted.record_bytes_max:
        raise Refuse(
            "topic.record_bytes_max",
            f"{found.name} takes records of {found.record_bytes_max:,} bytes, "
            f"{wanted.record_bytes_max:,} are needed",
            "raise its max.message.bytes, or name another topic",
        )


def add_commands(app: Any, log: AppLog, routes: Sequence[Route], catalogue: Catalogue) -> None:
    """``faust -A APP streamapp-topics`` and ``streamapp-rows``; ``routes`` may still grow."""

    @app.command()
    async def streamapp_topics(self: AppCommand) -> None:
        """Create the topics of the installed stages where they are missing, and list them."""
        done = await guarded(declare(log, routes, catalogue))
        for name, (partitions, made) in done.items():
            self.say(
                f"{'created' if made else 'exists '}  {name}  {counted(partitions, 'partition')}"
            )

    @app.command(
        option(
            "--last",
            type=IntRange(min=1),
            default=10,
            show_default=True,
            help="Rows of each topic.",
        )
    )
    async def streamapp_rows(self: AppCommand, last: int) -> None:
        """Print the newest enriched rows, one JSON object a line."""
        done = await guarded(declare(log, routes, catalogue, create=False))
        reader = log.reader()
        await guarded(reader.start())
        for route in routes:
            partitions, _ = done[route.enriched]
            for line in await guarded(_rows(reader, route.enriched, partitions, last)):
                self.say(line)
        await reader.stop()


async def _rows(reader: Reader, topic: str, partitions: int, last: int) -> list[str]:
    """The newest rows of all partitions, oldest first."""
    found: list[tuple[int, str]] = []
    for partition in range(partitions):
        begin, end = await reader.bounds(topic, partition)
        at, rows = max(begin, end - RECORDS_BACK), list[tuple[int, str]]()
        while at < end:
            slice_ = await reader.read(topic, partition, at)
            if not slice_.records:
                break
            for record in slice_.records:
                enriched = decode(record)
                twin = json_twin(Batch(enriched.rows, enriched.cover.range), 64 << 20)
                rows += [(one.timestamp_ms or 0, (one.value or b"").decode()) for one in twin]
            at = slice_.range.next
        found += rows[-last:]
    return [line for _, line in sorted(found)[-last:]]
