"""What the log took, looked at afterwards: newest events, and what each type looks like.

A request only leaves its records here.  A task goes through them four times a second, and looks
into as many as it has time for; the others are counted.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec

from streamapp.core.clock import Clock
from streamapp.core.packed import value_bytes
from streamapp.gateway.config import Learning
from streamapp.gateway.plain import Events
from streamapp.gateway.schemas.guess import EXAMINED_MIN, HEADER, Guess
from streamapp.gateway.schemas.learned import Learned
from streamapp.gateway.schemas.recent import RECENT_MAX, Newest
from streamapp.gateway.schemas.rules import Letter
from streamapp.gateway.schemas.shape import Shape
from streamapp.transport.bundle import Bundle
from streamapp.transport.clients import Address, Outgoing

#: Looked into each second: of one type, and of all.
LOOKS_MAX, LOOKS_ALL_MAX = 200, 1_000
#: Larger events are counted only.
_VALUE_BYTES_MAX = 65_536
#: What may wait to be looked at; requests go on without.
_WAITING_BYTES_MAX, _WAITING_EVENTS_MAX = 32 << 20, 100_000
_TICK_S = 0.25
_EVENTS_PER_TURN, _LOOKS_PER_TURN = 512, 50
#: Where ``stamp`` puts the header of the type, and how many it makes of every event.
_TYPE_AT, _HEADERS_MIN = 3, 6
_decode = msgspec.json.Decoder(dict[str, Any]).decode


#: Records of a request, where each is, the bytes of their values, and when they were sent.
_Group = tuple[Sequence[Outgoing], Sequence[Address], int, int]


class Watch:
    """Looks at what was sent.

    Args:
        topics: whose records are events.
        learned: gets what is seen.
        learning: whether it does, and whether it keeps samples.
        clock: for the times at which events came.
    """

    def __init__(
        self, topics: Collection[str], learned: Learned, learning: Learning, clock: Clock
    ) -> None:
        self._topics = topics
        self.learned = learned
        self.guess = Guess()
        self._learning = learning
        self._clock = clock
        self.newest = Newest()
        self._waiting: deque[_Group] = deque()
        self._waiting_bytes = self._waiting_events = 0
        self._turn = asyncio.Lock()
        self._looks: Counter[bytes] = Counter()
        self._looks_since_s = float("-inf")
        self._guessed_version = -1
        #: Events that came too fast to be counted.
        self.unseen = 0

    def sent(self, topic: str, records: Sequence[Outgoing], addresses: Sequence[Address]) -> None:
        """Note what the log has now; see ``delivery.OnSent``."""
        if topic not in self._topics and not isinstance(records[0], Letter):
            return
        if isinstance(records, list) or not isinstance(records, Bundle):
            nbytes = 0
            for record in records:
                nbytes += len(record.value or b"")
        else:
            nbytes = value_bytes(records.packed)
        waiting_bytes = self._waiting_bytes + nbytes
        waiting_events = self._waiting_events + len(records)
        if waiting_bytes > _WAITING_BYTES_MAX or waiting_events > _WAITING_EVENTS_MAX:
            self.unseen += len(records)
            return
        self._waiting_bytes, self._waiting_events = waiting_bytes, waiting_events
        self._waiting.append((records, addresses, nbytes, self._clock.now_us()))

    async def run(self) -> None:
        """Look at what comes, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            await self.catch_up()

    async def catch_up(self) -> None:
        """Look at all that waits."""
        async with self._turn:
            while self._waiting:
                records, kinds, received_us = self._next()
                for at in range(0, len(records), _EVENTS_PER_TURN):
                    some = slice(at, at + _EVENTS_PER_TURN)
                    self._learn(records[some], kinds[some], received_us)
                    await asyncio.sleep(0)

    def _next(self) -> tuple[Sequence[Outgoing], list[bytes], int]:
        """Records to learn from, of a turn's requests, their types, and when the last came."""
        records: list[Outgoing] = []
        received_us, is_off = 0, self._learning == "off"
        while self._waiting and len(records) < _EVENTS_PER_TURN:
            some, addresses, nbytes, sent_us = self._waiting[0]
            is_list = isinstance(some, list)  # a bundle is a turn of its own
            if records and not is_list:
                break
            self._waiting.popleft()
            self._waiting_bytes -= nbytes
            self._waiting_events -= len(some)
            received_us = sent_us
            if self._waiting_events < RECENT_MAX:  # else what comes behind takes its place
                self.newest.took(some, addresses, received_us)
            if is_off or isinstance(some[0], Letter):
                continue
            if not is_list:
                kinds = _kinds(some)
                if not isinstance(some, Events) or some.has_guesses:
                    some = list(some)  # each says whether its type was guessed
                return some, kinds, received_us
            records += some
        return records, _kinds(records), received_us

    def reconsider(self) -> None:
        """Guess by what is known now."""
        if self._guessed_version != self.learned.version:
            self._guessed_version = self.learned.version
            self.guess.learn(self.learned.all())

    def _learn(self, records: Sequence[Outgoing], kinds: Sequence[bytes], received_us: int) -> None:
        """Count a few events of any types, and look into as many as there is time for."""
        counts = Counter(kinds)
        shapes: dict[bytes, Shape] = {}
        news: set[bytes] = set()
        for kind, count in counts.items():
            shape = self.learned.own(kind.decode(), received_us)
            if shape is None:
                continue
            shapes[kind] = shape
            if not shape.count:
                news.add(kind)
            shape.count += count
            shape.last_us = max(shape.last_us, received_us)
        guessed = _guessed(records)
        for kind in [kinds[place] for place in guessed]:
            if kind in shapes:
                shapes[kind].inferred += 1
        looks = self._looks_left(counts)
        for place in _looked_into(kinds, looks, guessed):
            kind = kinds[place]
            if kind in shapes and self._examine(shapes[kind], records[place].value or b""):
                news.add(kind)
        now_s = self._clock.monotonic_s()
        for kind in shapes:
            self.learned.touched(kind.decode(), now_s, is_new=kind in news)

    def _looks_left(self, counts: Counter[bytes]) -> dict[bytes, int]:
        """How many events of each type may be looked into; they are counted as if they were."""
        now_s = self._clock.monotonic_s()
        if now_s - self._looks_since_s >= 1:
            self._looks.clear()
            self._looks_since_s = now_s
        left, looks = min(LOOKS_ALL_MAX - self._looks.total(), _LOOKS_PER_TURN), {}
        for kind, count in counts.items():
            looks[kind] = max(min(count, LOOKS_MAX - self._looks[kind], left), 0)
            self._looks[kind] += looks[kind]
            left -= looks[kind]
        return looks

    def _examine(self, shape: Shape, value: bytes) -> bool:
        """True when the event taught something."""
        if len(value) > _VALUE_BYTES_MAX:
            return False
        try:
            event = _decode(value)
        except (msgspec.DecodeError, RecursionError):  # an Arrow row may be deeper than JSON may
            return False
        is_new = shape.examine(event, keep_sample=self._learning == "samples")
        return is_new or shape.examined == EXAMINED_MIN


def _looked_into(
    kinds: Sequence[bytes], looks: dict[bytes, int], guessed: set[int]
) -> Iterator[int]:
    """The places of the first events of each type, as many as there are looks for it."""
    left = sum(looks.values())
    for place, kind in enumerate(kinds):
        if not left:
            return
        if looks[kind] and place not in guessed:
            looks[kind], left = looks[kind] - 1, left - 1
            yield place


def _guessed(records: Sequence[Outgoing]) -> set[int]:
    """The places of those whose type was guessed; of packed ones none was."""
    if not isinstance(records, list):
        return set()
    return {
        place
        for place, record in enumerate(records)
        if len(record.headers) > _HEADERS_MIN and HEADER in record.headers
    }


def _kinds(records: Sequence[Outgoing]) -> list[bytes]:
    if isinstance(records, Events):
        return records.kinds()
    return [
        headers[_TYPE_AT][1]
        if len(headers := record.headers) > _TYPE_AT and headers[_TYPE_AT][0] == "ce_type"
        else dict(headers).get("ce_type", b"")
        for record in records
    ]
