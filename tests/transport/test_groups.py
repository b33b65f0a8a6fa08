"""The file of the groups and the leases of their members."""

import os
import sqlite3
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.core import clock
from streamapp.transport import open_admin
from streamapp.transport.acks import generation_of
from streamapp.transport.local import lease, sqlite
from streamapp.transport.local.consumer import Consumer
from streamapp.transport.local.groups import FOLDER, Groups

PATIENCE_S = 60.0


@pytest.fixture
def files(folder):
    """Opens the groups' file, as one process would."""
    (folder / FOLDER).mkdir(parents=True)
    opened = []

    def open_():
        opened.append(Groups(folder))
        return opened[-1]

    yield open_
    for file in opened:
        file.close()


@pytest.fixture
def member(folder):
    leases = []

    def hold():
        leases.append(lease.Lease(folder / FOLDER, lambda: None))
        return leases[-1]

    yield hold
    for held in leases:
        held.end()


def settle(groups, *members):
    """Let members follow the group until nobody has anything to do; the generation."""
    moved = True
    while moved:
        moved = False
        for member in members:
            standing = groups.look("g", member, PATIENCE_S)
            if not standing.ready:
                moved |= groups.ready("g", member, standing.generation, member.encode())
            elif standing.turn is not None:
                plan = {name: b"for " + brought for name, brought in standing.turn.items()}
                moved |= groups.assign("g", standing.generation, plan)
            elif not groups.take("g", member, standing.generation):
                moved = True
    return groups.look("g", members[0], PATIENCE_S).generation


def test_members_get_what_the_oldest_assigned(files, member):
    groups = files()
    members = [member().member for _ in range(3)]
    for name in members:
        groups.join("g", name)
    generation = settle(groups, *reversed(members))
    for name in members:
        standing = groups.look("g", name, PATIENCE_S)
        assert standing.assignment == b"for " + name.encode()
        assert standing == (generation, True, True, None, standing.assignment, [])
    groups.join("g", newest := member().member)
    first, *others = [groups.look("g", name, PATIENCE_S) for name in (*members, newest)]
    assert {s.generation for s in (first, *others)} == {generation + 1}
    for name in (newest, *reversed(members)):
        assert groups.look("g", name, PATIENCE_S).turn is None
        groups.ready("g", name, generation + 1, b"")
    turns = [groups.look("g", name, PATIENCE_S).turn is not None for name in (*members, newest)]
    assert turns == [True, False, False, False]


def test_a_commit_counts_only_from_who_holds_the_generation(files, member):
    groups = files()
    one, two = member().member, member().member
    groups.join("g", one)
    first = settle(groups, one)
    assert groups.commit("g", one, first, {("t", 0): 5})
    groups.join("g", two)  # from here on the group prepares, and the holder may still finish
    assert groups.commit("g", one, first, {("t", 0): 6})
    assert not groups.commit("g", two, first, {("t", 0): 99})
    assert not groups.commit("g", one, first + 1, {("t", 0): 99})
    groups.ready("g", one, first + 1, b"")
    assert not groups.commit("g", one, first, {("t", 0): 99})
    second = settle(groups, one, two)
    assert not groups.commit("g", one, first, {("t", 0): 99})
    assert groups.commit("g", two, second, {("t", 0): 7})
    assert not groups.commit("other", two, second, {("t", 0): 99})
    assert groups.committed("g") == {("t", 0): 7}
    assert groups.committed("other") == {}
    assert groups.names() == ["g"]


def test_what_has_changed_meanwhile_is_refused(files, member):
    groups = files()
    one, two = member().member, member().member
    groups.join("g", one)
    generation = groups.look("g", one, PATIENCE_S).generation
    groups.ready("g", one, generation, b"")
    assert not groups.take("g", one, generation)  # nothing is assigned
    groups.join("g", two)
    assert not groups.assign("g", generation, {one: b""})
    assert not groups.ready("g", one, generation, b"")
    assert not groups.take("g", one, generation)
    generation += 1
    groups.ready("g", one, generation, b"")
    groups.ready("g", two, generation, b"")
    assert not groups.assign("g", generation, {one: b""})  # somebody is left out
    assert groups.assign("g", generation, {one: b"1", two: b"2"})
    assert groups.take("g", one, generation)


