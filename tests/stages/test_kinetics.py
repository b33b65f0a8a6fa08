"""Kinetics by its formulas, and the same however events are cut into batches."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.state import StateEntry
from streamapp.plugin import Halt, vector_column
from streamapp.plugin.testing import batch_of
from streamapp.stages.kinetics import FIELDS_MAX, IMPULSE, Kinetics
from streamapp.workflow.state import PartitionState

SECOND_US = 1_000_000


def events(times_s, **columns):
    rows = len(times_s)
    columns.setdefault("conversation", ["c"] * rows)
    columns.setdefault("embedding", vector_column(np.full((rows, 16), np.nan, np.float32)))
    return batch_of(time=[round(t * SECOND_US) for t in times_s], **columns)


def moved(batch, state=None):
    """Columns as lists; the state is changed as a Plan would."""
    overlay = (state or PartitionState(100)).overlay()
    stage = Kinetics({})
    columns = stage.enrich(batch, overlay.view("kinetics"))
    assert {name: array.type for name, array in columns.items()} == stage.writes
    overlay.commit()
    return {name: array.to_pylist() for name, array in columns.items()}


def test_pace():
    found = moved(events([0, 60, 60, 59, 1000]))
    assert math.isnan(found["delta_time"][0])
    expected = [math.log(60), math.log(0.001), math.log(0.001), math.log(941)]
    assert found["delta_time"][1:] == pytest.approx(expected)
    first = 60 * math.log(2) / 60
    assert found["velocity"][:2] == pytest.approx([first, first / 2 + first])
    assert found["velocity"][4] == pytest.approx(first, rel=1e-3)


def test_velocity_tends_to_the_rate():
    found = moved(events([2.0 * i for i in range(400)]))
    assert found["velocity"][-1] == pytest.approx(30, rel=0.02)  # every 2 s: 30 a minute


def test_interrupt():
    found = moved(
        events(
            [0, 1, 3, 3.5, 4],
            actor=["a", "b", "a", "a", None],
            duration_ms=[1500, 1500, 1500, 1500, 0],
        )
    )
    # b cuts in after 1 s of 1.5; a waits 2 s; a does not interrupt itself; nobody knows who
    assert found["interrupt"] == [0, 1, 0, 0, 0]


def test_spin_follows_the_topic_and_survives_a_gap():
    basis = np.eye(16, dtype=np.float32)
    vectors = np.stack([basis[0], basis[1], np.full(16, np.nan), basis[1], basis[0]])
    found = moved(events(range(5), embedding=vector_column(vectors)))["spin"]
    identity = [1, 0, 0, 0]
    assert found[0] == identity
    assert found[1] != identity
    assert found[2] == identity
    assert found[3] == pytest.approx(identity)  # still where it was before the gap
    assert found[4] == pytest.approx([found[1][0], *(-one for one in found[1][1:])], abs=1e-6)


def test_fill_rate():
    payloads = ["{}", '{"a":1,"b":2}', '{"a":1}', '{"b":null,"c":[]}', '{"a":0}', "{}"]
    types = ["m", "m", "m", "m", "other", "m"]
    found = moved(events(range(6), type=types, payload=payloads))["fill_rate"]
    assert found == pytest.approx([1, 1, 1 / 2, 1 / 3, 1, 0])


def test_only_so_many_fields_are_learned():
    wide = msgspec.json.encode({f"f{i:04}": i for i in range(FIELDS_MAX + 50)}).decode()
    state = PartitionState(10)
    assert moved(events([0, 1], payload=[wide, '{"f0000":1}']), state)["fill_rate"] == [
        1.0,
        1 / FIELDS_MAX,
    ]
    (learned,) = [e.value for e in state.snapshot() if e.kind == "type"]
    assert len(learned) == FIELDS_MAX


def test_without_conversation_every_event_is_a_first_one():
    state = PartitionState(10)
    found = moved(events([0, 1], conversation=[None, None]), state)
    assert found["velocity"] == pytest.approx([IMPULSE, IMPULSE])
    assert all(math.isnan(dt) for dt in found["delta_time"])
    assert not state.snapshot()


def test_state_is_needed():
    with pytest.raises(Halt):
        Kinetics({}).enrich(events([0]))


@st.composite
def histories(draw):
    rows = draw(st.integers(1, 30))
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((rows, 16)).astype(np.float32)
    vectors[random.random(rows) < 0.2] = np.nan
    choose = lambda values: [values[i] for i in random.integers(0, len(values), rows)]  # noqa: E731
    times = np.cumsum(random.choice([-0.5, 0, 0.0001, 0.3, 7, 400], rows))
    batch = events(
        times.tolist(),
        conversation=choose(["a", "b", "c", None]),
        actor=choose(["x", "y", None]),
        type=choose(["m", "n"]),
        duration_ms=random.choice([0, 100, 450.5, 1e6], rows).tolist(),
        payload=choose(["{}", '{"a":1}', '{"b":null}', '{"a":2,"c":"x"}']),
        embedding=vector_column(vectors),
    )
    cuts = draw(st.lists(st.integers(1, max(1, rows - 1)), unique=True, max_size=6))
    return batch, sorted(cut for cut in cuts if cut < rows)


def bits(found):
    return {name: np.array(values, np.float32).tobytes() for name, values in found.items()}


@settings(max_examples=60)
@given(histories(), st.integers(2, 4))
def test_cuts_and_restarts_change_no_bit(history, cap):
    batch, cuts = history
    whole_state = PartitionState(cap)
    whole = bits(moved(batch, whole_state))
    parts, state, done = [], PartitionState(cap), 0
    rest = batch
    for cut in cuts:
        part, rest = rest.cut(cut - done)
        done = cut
        parts.append(bits(moved(part, state)))
        # A restart: the state goes through the log as msgpack.
        wire = msgspec.msgpack.encode(state.snapshot())
        state = PartitionState(cap)
        state.restore(StateEntry(*entry) for entry in msgspec.msgpack.decode(wire))
    parts.append(bits(moved(rest, state)))
    assert {name: b"".join(part[name] for part in parts) for name in whole} == whole
    assert list(map(tuple, state.snapshot())) == list(map(tuple, whole_state.snapshot()))
