"""Faust's acknowledgement, kept by ranges: a commit never passes a record that was not processed.

Faust 0.15.3 keeps a list of acknowledged offsets and counts every jump between delivered offsets as
done, including the offset after the jump, so it can commit past an event nobody processed.  Here
each message covers a half-open range of offsets, from where its fetch began (or the previous record
ended) to just after its last record; acknowledging it adds that range, and a commit is the end of
the contiguous prefix.  Offsets that the log skips are therefore done exactly when the record after
them is.
"""

from abc import abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakSet

import faust
from faust.transport.consumer import Consumer
from faust.types import TP, ConsumerMessage, Message
from faust.types.tuples import ack_lock

from streamapp.core.errors import Refuse
from streamapp.core.ranges import OffsetRange, RangeSet
from streamapp.core.slice import RecordLike, Slice
from streamapp.transport.options import Options, is_joined, options_of


class SliceSchema(faust.Schema):  # type: ignore[misc]  # faust is untyped here
    """Hands an agent the Slice itself; there is nothing to decode."""

    def loads_key(self, *_arguments: Any, **_options: Any) -> None:
        """A Slice has no key of its own."""

    def loads_value(self, _app: Any, message: Any, **_options: Any) -> Any:
        return message.value


class Progress:
    """One partition since it was last positioned: what is done and how many messages are not.

    ``read`` is the end of what was delivered, ``committed`` of what the group committed.
    """

    __slots__ = ("_done", "_start", "committed", "in_flight", "read")

    def __init__(self, start: int, committed: int | None = None) -> None:
        self._start = start
        self._done = RangeSet()
        self.committed = start if committed is None else committed
        self.read = start
        self.in_flight = 0

    def finish(self, first: int, next_: int) -> None:
        """One message is done; it covered ``[first, next_)``."""
        self._done.add(first, next_)
        self.in_flight -= 1

    def skip(self, first: int, next_: int) -> None:
        """The log has nothing in ``[first, next_)``."""
        self._done.add(first, next_)

    @property
    def end(self) -> int:
        """What a commit may say: everything below it is done."""
        return self._done.prefix_end(self._start)


class RangedMessage(ConsumerMessage):  # type: ignore[misc]
    """A message that knows the offsets it stands for and the positioning it belongs to."""

    covers: tuple[int, int]
    progress: Progress | None


class _Unacknowledged(WeakSet[Any]):
    """The messages in work; says which one was just acknowledged.

    Faust acknowledges in ``Consumer.ack`` and, compiled, in ``StreamIterator.after``, which changes
    the consumer's fields without calling it.  Discarding the message from this set is the one step
    they share that has the message at hand.
    """

    on_discard: Callable[[Any], None]

    def discard(self, item: Any) -> None:
        super().discard(item)
        self.on_discard(item)


class _NoOffsets(set[int]):
    """Stands where Faust indexes acknowledged offsets: it never has one and keeps none."""

    def add(self, _offset: int, /) -> None:
        return


class _Forgetful(dict[TP, int | None]):
    """Stands where Faust keeps an offset per partition of its own account; it keeps none.

    What Faust read last it notes after the delivery, and what it committed after the commit: over
    what a ``seek`` wrote meanwhile.  Then it drops the records that the seek asked for, and ignores
    their acknowledgements.  Positions here are exact (:class:`Progress`), nothing is a repeat.
    """

    def __getitem__(self, _tp: TP) -> None:
        return None

    def __setitem__(self, _tp: TP, _offset: int | None) -> None:
        return

    def update(self, *_offsets: Any, **_more: Any) -> None:
        return


def slices_of(
    tp: tuple[str, int],
    position: int,
    records: Sequence[RecordLike],
    *,
    coalesce: bool,
    next_: int | None = None,
) -> list[Slice]:
    """What one fetch at ``position`` returned, as one Slice, or as one per record.

    Together they cover without a hole from ``position`` to ``next_``, where the next fetch begins:
    after the last record, or further on where the log skips offsets behind it.
    """
    topic, partition = tp
    last = records[-1]
    end = last.offset + 1 if next_ is None else next_
    if coalesce:
        return [Slice(OffsetRange(topic, partition, position, end), records)]
    slices = []
    for record in records:
        after = end if record is last else record.offset + 1
        slices.append(Slice(OffsetRange(topic, partition, position, after), (record,)))
        position = after
    return slices


