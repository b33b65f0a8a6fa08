"""What stateful stages remember of one source partition, bounded and transactional.

Per stage and kind there is a map of at most ``cap`` keys in the order of their last put; the key
that was put longest ago goes first.  A batch works on an overlay: reads see what was put (and what
that evicted), the state beneath is untouched until ``commit``.  Every put is kept as a change, so
that the caller can publish it beside the rows.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

from streamapp.core.state import StateEntry
from streamapp.plugin import State


class _Put(NamedTuple):
    source_offset: int
    value: Any


class _Map(Protocol):
    """Keys in put order, oldest first."""

    def get(self, key: str) -> _Put | None: ...
    def keys(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...


class _Held:
    """A map that holds its puts itself."""

    __slots__ = ("cap", "puts")

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.puts: OrderedDict[str, _Put] = OrderedDict()  # a dict finds its oldest key slowly

    def get(self, key: str) -> _Put | None:
        return self.puts.get(key)

    def keys(self) -> Iterator[str]:
        return iter(self.puts)

    def __len__(self) -> int:
        return len(self.puts)

    def put(self, key: str, put: _Put) -> None:
        self.puts[key] = put
        self.puts.move_to_end(key)
        if len(self.puts) > self.cap:
            self.puts.popitem(last=False)


class _Laid:
    """Puts over a map that does not change meanwhile."""

    __slots__ = ("_cap", "_gone", "_kept", "_oldest", "_puts", "_under")

    def __init__(self, under: _Map, cap: int) -> None:
        self._under = under
        self._cap = cap
        self._puts: dict[str, _Put] = {}
        self._gone: set[str] = set()  # keys beneath that were put again or evicted
        self._oldest = under.keys()
        self._kept = len(under)  # keys beneath that are neither

    def get(self, key: str) -> _Put | None:
        put = self._puts.get(key)
        return put if put is not None or key in self._gone else self._under.get(key)

    def keys(self) -> Iterator[str]:
        beneath = (key for key in self._under.keys() if key not in self._gone)  # noqa: SIM118
        return chain(beneath, self._puts)

    def __len__(self) -> int:
        return self._kept + len(self._puts)

    def put(self, key: str, put: _Put) -> None:
        if key not in self._gone and self._under.get(key) is not None:
            self._gone.add(key)
            self._kept -= 1
        self._puts.pop(key, None)
        self._puts[key] = put
        if len(self) > self._cap:
            self._evict()

    def _evict(self) -> None:
        for key in self._oldest:
            if key not in self._gone:
                self._gone.add(key)
                self._kept -= 1
                return
        del self._puts[next(iter(self._puts))]


class _View:
    """One stage's State in an overlay."""

    __slots__ = ("_overlay", "_stage")

    def __init__(self, overlay: "Overlay", stage: str) -> None:
        self._overlay = overlay
        self._stage = stage

    def get(self, kind: str, key: str) -> Any | None:
        put = self._overlay.map(self._stage, kind).get(key)
        return None if put is None else put.value

    def put(self, kind: str, key: str, source_offset: int, value: Any) -> None:
        self._overlay.put(StateEntry(self._stage, kind, key, source_offset, value))


class Overlay:
    """Changes over a PartitionState or another Overlay; ``changes`` are all puts, in order."""

    def __init__(self, under: "PartitionState | Overlay", cap: int) -> None:
        self._under = under
        self._cap = cap
        self._maps: dict[tuple[str, str], _Laid] = {}
        self.changes: list[StateEntry] = []

    def view(self, stage: str) -> State:
        """What a stage gets as its state."""
        return _View(self, stage)

    def overlay(self) -> "Overlay":
        """Another one on top; this one must not change until that is committed or forgotten."""
        return Overlay(self, self._cap)

    def map(self, stage: str, kind: str) -> _Laid:
        """The keys of one kind of one stage."""
        name = stage, kind
        if name not in self._maps:
            self._maps[name] = _Laid(self._under.map(stage, kind), self._cap)
        return self._maps[name]

    def put(self, entry: StateEntry) -> None:
        """One change."""
        put = _Put(entry.source_offset, entry.value)
        self.map(entry.stage, entry.kind).put(entry.key, put)
        self.changes.append(entry)

    def commit(self) -> None:
        """Make the changes beneath, in order."""
        self._under.apply(self.changes)

    def apply(self, entries: Iterable[StateEntry]) -> None:
        """Changes that an overlay on this one made."""
        for entry in entries:
            self.put(entry)


class PartitionState:
    """What all stages remember of one source partition.

    Args:
        cap: keys remembered per stage and kind, at least 1.
    """

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._maps: dict[tuple[str, str], _Held] = {}

    def map(self, stage: str, kind: str) -> _Held:
        """The keys of one kind of one stage."""
        return self._maps.setdefault((stage, kind), _Held(self._cap))

    def overlay(self) -> Overlay:
        """A batch's changes; the state must not change until they are committed or forgotten."""
        return Overlay(self, self._cap)

    def apply(self, entries: Iterable[StateEntry]) -> None:
        """Replay changes in order, as read from the log or as an overlay made them."""
        for stage, kind, key, source_offset, value in entries:
            self.map(stage, kind).put(key, _Put(source_offset, value))

    def restore(self, entries: Iterable[StateEntry]) -> None:
        """Replace everything by a snapshot."""
        self._maps.clear()
        self.apply(entries)

    def snapshot(self) -> Sequence[StateEntry]:
        """Everything, by stage and kind, oldest put first; ``restore`` takes it back."""
        return [
            StateEntry(stage, kind, key, *put)
            for (stage, kind), held in sorted(self._maps.items(), key=lambda item: item[0])
            for key, put in held.puts.items()
        ]
