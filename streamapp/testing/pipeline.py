"""Stages on the way that an event takes in a worker, in memory and one step at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa

from streamapp.core.batch import EVENT_SCHEMA, Rejected
from streamapp.core.errors import Refuse
from streamapp.core.slice import Slice
from streamapp.plugin import Models, Stage, StageFactory
from streamapp.plugin.testing import HashModels
from streamapp.testing.clock import FakeClock
from streamapp.testing.log import MemoryLog
from streamapp.topics.catalogue import ENRICHED, RAW
from streamapp.topics.enriched import Cover, Enriched, decode, encode
from streamapp.topics.wire import decode_slice
from streamapp.transport.clients import Address, Outgoing, TopicSpec
from streamapp.workflow import PartitionState, Plan, Workflow
from streamapp.workflow.plan import OnStage
from streamapp.workflow.repeats import Repeats, identities

#: An event as a test writes it: its text, its JSON object, or the record's raw value.
Sent = str | bytes | Mapping[str, Any] | Outgoing | None

RAW_BYTES_MAX = 2 << 20
ENRICHED_BYTES_MAX = 64 << 20
EVENT_BYTES_MAX = 1 << 20
KEYS_MAX = 10_000


@dataclass(slots=True)
class _Partition:
    """Where a partition stands: what its stages remember, what went through, what is next."""

    state: PartitionState
    repeats: Repeats
    next: int = 0


@dataclass(slots=True)
class _Chosen:
    """What :meth:`Pipeline.use` was told."""

    names: list[str] = field(default_factory=list)
    factories: dict[str, StageFactory] = field(default_factory=dict)
    options: dict[str, Mapping[str, Any]] = field(default_factory=dict)


class Pipeline:
    """Log, wire, stages and enriched records: what is sent comes out as rows.

    Each call of :meth:`send` is one batch per partition.  Stages keep their state from call to
    call, and every row has been through an enriched record, as if a store had read it.  A repeat
    of an event (the same source and id) is dropped before the stages and counted in ``repeats``.

    Args:
        log: where raw and enriched records are kept, by the same clock.
        clock: stamps events, and reads the same until it is told to go on.
        models: what stages are opened with; None: vectors without weights.
        partitions: of the raw topic.
        event_bytes_max: a larger event is rejected.
        keys_max: keys that each kind of a stage's state holds per partition, and events of which a
            repeat is known.
        on_stage: told a stage's name, rows and seconds.
    """

    def __init__(
        self,
        *,
        log: MemoryLog | None = None,
        clock: FakeClock | None = None,
        models: Models | None = None,
        partitions: int = 1,
        event_bytes_max: int = EVENT_BYTES_MAX,
        keys_max: int = KEYS_MAX,
        on_stage: OnStage | None = None,
    ) -> None:
        self.clock = clock or FakeClock()
        self.log = log or MemoryLog(clock=self.clock)
        self.log.create(TopicSpec(RAW, partitions, RAW_BYTES_MAX))
        self.log.create(TopicSpec(ENRICHED, partitions, ENRICHED_BYTES_MAX))
        self._models = models or HashModels()
        self._event_bytes_max = event_bytes_max
        self._keys_max = keys_max
        self._on_stage = on_stage
        self.repeats = 0
        self._partitions = [
            _Partition(PartitionState(keys_max), Repeats(keys_max)) for _ in range(partitions)
        ]
        self._enriched: list[Enriched] = []
        self._chosen = _Chosen()
        self._plan = self._opened(self._chosen)

    def use(self, *stages: Stage | StageFactory | str, **options: Mapping[str, Any]) -> "Pipeline":
        """Run these stages on what is sent from now on, in place of those before.

        Their order follows from what they read and write, as in ``topics/workflow.toml``.

        Args:
            stages: what an entry point of ``streamapp.stages`` names, a stage, or the name of an
                installed one.
            options: a stage's options under its name: ``use(Intent, intent={"labels": ...})``.

        Raises:
            Refuse: a stage is unknown or refuses its options, or their columns do not fit together.
        """
        chosen = _Chosen(options=options)
        for stage in stages:
            name, factory = _named(stage, options)
            chosen.names.append(name)
            if factory is not None:
                chosen.factories[name] = factory
        for name in options:
            if name not in chosen.names:
                raise Refuse("stage.option", f"options for {name!r}, which is not used", "use it")
        before = self._plan
        self._plan = self._opened(chosen)
        self._chosen = chosen
        before.close()
        return self

    def send(self, *events: Sent, partition: int | None = None) -> list[dict[str, Any]]:
        """Append events to the log and run the stages on them.

        Args:
            events: a text, a JSON object, the bytes of a record's value, None for a tombstone, or
                a whole record.
            partition: where they go; None: by conversation, or anywhere without one.

        Returns:
            The rows that they became, without those that were rejected.

        Raises:
            Retry: a stage's; the events stay in the log for :meth:`run`.
            Halt: a stage's, or it returned other columns than it declares.
        """
        done = len(self._enriched)
        self.append(*events, partition=partition)
        self.run()
        return _rows(self._enriched[done:])

    def append(self, *events: Sent, partition: int | None = None) -> list[Address]:
        """Append events to the log and leave them there, for :meth:`run`."""
        return self.log.append(RAW, [_outgoing(event, partition) for event in events])

    def run(self) -> None:
        """Run the stages on what the log holds that they did not see, a batch per partition."""
        for number, partition in enumerate(self._partitions):
            while (slice_ := self.log.read(RAW, number, partition.next)).records:
                self._enrich(slice_, partition)

    def restart(self) -> None:
        """Forget everything in memory and go on from the log, as a worker does after a crash."""
        self._plan.close()
        self._plan = self._opened(self._chosen)
        for number, partition in enumerate(self._partitions):
            partition.state = PartitionState(self._keys_max)
            partition.repeats = Repeats(self._keys_max)
            for record in self._enriched:
                if record.cover.partition == number:
                    partition.state.apply(record.states)
                    partition.repeats.remember(identities(record.rows))

    def rows(self) -> list[dict[str, Any]]:
        """Every row until now, in the order in which they were made."""
        return _rows(self._enriched)

    def table(self) -> pa.Table:
        """Every row until now, as Arrow; a column that some stages did not write is null there."""
        none = pa.Table.from_batches([], pa.schema([*EVENT_SCHEMA, *self.columns()]))
        return pa.concat_tables(
            [*(pa.Table.from_batches([one.rows]) for one in self._enriched), none],
            promote_options="default",
        )

    def rejects(self) -> list[Rejected]:
        """Every event until now that failed: what it was, at which stage, and why."""
        return [reject for record in self._enriched for reject in record.rejects]

    def columns(self) -> pa.Schema:
        """What the stages add to an event."""
        return self._plan.columns()

    def close(self) -> None:
        """Free what the stages hold."""
        self._plan.close()

    def _opened(self, chosen: _Chosen) -> Plan:
        workflow = Workflow(path="use()", stages=tuple(chosen.names), options=chosen.options)
        plan = Plan(workflow, self._models, chosen.factories, self._on_stage)
        plan.open()
        return plan

    def _enrich(self, slice_: Slice, partition: _Partition) -> None:
        raw = {record.offset: record for record in slice_.records}
        decoded = decode_slice(slice_, event_bytes_max=self._event_bytes_max)
        events, _ = partition.repeats.without(decoded)
        batch, states = self._plan.run(events, partition.state, raw)
        partition.repeats.remember(identities(batch.rows))
        self.repeats += len(decoded) - len(events)
        cover = Cover(**batch.range._asdict(), rows=len(batch))
        record = Enriched(cover, batch.rows, tuple(states), batch.rejects, self._plan.provenance())
        value, headers = encode(record)
        published = Outgoing(value, headers=headers, partition=cover.partition)
        [address] = self.log.append(ENRICHED, [published])
        partition.next = slice_.range.next
        [read] = self.log.read(ENRICHED, address.partition, address.offset, records_max=1).records
        self._enriched.append(decode(read))


def _named(
    stage: Stage | StageFactory | str, options: Mapping[str, Any]
) -> tuple[str, StageFactory | None]:
    """A stage's name, and what makes it where it is not to be looked up."""
    if isinstance(stage, str):
        return stage, None
    if isinstance(stage, type):
        return str(stage.name), stage  # type: ignore[attr-defined]
    if isinstance(stage, Stage):
        if stage.name in options:
            raise Refuse(
                "stage.option",
                f"options for {stage.name!r}, which is made already",
                "give use() its class",
            )
        return stage.name, lambda _options: stage
    if callable(stage):
        return stage({}).name, stage
    raise Refuse("stage.type", f"{stage!r} is no stage", "give a stage, its class or its name")


def _outgoing(event: Sent, partition: int | None) -> Outgoing:
    if isinstance(event, Outgoing):
        return event
    if event is None or isinstance(event, bytes):
        return Outgoing(event, partition=partition)
    if isinstance(event, str):
        event = {"message": event}
    conversation = event.get("conversation_id") or event.get("conversation")
    key = str(conversation).encode() if conversation else None
    return Outgoing(msgspec.json.encode(event), key, partition=partition)


def _rows(records: Sequence[Enriched]) -> list[dict[str, Any]]:
    return [row for record in records for row in record.rows.to_pylist()]