def test_generations_grow_over_every_end_of_the_group(files, member):
    generations = []
    for _ in range(3):
        groups = files()
        name = member().member
        groups.join("g", name)
        generations.append(settle(groups, name))
        groups.leave("g", name)
        groups.leave("g", name)
    assert generations == sorted(set(generations))


def test_the_dead_are_put_out_and_who_left_is_not_waited_for(files, member):
    groups = files()
    one, two, three = member(), member(), member()
    for held in (one, two, three):
        groups.join("g", held.member)
    generation = settle(groups, one.member, two.member, three.member)
    two.end()
    groups.leave("g", two.member)
    standing = groups.look("g", one.member, PATIENCE_S)
    assert (standing.generation, standing.put_out) == (generation + 1, [])
    three.end()  # as when its process ends: nobody holds the lock
    standing = groups.look("g", one.member, PATIENCE_S)
    assert (standing.generation, standing.put_out) == (generation + 2, [os.getpid()])
    assert settle(groups, one.member) == generation + 2
    assert not groups.look("g", three.member, PATIENCE_S).present


class Hands:
    """A clock that goes on when it is told to."""

    def __init__(self):
        self.at_s = 1000.0

    def now_us(self):
        return int(self.at_s * 1e6)

    def monotonic_s(self):
        return self.at_s


@pytest.fixture
def hands(monkeypatch):
    hands = Hands()
    monkeypatch.setattr(clock, "SYSTEM", hands)
    return hands


def test_a_lease_lapses_for_its_holder_before_it_does_for_others(folder, hands, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 3600.0)  # as if stopped
    (folder / FOLDER).mkdir(parents=True)
    held = lease.Lease(folder / FOLDER, lambda: None)
    ended = lambda: lease.has_ended(folder / FOLDER, held.member)  # noqa: E731
    assert held.is_current()
    assert not ended()
    hands.at_s += lease.LEASE_S + 0.1
    assert not held.is_current()
    assert not ended()
    hands.at_s += lease.SESSION_S - lease.LEASE_S
    assert ended()
    held.end()
    held.end()
    assert not held.is_current()
    assert list((folder / FOLDER).iterdir()) == []


def test_a_lapsed_lease_never_beats_again_and_says_so(folder, hands, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 0.01)
    (folder / FOLDER).mkdir(parents=True)
    lapses = []
    held = lease.Lease(folder / FOLDER, lambda: lapses.append(1))
    before = hands.at_s
    hands.at_s += lease.SESSION_S + 1
    held._thread.join(30)
    assert lapses == [1]
    (beat,) = lease._BEAT.unpack(lease.path_of(folder / FOLDER, held.member).read_bytes())
    assert beat == before
    assert not held.is_current()
    assert lease.has_ended(folder / FOLDER, held.member)
    held.end()


def test_who_keeps_the_group_waiting_is_put_out_and_knows_it(files, member, hands, monkeypatch):
    monkeypatch.setattr(lease, "SESSION_S", 1e9)
    monkeypatch.setattr(lease, "LEASE_S", 1e9)
    groups = files()
    fast, slow = member(), member()
    groups.join("g", slow.member)
    settle(groups, slow.member)
    groups.join("g", fast.member)
    generation = groups.look("g", fast.member, PATIENCE_S).generation
    groups.ready("g", fast.member, generation, b"")
    hands.at_s += PATIENCE_S
    assert groups.look("g", fast.member, PATIENCE_S).generation == generation
    assert slow.is_current()
    hands.at_s += 1
    assert groups.look("g", slow.member, PATIENCE_S).present  # not by itself
    assert groups.look("g", fast.member, PATIENCE_S).put_out == [os.getpid()]
    assert not slow.is_current()
    assert not groups.look("g", slow.member, PATIENCE_S).present
    settle(groups, fast.member)


