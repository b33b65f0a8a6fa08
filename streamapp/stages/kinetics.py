"""How a conversation moves: its pace, its interruptions, and how each message turned its topic.

Everything is on event time, per conversation, in offset order.  Rows are computed one by one and in
float64, so that the same events give the same bits however they are cut into batches.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from streamapp.plugin import (
    Batch,
    Columns,
    Halt,
    State,
    StatefulStage,
    float32,
    float32_vector,
    int32,
    vector_column,
)
from streamapp.stages.rotation import IDENTITY, Direction, directions, turn

HALF_LIFE_S = 60.0
#: One event, as a rate: what an isolated event adds, in events per minute.
IMPULSE = 60.0 * math.log(2) / HALF_LIFE_S
DT_MS_MIN = 1.0
#: Fields learned per event type; more are not learned.
FIELDS_MAX = 256

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Motion(NamedTuple):
    """What one event gives."""

    delta_time: float
    velocity: float
    interrupt: int
    spin: tuple[float, float, float, float]


class Kinetics(StatefulStage):
    """Motion per row.

    Writes:
    - ``delta_time``: ln of the seconds since the conversation's previous event, at least 1 ms; NaN
      for the first.
    - ``velocity``: events per minute, decaying with a half-life of 60 s.
    - ``interrupt``: 1 when another actor cut in before the previous event's ``duration_ms`` was
      over; 0 when either actor is unknown.
    - ``spin``: unit quaternion (w, x, y, z), the turn from the topic's previous direction to this.
    - ``fill_rate``: share of the fields seen so far (this event included) for the event's type that
      its payload has with a value other than null; 1 when none were seen.

    State ``conversation``: [time_us, rate, actor, duration_ms, direction or None]; state ``type``:
    sorted field names.  A row without conversation is the first of one that nobody continues.
    """

    name = "kinetics"
    reads = ("conversation", "type", "actor", "time", "duration_ms", "payload", "embedding")
    writes: Mapping[str, pa.DataType] = {
        "delta_time": float32,
        "velocity": float32,
        "interrupt": int32,
        "spin": float32_vector(4),
        "fill_rate": float32,
    }
    accepts: Mapping[str, type] = {}

    def enrich(self, batch: Batch, state: State | None = None) -> Columns:
        if state is None:
            raise Halt("kinetics.state", "kinetics was called without state", "run it in a Plan")
        offsets = batch.offsets().tolist()
        fills = [
            _fill(state, offset, kind or "", payload or "{}")
            for offset, kind, payload in zip(
                offsets, batch.strings("type"), batch.strings("payload"), strict=True
            )
        ]
        moves = [_move(state, *row) for row in zip(offsets, *_columns(batch), strict=True)]
        spins = np.array([move.spin for move in moves], np.float32).reshape(-1, 4)
        return {
            "delta_time": pa.array([move.delta_time for move in moves], float32),
            "velocity": pa.array([move.velocity for move in moves], float32),
            "interrupt": pa.array([move.interrupt for move in moves], int32),
            "spin": vector_column(spins),
            "fill_rate": pa.array(fills, float32),
        }


def _columns(batch: Batch) -> tuple[list[Any], ...]:
    """Conversation, time (us), actor, duration (ms) and direction of each row."""
    return (
        batch.strings("conversation"),
        batch.column("time").cast(pa.int64()).to_pylist(),
        batch.strings("actor"),
        batch.column("duration_ms").to_pylist(),
        directions(batch.vectors("embedding")),
    )


def _move(
    state: State,
    offset: int,
    conversation: str | None,
    time_us: int,
    actor: str | None,
    duration_ms: float,
    direction: Direction | None,
) -> _Motion:
    """The motion of one event, its conversation's state renewed."""
    before = state.get("conversation", conversation) if conversation is not None else None
    if before is None:
        motion = _Motion(math.nan, IMPULSE, 0, IDENTITY)
        kept = direction
    else:
        motion = _next(before, time_us, actor, direction)
        kept = direction or before[4]
    if conversation is not None:
        value = [time_us, motion.velocity, actor, duration_ms, list(kept) if kept else None]
        state.put("conversation", conversation, offset, value)
    return motion


def _next(
    before: list[Any], time_us: int, actor: str | None, direction: Direction | None
) -> _Motion:
    """The motion after a previous event of the same conversation."""
    time_before_us, rate, actor_before, duration_ms, direction_before = before
    dt_ms = max((time_us - time_before_us) / 1000.0, DT_MS_MIN)
    rate = rate * 2.0 ** (-dt_ms / 1000.0 / HALF_LIFE_S) + IMPULSE
    known = actor is not None and actor_before is not None
    cut_in = known and actor != actor_before and dt_ms < duration_ms
    spin = turn(direction_before, direction) if direction and direction_before else IDENTITY
    return _Motion(math.log(dt_ms / 1000.0), rate, int(cut_in), spin)


def _fill(state: State, offset: int, kind: str, payload: str) -> float:
    """The fill rate of one event, its type's fields learned."""
    members: Mapping[str, msgspec.Raw] = _members.decode(payload) if payload != "{}" else {}
    learned: list[str] = state.get("type", kind) or []
    new = sorted(members.keys() - set(learned))[: FIELDS_MAX - len(learned)]
    if new:
        learned = sorted([*learned, *new])
        state.put("type", kind, offset, learned)
    if not learned:
        return 1.0
    had = sum(name in members and bytes(members[name]) != b"null" for name in learned)
    return had / len(learned)
