"""All exports of a process: a member of each one's group, and lanes for what the group gives it."""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa

from streamapp.agents.exports.body import exported_columns
from streamapp.agents.exports.condition import ADDRESS, Condition
from streamapp.agents.exports.courier import Courier
from streamapp.agents.exports.lane import Lane, Work
from streamapp.agents.exports.plans import Plans
from streamapp.agents.exports.post import Pace, Poster
from streamapp.agents.exports.target import Target
from streamapp.agents.lanes import Lanes, Log, stop_within
from streamapp.agents.outcome import persist
from streamapp.core.batch import EVENT_SCHEMA
from streamapp.core.clock import SYSTEM, Clock
from streamapp.core.errors import Reject
from streamapp.core.exports import (
    CONFIG_KEY,
    CONFIG_TOPIC,
    CONFIG_TYPE,
    DEFAULT,
    Changes,
    Export,
    checked_changes,
)
from streamapp.core.metrics import Metrics
from streamapp.core.slice import Slice
from streamapp.topics.catalogue import ENRICHED
from streamapp.transport.clients import Outgoing

_CONFIG_WAIT_MS = 1000
logger = logging.getLogger("streamapp")


def check(export: Export, columns: pa.Schema) -> None:
    """Its condition and its columns against those of the workflow.

    Raises:
        Refuse: ``export.where`` or ``export.columns``.
    """
    exported_columns(export, columns)
    Condition(export.name, export.where, columns).close()


class Exporter:
    """Runs the exports until it is stopped.

    Args:
        exports: by name.
        columns: of the workflow, beside those of every event.
        log: its clients.
        metrics: of this process.
        pace: waits between attempts.
        clock: for tests.

    Raises:
        Refuse: a condition or a column that is not there.
    """

    def __init__(
        self,
        exports: Mapping[str, Export],
        columns: pa.Schema,
        log: Log,
        metrics: Metrics,
        *,
        pace: Pace | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        for export in exports.values():
            check(export, columns)
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._pace = pace or Pace()
        self._poster = Poster(clock)
        self._plans = Plans(log.reader, log.producer)
        self._changes = Changes()
        #: Next record of the topic that says them.
        self._config_at = 0
        self._configuring = asyncio.Lock()
        self._runs = [self._run(export, columns) for export in exports.values()]
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> dict[str, bool]:
        """Which exports hold their share of partitions."""
        return {run.name: run.lanes.holds for run in self._runs}

    @property
    def states(self) -> dict[str, str]:
        """Each export's ``Target.state``."""
        return {run.name: run.target.state for run in self._runs}

    async def run(self) -> None:
        """Until cancelled, or a lane ends with an error of ours.

        Raises:
            StreamappError: Halt or Refuse of a lane.
        """
        self._tasks = [asyncio.create_task(run.lanes.run()) for run in self._runs]
        default = next((run.target for run in self._runs if run.name == DEFAULT), None)
        self._tasks.append(asyncio.create_task(self._follow_config(default)))
        waiting = set(self._tasks)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def stop(self, wait_s_max: float) -> None:
        """Finish the attempts that are under way, commit, leave the groups."""
        await stop_within(wait_s_max, *(run.lanes.finish() for run in self._runs))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for run in self._runs:
            await run.lanes.leave()
        await self._poster.close()

    def _run(self, export: Export, columns: pa.Schema) -> "_Run":
        schema = pa.schema([*ADDRESS, *EVENT_SCHEMA, *columns])
        target = Target(export, self._metrics.export_disabled.labels(export.name))
        run = _Run(export, target, self._log)
        run.work = Work(
            courier=Courier(
                target, self._poster, self._pace, self._log.producer, self._metrics, self._clock
            ),
            columns=schema,
            names=exported_columns(export, columns),
            condition=lambda: Condition(export.name, export.where, columns),
            reader=self._log.reader,
            plans=self._plans,
            metrics=self._metrics,
            clock=self._clock,
            committed=run.lanes.committed,
            commit=run.lanes.commit,
            reconfigure=partial(self._reconfigure, export)
            if export.name == DEFAULT and export.config_events
            else None,
        )
        return run

    async def _follow_config(self, target: Target | None) -> None:
        """What clients change of the default export."""
        if target is None or CONFIG_TOPIC not in await self._log.admin.topics():
            return
        known = Changes()
        while True:
            async with self._configuring:
                await persist("export", self._catch_up, self._metrics)
            if self._changes != known:
                known = self._changes
                target.change(known)
            await persist("export", self._config_news, self._metrics)

    async def _catch_up(self) -> bool:
        """Read what clients have changed, to the end."""
        begin, end = await self._log.reader.bounds(CONFIG_TOPIC, 0)
        at = max(begin, self._config_at)
        while at < end:
            slice_ = await self._log.reader.read(CONFIG_TOPIC, 0, at)
            if slice_.records:
                self._take_config(slice_.records[-1].value)
            if slice_.range.next <= at:
                break  # compaction took what was last
            at = slice_.range.next
        self._config_at = at
        return True

    def _take_config(self, value: bytes | None) -> None:
        try:
            self._changes = Changes.decode(value)
        except msgspec.DecodeError as error:
            logger.error("%s holds what is no configuration: %s", CONFIG_TOPIC, error)  # noqa: TRY400

    async def _config_news(self) -> Slice:
        """Wait for a record behind those that were read, for a while."""
        return await self._log.reader.read(
            CONFIG_TOPIC, 0, self._config_at, wait_ms_max=_CONFIG_WAIT_MS
        )

    async def _reconfigure(self, declared: Export, given: Mapping[str, Any]) -> None:
        """An event that changes the default export: for all processes and for later ones."""
        if not given.keys() & set(Changes.__struct_fields__):
            return
        async with self._configuring:
            await self._catch_up()
            try:
                checked_changes(given, declared)
                merged = self._changes.merged(given)
            except (Reject, msgspec.ValidationError) as error:
                what = "[exports.%s] a %s event is not taken up: %s"
                logger.error(what, declared.name, CONFIG_TYPE, error)  # noqa: TRY400  # no traceback
                return
            record = Outgoing(
                msgspec.json.encode(merged), CONFIG_KEY, [("ce_type", CONFIG_TYPE.encode())], 0
            )
            await self._log.producer.send(CONFIG_TOPIC, [record])


class _Run:
    """One export."""

    work: Work

    def __init__(self, export: Export, target: Target, log: Log) -> None:
        self.name = export.name
        self.target = target
        told = f"[exports.{export.name}]"
        self.lanes = Lanes(log, export.group, ENRICHED, self._lane, told, target.news)

    def _lane(self, partition: int) -> Lane:
        return Lane(self.work, partition)