def test_an_assigner_that_does_not_assign_is_put_out(files, member, hands, monkeypatch):
    monkeypatch.setattr(lease, "SESSION_S", 1e9)
    groups = files()
    oldest, other = member(), member()
    for held in (oldest, other):
        groups.join("g", held.member)
    generation = groups.look("g", other.member, PATIENCE_S).generation
    for held in (oldest, other):
        groups.ready("g", held.member, generation, b"")
    assert groups.look("g", oldest.member, PATIENCE_S).turn is not None
    hands.at_s += PATIENCE_S + 1
    assert len(groups.look("g", other.member, PATIENCE_S).put_out) == 1
    settle(groups, other.member)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["join", "leave", "die", "ready", "assign", "take", "restart"]),
        st.integers(0, 3),
    ),
    max_size=60,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_no_two_members_hold_different_generations(tmp_path_factory, monkeypatch, steps):
    folder = tmp_path_factory.mktemp("log")
    (folder / FOLDER).mkdir()
    dead = set()
    monkeypatch.setattr(lease, "has_ended", lambda _folder, member: member in dead)
    groups = Groups(folder)
    last = 0
    for number, (step, who) in enumerate(steps):
        name = f"m{who}"
        standing = groups.look("g", name, PATIENCE_S)
        assert standing.generation >= last
        last = standing.generation
        match step:
            case "join" if not standing.present:
                dead.discard(name)
                groups.join("g", name)
            case "leave":
                groups.leave("g", name)
            case "die":
                dead.add(name)
            case "ready":
                groups.ready("g", name, standing.generation - number % 2, b"")
            case "assign" if standing.turn is not None:
                groups.assign("g", standing.generation, dict.fromkeys(standing.turn, b""))
            case "take":
                groups.take("g", name, standing.generation)
            case "restart" if standing.present:
                groups.restart("g")
        with sqlite3.connect(folder / FOLDER / "groups.db") as db:
            holders = db.execute(
                "SELECT DISTINCT holds FROM members WHERE holds NOTNULL"
            ).fetchall()
        db.close()
        assert len(holders) <= 1
    groups.close()


async def test_commits_of_the_first_layout_are_kept(folder, url):
    (folder / FOLDER).mkdir(parents=True)

    def fill(db):
        db.execute(
            "CREATE TABLE commits (consumer_group TEXT, topic TEXT, partition INTEGER,"
            " next INTEGER NOT NULL, at_ms INTEGER NOT NULL,"
            " PRIMARY KEY (consumer_group, topic, partition)) WITHOUT ROWID"
        )
        db.execute("INSERT INTO commits VALUES ('old', 't', 3, 42, 7)")

    sqlite.create(folder / FOLDER / "commits.db", fill)
    (folder / FOLDER / "old.lock").write_text("4711\n")
    admin = open_admin(url)
    await admin.start()
    assert await admin.groups() == ["old"]
    assert await admin.committed("old") == {("t", 3): 42}
    await admin.stop()
    assert [path.name for path in (folder / FOLDER).iterdir()] == ["groups.db"]


async def test_a_look_at_the_groups_of_a_log_makes_no_file(folder, url):
    admin = open_admin(url)
    await admin.start()
    assert await admin.groups() == []
    assert await admin.committed("nobody") == {}
    await admin.stop()
    assert list((folder / FOLDER).iterdir()) == []


def test_who_was_stopped_too_long_may_act_in_no_generation():
    consumer = Consumer.__new__(Consumer)
    app = SimpleNamespace(consumer=consumer, consumer_generation_id=7)
    for current, generation in ((True, 7), (False, -1)):
        consumer._membership = SimpleNamespace(is_current=lambda current=current: current)
        assert generation_of(app) == generation
    app.consumer = object()  # of another transport
    assert generation_of(app) == 7
