"""Readers of a ring: any number, read-only, never in the writer's way, told what they lost."""

import os
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Literal, NamedTuple, Self, TypedDict

import numpy as np

from streamapp.core import clock
from streamapp.core.errors import Refuse
from streamapp.ring import files
from streamapp.ring.engine import EngineName, Mapping
from streamapp.ring.frames import Frames
from streamapp.ring.layout import HEADER_DTYPE, RECORD_DTYPE, Array, State
from streamapp.ring.records import SourcePosition
from streamapp.ring.writer import positions_of

#: While waiting, a reader looks this often whether another file has come to its path.
_LOOK_S = 0.25
_SPIN_NS = 20_000

Start = Literal["oldest", "latest"]


class RingStat(TypedDict):
    """What a ring is doing, as its header says."""

    path: str
    capacity: int
    dim: int
    dtype: str
    file_bytes: int
    base: int
    head: int
    claim: int
    epoch: int
    state: str
    frames: int
    void_frames: int
    recoveries: int
    heartbeat_mono_ns: int
    last_commit_unix_us: int
    writer_pid: int
    writer_alive: bool
    sources: list[SourcePosition]


class RingViews(NamedTuple):
    """Read-only views of the whole ring, without a copy: rows may change under the reader's eyes.

    Row seq is at slot ``seq % capacity``.  What was computed from it holds if, afterwards,
    :meth:`RingReader.claim` is at most seq + capacity and the stamp, copied before, was 2 * seq +
    2.
    """

    records: Array
    semantic: Array


class RingReader:
    """Reads frames in order and counts what it lost.  Use one reader per thread.

    Attributes:
        position: the frame id that comes next.
        lost: frames overwritten before this reader came to them.
        void: frames that a killed writer never finished.
    """

    def __init__(self, path: Path, mapping: Mapping, engine: EngineName, start: Start) -> None:
        self.path = path
        self.lost = self.void = 0
        self._engine: EngineName = engine
        self._map = mapping
        self.position = mapping.word("head") if start == "latest" else _oldest(mapping)

    @classmethod
    def open(cls, path: Path | str, *, start: Start = "oldest", engine: EngineName = "c") -> Self:
        """Map the ring at ``path`` read-only and stand at its oldest frame, or behind its latest.

        Raises:
            Refuse: no ring there, not a ring, not to be trusted, or from before a reboot
            (``ring.file``,
                ``ring.layout``, ``ring.stale``); or the C engine is not built (``ring.not_built``).
        """
        path = Path(path)
        return cls(path, _map(path, engine), engine, start)

    def read(self, max_rows: int = 256, timeout_s: float = 0.0) -> Frames:
        """The next frames, at most ``max_rows``; waits up to ``timeout_s`` for the first of them.

        May be empty: nothing came, or all that came was lost or void (counted in the result).
        """
        self._wait(timeout_s)
        head = self._map.word("head")
        n = max(0, min(max_rows, self._map.spec.capacity, head - self.position))
        frames, self.position = self._copy(self.position, n)
        self.lost += frames.lost
        self.void += frames.void
        return frames

    def follow(self, max_rows: int = 256, idle_s: float | None = None) -> Iterator[Frames]:
        """Frames as they come, batch by batch; ends when none came for ``idle_s`` (None: never)."""
        last_s = clock.monotonic_s()
        while True:
            frames = self.read(max_rows, _LOOK_S if idle_s is None else min(idle_s, _LOOK_S))
            if len(frames) or frames.lost or frames.void:
                yield frames
                last_s = clock.monotonic_s()
            elif idle_s is not None and clock.monotonic_s() - last_s >= idle_s:
                return

    def latest(self, n: int = 1) -> Frames:
        """The newest ``n`` frames; a look that moves no position and counts nothing."""
        head = self._map.word("head")
        n = max(0, min(n, self._map.spec.capacity, head - _oldest(self._map)))
        return self._copy(head - n, n)[0]

    def views(self) -> RingViews:
        """The ring itself, read-only; the views stay usable when the reader is gone."""
        return RingViews(self._map.records, self._map.semantic)

    def claim(self) -> int:
        """First frame id that the writer has not begun: load it after using :meth:`views`."""
        return self._map.word("claim")

    @property
    def lag(self) -> int:
        """Frames between this reader and the newest."""
        return max(0, self._map.word("head") - self.position)

    def stat(self) -> RingStat:
        """What the ring is doing now."""
        spec, word = self._map.spec, self._map.word
        return {
            "path": str(self.path),
            "capacity": spec.capacity,
            "dim": spec.dim,
            "dtype": spec.dtype,
            "file_bytes": self._map.geometry.file_bytes,
            "base": word("base"),
            "head": word("head"),
            "claim": word("claim"),
            "epoch": word("epoch"),
            "state": _state_name(word("state")),
            "frames": word("frames"),
            "void_frames": word("void_frames"),
            "recoveries": word("recoveries"),
            "heartbeat_mono_ns": word("heartbeat_mono_ns"),
            "last_commit_unix_us": word("last_commit_unix_us"),
            "writer_pid": word("writer_pid"),
            "writer_alive": files.writer_alive(self.path),
            "sources": positions_of(self._map),
        }

    def _copy(self, want: int, n: int) -> tuple[Frames, int]:
        spec = self._map.spec
        records = np.empty(n, RECORD_DTYPE)
        semantic = np.empty((n, spec.dim), spec.dtype)
        kept, following, lost, void = self._map.ops.read(want, records, semantic)
        return Frames(records[:kept], semantic[:kept], lost, void), following

    def _wait(self, timeout_s: float) -> None:
        end_s = clock.monotonic_s() + timeout_s
        left_s = timeout_s
        while True:
            slice_ns = int(min(max(left_s, 0.0), _LOOK_S) * 1e9)
            if self._map.ops.wait(self.position, _SPIN_NS, slice_ns) > self.position:
                return
            # Nothing more is in this file: is it still the ring?
            if files.replaced(self.path, self._map.identity):
                self._reopen()
                continue
            left_s = end_s - clock.monotonic_s()
            if left_s <= 0:
                return
            if self._map.word("state") == State.RETIRED:  # and the new file is gone: do not spin
                sleep(min(left_s, _LOOK_S))

    def _reopen(self) -> None:
        """Go on in the file that took this one's place.

        The same ring in another shape has the same uuid and its ids go on; one begun anew is read
        from its oldest.
        """
        before = bytes(self._map.header["ring_uuid"])
        self._map = _map(self.path, self._engine)
        if bytes(self._map.header["ring_uuid"]) != before:
            self.position = _oldest(self._map)

    def close(self) -> None:
        """Let go of the mapping; it ends when the last view of it does."""
        self.__dict__.pop("_map", None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _oldest(mapping: Mapping) -> int:
    return max(mapping.word("claim") - mapping.spec.capacity, mapping.word("base"))


def _state_name(state: int) -> str:
    names = {item.value: item.name.lower() for item in State}
    return names.get(state, f"unknown {state}")


def _map(path: Path, engine: EngineName) -> Mapping:
    fd, geometry, page = files.open_checked(path, writable=False)
    try:
        header = np.frombuffer(page, HEADER_DTYPE, 1)[0]
        if bytes(header["boot_id"]) != files.boot_id():
            raise Refuse(
                "ring.stale",
                f"the ring {path} is from before this machine's last start",
                "start the terminal process, which builds it anew",
            )
        return Mapping(fd, geometry, writable=False, engine=engine)
    finally:
        os.close(fd)
