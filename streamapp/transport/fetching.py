"""From what a log's driver fetched to what Faust delivers, the same for every log.

A driver says what follows the positions (:meth:`BatchingConsumer._fetch`); here it is gathered into
Slices, kept free of holes, and watched: a partition whose log grows while nothing is fetched is
positioned anew, and when that does not help the process ends, so that its supervisor restarts it.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from math import inf
from typing import Any, NamedTuple

from faust.types import TP
from faust.types.tuples import ack_lock
from mode import Service

from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Halt, Retry
from streamapp.core.slice import Slice
from streamapp.transport.acks import Progress, RangedConsumer, slices_of
from streamapp.transport.gather import Fetched, Gathering


class Room(NamedTuple):
    """What may be fetched of one partition; None: as much as the driver likes."""

    records_max: int | None
    bytes_max: int | None


class BatchingConsumer(RangedConsumer):
    """A consumer whose unit is what a fetch returned, for our drivers to complete."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        asked = self.options
        self._gathering: Gathering[TP] = Gathering(
            asked.batch_events_max,
            asked.batch_bytes_max,
            asked.batch_wait_ms_max / 1000,
            self._is_busy,
            self._is_active,
        )
        self._watched: dict[TP, _Watch] = {}
        self._answers = True
        self._asking = _Asking()
        #: Held while a partition is positioned, and while what was fetched is looked at.
        self._moving = asyncio.Lock()
        self._moves = 0
        self._moved_at: dict[TP, int] = {}

    @abstractmethod
    async def _fetch(self, wanted: Mapping[TP, Room], wait_s: float) -> Mapping[TP, Fetched]:
        """What follows the positions of the wanted partitions, which move behind it.

        Waits at most so long for the first record, less when :meth:`_nudge` is called.  A partition
        may come without records when the log goes on further than its position.
        """

    @abstractmethod
    def _nudge(self) -> None:
        """End the wait of a fetch; called from any thread."""

    # -- delivery

    async def _getmany(
        self,
        active_partitions: set[TP] | None,
        timeout: float,  # noqa: ASYNC109  # Faust's name
    ) -> dict[TP, list[Slice]] | None:
        """Slices of the active partitions, as soon as there are any that need not wait.

        None when flow was suspended meanwhile: the positions are back where delivery ended, so
        Faust need not go back to the committed offsets, which would do work twice.
        """
        deadline_s = monotonic_s() + timeout
        while True:
            grown_s = self._gathering.wait_s(now_s := monotonic_s())
            wait_s = min(deadline_s - now_s, inf if grown_s is None else grown_s)
            moves = self._moves
            self._asking.begin()
            try:
                fetched = await self._fetch(self._wanted(active_partitions), max(wait_s, 0.0))
            finally:
                self._asking.end()
            async with self._moving:
                slices = await self._accept(fetched, moves)
            if slices is None or slices or self.should_stop or monotonic_s() >= deadline_s:
                return slices

    async def _accept(
        self, fetched: Mapping[TP, Fetched], moves: int
    ) -> dict[TP, list[Slice]] | None:
        """What may be delivered of what was fetched since so many moves; the rest is read again."""
        moved = {
            tp
            for tp in fetched
            if self._moved_at.get(tp, 0) > moves
            and tp in self._progress
            and self.app.topics.acks_enabled_for(tp.topic)  # Recovery positions changelogs itself
        }
        for tp in moved:  # nobody knows whether it was read before or after the move
            await self._seek(tp, self._progress[tp].read)
        still = {tp: piece for tp, piece in fetched.items() if tp not in moved}
        if not self.flow_active:
            await self._undo({**self._gathering.all(), **still})
            return None
        again = {tp: piece for tp, piece in still.items() if self._is_out_of_step(tp, piece)}
        await self._undo(again)
        return self._slices({tp: still[tp] for tp in still.keys() - again.keys()})

    def _wanted(self, active: set[TP] | None) -> dict[TP, Room]:
        """Room of the partitions that may be fetched."""
        coalesce, records_max = self.options.coalesce, self.app.conf.broker_max_poll_records
        wanted = {}
        for tp in self.assignment() if active is None else self.assignment() & active:
            if tp.topic not in coalesce:
                wanted[tp] = Room(records_max, None)
            elif self._may_fetch(tp):
                wanted[tp] = Room(*self._gathering.room(tp))
        return wanted

    def _slices(self, fetched: Mapping[TP, Fetched]) -> dict[TP, list[Slice]]:
        now_s = monotonic_s()
        ready: dict[TP, Fetched] = {}
        for tp, piece in fetched.items():
            if tp.topic in self.options.coalesce:
                self._gathering.add(tp, piece, now_s)
            else:
                ready[tp] = piece
        ready |= self._gathering.ready(now_s)
        slices = {}
        for tp, found in ready.items():
            piece = self._in_step(tp, found)
            if piece.records:
                coalesce = tp.topic in self.options.coalesce
                slices[tp] = slices_of(
                    tp, piece.position, piece.records, coalesce=coalesce, next_=piece.next
                )
        return slices

    def _in_step(self, tp: TP, piece: Fetched) -> Fetched:
        """The piece from where delivery ended: what the log lost or skipped before it included."""
        progress = self._progress.get(tp)
        if progress is None or not self.app.topics.acks_enabled_for(tp.topic):
            return piece
        if piece.position < progress.read:
            self._starts_over(tp, progress.read, piece.position)
            progress = self._progress[tp]
        if piece.position > progress.read:
            self.log.warning(
                "%s-%d: %d records from offset %d on are gone: the log's retention was faster",
                *tp,
                piece.position - progress.read,
                progress.read,
            )
            piece = piece._replace(position=progress.read)
        with ack_lock:
            if not piece.records:
                progress.skip(piece.position, piece.next)
            progress.read = piece.next
        return piece

    def _starts_over(self, tp: TP, read: int, position: int) -> None:
        """The log has moved us back: only a topic that was made anew ends before what was read."""
        if self.options.start_positions is not None and tp.topic in self.options.coalesce:
            raise Halt(
                "position.outside",
                f"{tp.topic}-{tp.partition} was read up to {read} and begins again at {position}:"
                " the topic was deleted and made again",
                "restore the topic, or remove the state that was built from it",
            )
        self.log.warning("%s-%d begins again at %d: the topic was made anew", *tp, position)
        self._progress[tp] = Progress(position)

    async def _undo(self, fetched: Mapping[TP, Fetched]) -> None:
        """Go back to where delivery ended."""
        gathered = self._gathering.all()
        for tp, piece in fetched.items():
            self._gathering.drop(tp)
            await self._seek(tp, gathered.get(tp, piece).position)

    def _is_out_of_step(self, tp: TP, piece: Fetched) -> bool:
        """True for what has to be read again."""
        if tp.topic not in self.options.coalesce:
            return not self._is_active(tp)  # paused meanwhile: Faust would throw it away
        # The log has moved us (its retention was faster): what was gathered is read again from its
        # beginning, so that the loss shows as a hole.
        return not self._gathering.continues(tp, piece.position)

    def _is_active(self, tp: TP) -> bool:
        """Whether Faust takes what is delivered of a partition now."""
        return (
            self.app.client_only
            or tp in self._get_active_partitions()
            or tp in self._buffered_partitions
        )

    def _is_busy(self, tp: TP) -> bool:
        progress = self._progress.get(tp)
        return progress is not None and progress.in_flight > 0

    def _room_again(self) -> None:
        self._nudge()

    # -- positions

    async def seek_to_committed(self) -> Mapping[TP, int]:
        async with self._moving:
            positions = await super().seek_to_committed()
            self._forget({*self._gathering.all(), *positions})
        return positions

    async def seek(self, partition: TP, offset: int) -> None:
        async with self._moving:
            await super().seek(partition, offset)
            self._forget([partition])

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self._forget(revoked)
        await super().on_partitions_revoked(revoked)

    def _forget(self, tps: Iterable[TP]) -> None:
        """Partitions are elsewhere: what was fetched before does not continue what comes."""
        self._moves += 1
        for tp in list(tps):
            self._moved_at[tp] = self._moves
            self._gathering.drop(tp)
            self._watched.pop(tp, None)

    # -- the watchdog

    @Service.task
    async def _watchdog(self) -> None:
        while not self.should_stop:
            await self.sleep(self.options.stall_s_max / 4)
            if self.flow_active and not self.app.rebalancing and not self.app.in_recovery:
                await self._look_for_stalls()

    async def _look_for_stalls(self) -> None:
        """Compare where we are with where the log ends, and act on what stands still."""
        tps = [tp for tp in self._wanted(self._get_active_partitions()) if tp in self._progress]
        reads = {tp: self._progress[tp].read for tp in tps if tp not in self._gathering}
        try:
            ends = await self.highwaters(*reads) if reads else {}
        except Retry:
            if self._answers:  # once: it may take long, and is not for us to mend
                self.log.warning("the log does not answer; waiting for it")
            self._answers = False
            return
        if not self._answers:
            self.log.warning("the log answers again")
        self._answers = True
        # While an agent's queue is full Faust asks for nothing, of no partition: that is no stall.
        asked_s = self._asking.s
        for tp in self._watched.keys() - reads.keys():  # its agent has enough
            del self._watched[tp]
        for tp, read in reads.items():
            watch = self._watched.get(tp)
            if ends.get(tp, 0) <= read or watch is None or watch.read != read:
                self._watched[tp] = _Watch(read, asked_s, mended=False)
            elif asked_s - watch.since_s >= self.options.stall_s_max:
                await self._mend(tp, watch, ends[tp])

    async def _mend(self, tp: TP, watch: "_Watch", end: int) -> None:
        """A partition stands still: position it anew; when it was already, end the process.

        Raises:
            Retry: which crashes the app, as an error in any of its services does.
        """
        stall_s = self.options.stall_s_max
        if watch.mended:
            raise Retry(
                "consumer.stalled",
                f"{tp.topic}-{tp.partition}: nothing was fetched for {2 * stall_s:.0f} s from"
                f" offset {watch.read}, the log ends at {end}",
                "start the worker again (a supervisor does); it goes on where it stopped",
            )
        self.log.error(
            "%s-%d: nothing was fetched for %.0f s from offset %d, the log ends at %d:"
            " positioning it anew",
            *tp,
            stall_s,
            watch.read,
            end,
        )
        self._watched[tp] = _Watch(watch.read, self._asking.s, mended=True)
        async with self._moving:
            progress = self._progress.get(tp)
            if progress is not None and progress.read == watch.read:
                await self._seek(tp, watch.read)


class _Asking:
    """How long Faust has waited for fetches, in all."""

    def __init__(self) -> None:
        self._before_s = 0.0
        self._since_s: float | None = None

    def begin(self) -> None:
        """A fetch begins."""
        self._since_s = monotonic_s()

    def end(self) -> None:
        """It has ended."""
        self._before_s, self._since_s = self.s, None

    @property
    def s(self) -> float:
        """Seconds, the fetch that goes on included."""
        since_s = self._since_s
        return self._before_s + (0.0 if since_s is None else monotonic_s() - since_s)


class _Watch(NamedTuple):
    """What the watchdog saw of a partition: read up to here since so many seconds of asking."""

    read: int
    since_s: float
    mended: bool
