"""Readers of a ring: any number, read-only, never in the writer's way, told what they lost."""

import weakref
from collections.abc import Iterator
from math import isnan
from pathlib import Path
from time import sleep
from typing import Any, Literal, Self, SupportsIndex, cast, get_args

from streamapp.core import clock
from streamapp.core.errors import Refuse
from streamapp.ring import files
from streamapp.ring.arrivals import Arrivals, Watch
from streamapp.ring.engine import EngineName, Mapping
from streamapp.ring.frames import Frame, Frames
from streamapp.ring.layout import State
from streamapp.ring.opening import Closed, await_file, checked_id, map_readable, oldest
from streamapp.ring.origin import Origin, find_since, origin_of
from streamapp.ring.pool import Pool
from streamapp.ring.stat import RingStat, stat_of

#: While waiting, a reader looks this often whether another file has come to its path.
LOOK_S = 0.25
#: A look at the newest frames is begun anew so often when the writer laps it.
_LOOKS_MAX = 8

Start = Literal["oldest", "latest"]


class RingReader:
    """Reads frames in order and counts what it lost.  Use one reader per thread, or per task.

    Attributes:
        path: the ring's file.
        lost: frames overwritten before this reader came to them.
        void: frames that were never finished: by a writer that was killed, or gave them up.
    """

    def __init__(self, path: Path, mapping: Mapping, engine: EngineName, start: Start) -> None:
        self.path = path
        self.lost = self.void = 0
        self.closed = False
        self._engine: EngineName = engine
        self._watch = Watch()
        weakref.finalize(self, self._watch.stop)
        self._use(mapping)
        self._next = mapping.ops.head() if start == "latest" else oldest(mapping)

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        start: Start = "oldest",
        engine: EngineName = "c",
        wait: float | None = 0.0,
    ) -> Self:
        """Map the ring at ``path`` read-only and stand at its oldest frame, or behind its latest.

        Args:
            path: the ring's file.
            start: where to stand.
            engine: ``c``, or ``twin`` for the slow one in NumPy.
            wait: how many seconds to wait for a ring that nobody has made yet (None: for ever).

        Raises:
            Refuse: no ring there, not a ring, not to be trusted, or from before a reboot
                (``ring.file``, ``ring.layout``, ``ring.stale``); or the C engine is not built
                (``ring.not_built``), or ``start`` is no place (``ring.start``).
        """
        if start not in get_args(Start):
            raise Refuse("ring.start", f"a reader cannot start at {start!r}", "oldest or latest")
        path = Path(path)
        await_file(path, wait)
        return cls(path, map_readable(path, engine), engine, start)

    def read(self, max: int = 256, timeout: float | None = 0.0) -> Frames:  # noqa: A002  # as guessed
        """The next frames, at most ``max``; waits up to ``timeout`` seconds for the first of them.

        May be empty: nothing came, or all that came was lost or void (counted in the result).  With
        ``timeout=None`` it waits until something comes.

        Raises:
            Refuse: ``timeout`` is no number (``ring.timeout``).
        """
        lag = self._ops.head() - self._next
        if lag <= 0:
            self._wait(timeout)
            lag = self._ops.head() - self._next
        frames, self._next = self._copy(self._next, lag, max)
        if frames.lost or frames.void:
            self.lost += frames.lost
            self.void += frames.void
        return frames

    def follow(self, max: int = 256, idle_s: float | None = None) -> Iterator[Frames]:  # noqa: A002
        """Frames as they come, batch by batch; ends when none came for ``idle_s`` (None: never).

        Raises:
            Refuse: ``max`` is not at least 1 (``ring.batch``).
        """
        if max < 1:
            raise Refuse(
                "ring.batch", f"a ring cannot be followed by {max} frames", "give 1 or more"
            )
        while True:
            frames = self.read(max, idle_s)
            if len(frames) or frames.lost or frames.void:
                yield frames
            elif idle_s is not None:
                return

    def __aiter__(self) -> Arrivals:
        """Batches of up to 256 frames as they come, without blocking the event loop."""
        return Arrivals(self, self._watch)

    def latest(self, n: int = 1) -> Frames:
        """The newest ``n`` frames; a look that moves no position and counts nothing.

        Where another file took this one's place it looks there: see :meth:`renew`.
        """
        self.renew()
        for _ in range(_LOOKS_MAX):
            low, head = oldest(self._map), self._ops.head()  # so that low is not a lap ahead
            rows = min(n, head - low)
            frames = self._copy(head - rows, rows, rows)[0]
            if frames.lost < rows or rows <= 0:
                break  # else the writer overwrote all of them meanwhile
        return frames

    def since(self, topic: str, partition: int, offset: int) -> int:
        """Stand at the first frame that came from ``offset`` or later of a source partition.

        A reader that kept the origin of its last frame goes on where it was::

            topic, partition, offset = reader.origin(frame)
            ...
            missed = reader.since(topic, partition, offset + 1)

        When nothing so late is there yet, it stands behind the newest frame.

        Returns:
            How many source offsets from ``offset`` on are not in the ring any more: 0 when the
            ring still has a frame of that source from ``offset`` or before.  It is the most that
            may have been missed: an offset without a frame (an event that was rejected) counts
            too.  ``lost`` counts frames of this ring and does not change.

        Raises:
            Refuse: the ring has no such source (``ring.source``).
        """
        self.renew()
        self._next, missed = find_since(self._map, (topic, partition), offset)
        return missed

    def origin(self, frame: Frame) -> Origin | None:
        """Topic, partition and offset that a frame came from; None when it came from no log.

        To be asked before reading on: a ring that is begun anew numbers its sources anew.
        """
        return origin_of(self._map, frame)

    @property
    def mapping(self) -> Mapping:
        """The mapped file that is being read now."""
        return self._map

    @property
    def position(self) -> int:
        """The frame id that comes next; set it to read from elsewhere."""
        return self._next

    @position.setter
    def position(self, frame_id: SupportsIndex) -> None:
        self._next = checked_id(frame_id)

    @property
    def lag(self) -> int:
        """Frames between this reader and the newest."""
        return max(0, self._ops.head() - self._next)

    def stat(self) -> RingStat:
        """What the ring is doing now."""
        return stat_of(self.path, self._map)

    def _use(self, mapping: Mapping) -> None:
        self._map = mapping
        self._ops = mapping.ops
        self._capacity = mapping.spec.capacity
        self._names = tuple(mapping.columns)
        self._pool = Pool(mapping.spec, mapping.ops.spare)

    def _copy(self, want: int, lag: int, rows_max: int) -> tuple[Frames, int]:
        """At most ``rows_max`` of the ``lag`` frames from ``want`` on; and where to go on."""
        usual = 0 <= rows_max <= lag <= self._capacity  # min and max take as long as the copy
        n = rows_max if usual else max(0, min(rows_max, lag, self._capacity))
        records, arrays = self._pool.take(n)
        kept, following, lost, void = self._ops.read(want, records, arrays)
        frames = Frames(records, self._names, arrays, lost, void)
        return frames if kept == n else frames.upto(kept), following

    def _wait(self, timeout: float | None) -> None:
        if timeout is not None and isnan(timeout):
            raise Refuse(
                "ring.timeout", "a wait of nan seconds has no end", "give a number, or None"
            )
        end_s = None if timeout is None else clock.monotonic_s() + timeout
        left_s = LOOK_S if timeout is None else timeout
        while True:
            slice_s = min(max(left_s, 0.0), LOOK_S)
            if self._ops.wait(self._next, 0, int(slice_s * 1e9)) > self._next:
                return
            if files.replaced(self.path, self._map.identity):
                if self._ops.head() > self._next:
                    return  # committed just before the other file came
                self._go_on()
                continue
            left_s = LOOK_S if end_s is None else end_s - clock.monotonic_s()
            if left_s <= 0:
                return
            if self._map.word("state") == State.RETIRED:  # and the new file is gone: do not spin
                sleep(min(left_s, LOOK_S))

    def renew(self) -> bool:
        """Go on in the file that took this one's place, if one did; says whether it was so.

        The same ring in another shape has the same uuid and its ids go on; one begun anew is read
        from its oldest.  Reading calls this when there is nothing more in the file it knows.
        """
        there = files.replaced(self.path, self._map.identity)
        if there:
            self._go_on()
        return there

    def _go_on(self) -> None:
        before = bytes(self._map.header["ring_uuid"])
        self._use(map_readable(self.path, self._engine))
        if bytes(self._map.header["ring_uuid"]) != before:
            self._next = oldest(self._map)

    def close(self) -> None:
        """Let go of the mapping; it ends with the last array that is a view of it."""
        self._watch.stop()
        self.closed = True
        self._map = self._ops = self._pool = cast("Any", Closed(self.path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