class RangedConsumer(Consumer):  # type: ignore[misc]
    """A Faust consumer with exact acknowledgement and start positions: our transports' base.

    ``_getmany`` of a subclass returns :func:`slices_of` what it fetched.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._progress: dict[TP, Progress] = {}
        self._acked: Any = defaultdict(lambda: deque(maxlen=0))
        self._acked_index: Any = defaultdict(_NoOffsets)
        self._read_offset = _Forgetful()
        self._committed_offset = _Forgetful()
        self._unacked_messages = _Unacknowledged()
        self._unacked_messages.on_discard = self._acknowledged

    @property
    def options(self) -> Options:
        """What :func:`configure` set for the app."""
        return options_of(self.app)

    @abstractmethod
    async def _committed_positions(self, tps: set[TP]) -> dict[TP, int]:
        """Where to start without a better answer: committed, else by ``auto_offset_reset``."""

    def _room_again(self) -> None:
        """Called when a partition that held too many Slices may be fetched again."""

    def is_current(self) -> bool:
        """False when another member may have taken over what this one had, as far as is known here.

        For who is about to publish; what was put out cannot commit in any case.
        """
        return True

    # -- positions

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go to where work goes on: what ``start_positions`` answers, else the committed offset.

        Faust calls this when it has thrown its queues away (on assignment, after table recovery),
        so whatever was delivered and not acknowledged has to be delivered again, and what was still
        in work when the partitions were revoked no longer counts.
        """
        assigned = self.assignment()
        ours = {tp for tp in assigned if self.app.topics.acks_enabled_for(tp.topic)}
        start_positions = self.options.start_positions
        answers = await start_positions(ours) if start_positions is not None and ours else {}
        self._check_readers()
        positions = {TP(*tp): offset for tp, offset in answers.items() if tp in ours}
        await self._check_positions(positions)
        positions |= await self._committed_positions(assigned - positions.keys())
        for tp, offset in positions.items():
            await self._seek(tp, offset)
            # What the group committed is for lag tools: it is told where we really are, also when
            # nothing comes.
            told = None if tp.topic not in self.options.coalesce else -1
            self._progress[tp] = Progress(offset, told)
        return positions

    def _check_readers(self) -> None:
        """Refuse an agent that would get Slices where it wants records: all would fail, acked."""
        for channel in self.app.topics:
            mixed = self.options.coalesce.intersection(channel.topics)
            if mixed and not isinstance(channel.schema, SliceSchema):
                raise Refuse(
                    "transport.schema",
                    f"an agent takes single records of {min(mixed)!r}, but the topic is coalesced",
                    "read it by transport.slice_topic, or take it out of coalesce",
                )

    async def _check_positions(self, positions: Mapping[TP, int]) -> None:
        """Raise when a position that ``start_positions`` gave cannot be."""

    async def seek(self, partition: TP, offset: int) -> None:
        await super().seek(partition, offset)
        self._progress[partition] = Progress(offset)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await super().on_partitions_revoked(revoked)
        if revoked:
            await self.commit()
        for tp in revoked:
            self._progress.pop(tp, None)

    # -- delivery

    def _may_fetch(self, tp: TP) -> bool:
        """False while the agent holds as many Slices of this partition as it may."""
        progress = self._progress.get(tp)
        return (
            progress is None
            or tp.topic not in self.options.coalesce
            or progress.in_flight < self.options.slices_in_flight_max
        )

    def _to_message(self, tp: TP, record: Slice) -> RangedMessage:
        head = record.records[0]
        coalesced = tp.topic in self.options.coalesce
        message = RangedMessage(
            tp.topic,
            tp.partition,
            record.offset if coalesced else head.offset,
            head.timestamp / 1000,
            getattr(head, "timestamp_type", 0),  # 0: Kafka's CreateTime
            [] if coalesced else list(head.headers),
            None if coalesced else head.key,
            record if coalesced else head.value,
            None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )
        message.covers = record.range.first, record.range.next
        message.progress = None
        progress = self._progress.get(tp)
        if progress is not None and self.app.topics.acks_enabled_for(tp.topic):
            message.progress = progress
            progress.in_flight += 1
        return message

    # -- acknowledgement

    def _acknowledged(self, message: Message) -> None:
        """A message is done; called with ``ack_lock`` held, from any thread."""
        progress = self._progress.get(message.tp)
        if not isinstance(message, RangedMessage) or message.progress is not progress:
            return  # of before a revocation or a seek
        if not message.tracked and not self.app.flow_control.is_active():
            return  # no stream took it: uncompiled ones acknowledge what they skip while suspended
        if progress is not None:
            progress.finish(*message.covers)
            self._room_again()

    async def wait_empty(self) -> None:
        """Wait for the messages in work, except those that no stream will ever finish.

        Faust registers a reply topic twice and iterates it once, so its messages keep a reference
        for the channel nobody reads, and a process that asked an agent could not stop.
        """
        unread = {
            name for topic in self.app.topics if not topic.is_iterator for name in topic.topics
        }
        # A joined topic goes on where its output ends, and its agent drains by itself.
        self._unacked_messages -= {
            m for m in self._unacked_messages if m.topic in unread or is_joined(self.app, m.topic)
        }
        await super().wait_empty()

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps need no account of their own: ranges cover them."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (
            tp
            for tp in list(self._progress)
            if topics is None or tp in topics or tp.topic in topics
        )

    def _new_offset(self, tp: TP) -> int | None:
        with ack_lock:
            progress = self._progress.get(tp)
            return None if progress is None else progress.end

    def _should_commit(self, tp: TP, offset: int) -> bool:
        progress = self._progress.get(tp)
        return progress is not None and offset > progress.committed

    async def _commit_offsets(
        self, offsets: Mapping[TP, int], start_new_transaction: bool = True
    ) -> bool:
        positioned = {tp: self._progress.get(tp) for tp in offsets}
        committed: bool = await super()._commit_offsets(offsets, start_new_transaction)
        if committed:
            for tp, progress in positioned.items():
                if progress is not None:
                    progress.committed = offsets[tp]
        return committed


def partitions_of(tps: Iterable[TP]) -> set[str]:
    """The topics of partitions."""
    return {tp.topic for tp in tps}


def generation_of(app: Any) -> int:
    """The generation that this process may act in now; -1 when it may act in none.

    For who is about to publish: it costs about a microsecond.  On Faust's own transports it is what
    Faust knows, which may be a moment old.
    """
    consumer = app.consumer
    if isinstance(consumer, RangedConsumer) and not consumer.is_current():
        return -1
    return int(app.consumer_generation_id)
