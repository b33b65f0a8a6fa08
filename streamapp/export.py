"""The exporter's process: what ``streamapp export`` runs."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from streamapp import compose
from streamapp.agents.exports.dead import Undelivered, replay, undelivered
from streamapp.agents.exports.exporter import check
from streamapp.agents.exports.post import Answer, Poster
from streamapp.agents.exports.serve import serve
from streamapp.agents.lanes import Log
from streamapp.core.clock import SYSTEM
from streamapp.core.config import Settings
from streamapp.core.exports import Export, project_exports
from streamapp.core.metrics import Metrics
from streamapp.topics.catalogue import ENRICHED, UNDELIVERED
from streamapp.transport import Reader
from streamapp.transport.clients import started


def log(settings: Settings) -> Log:
    """The log's clients, not started."""
    return Log(
        compose.reader(settings),
        compose.producer(settings),
        compose.admin(settings),
        compose.members(settings),
    )


async def run(settings: Settings, on_ready: Callable[[str], None] | None = None) -> None:
    """Post what the project file's exports match, until a signal.

    Raises:
        Refuse: a declaration is wrong.
    """
    await serve(
        project_exports(),
        compose.plan(settings).columns(),
        log(settings),
        Metrics(),
        port=settings.export_port,
        drain_s=settings.drain_s,
        prepare=lambda: compose.ensure_topics(settings),
        on_ready=on_ready,
    )


class Standing(NamedTuple):
    """One export and how far it is; ``behind`` in records of the enriched topic, None: unknown."""

    name: str
    webhook: str
    where: str
    behind: int | None
    dead: int


async def standing(settings: Settings, exports: Mapping[str, Export]) -> list[Standing]:
    """Each declared export, its condition and columns checked.

    Raises:
        Refuse: a condition or a column that is not there.
    """
    columns = compose.plan(settings).columns()
    for export in exports.values():
        check(export, columns)
    clients = log(settings)
    async with started(clients.reader), started(clients.admin):
        topics = await clients.admin.topics()
        dead = Counter(one.export for one in await _letters(clients.reader, topics))
        parts = range(topics[ENRICHED].partitions if ENRICHED in topics else 0)
        ends = {part: (await clients.reader.bounds(ENRICHED, part))[1] for part in parts}
        found = []
        for name, export in exports.items():
            done = await clients.admin.committed(export.group)
            lags = [
                max(end - done[ENRICHED, p], 0) for p, end in ends.items() if (ENRICHED, p) in done
            ]
            behind = sum(lags) if len(lags) == len(ends) else None
            found.append(Standing(name, export.webhook_url, export.where, behind, dead[name]))
    return found


async def letters(settings: Settings, name: str | None) -> list[Undelivered]:
    """Messages that nobody took and nobody replayed, the oldest first."""
    clients = log(settings)
    async with started(clients.reader), started(clients.admin):
        return await _letters(clients.reader, await clients.admin.topics(), name)


async def replayed(
    settings: Settings, exports: Mapping[str, Export], name: str | None, offsets: Collection[int]
) -> list[tuple[Undelivered, Answer]]:
    """Post them once more; of those with ``offsets``, or all."""
    clients = log(settings)
    outcomes = []
    async with started(clients.reader), started(clients.admin), started(clients.producer):
        poster = Poster(SYSTEM)
        try:
            for one in await _letters(clients.reader, await clients.admin.topics(), name):
                if offsets and one.offset not in offsets:
                    continue
                export = exports.get(one.export)
                if export is None or not export.webhook_url:
                    answer = Answer("failed", f"[exports.{one.export}] has no webhook_url")
                else:
                    answer = await replay(one, export, clients.reader, clients.producer, poster)
                outcomes.append((one, answer))
        finally:
            await poster.close()
    return outcomes


async def _letters(
    reader: Reader, topics: Mapping[str, object], name: str | None = None
) -> list[Undelivered]:
    return await undelivered(reader, name) if UNDELIVERED in topics else []
