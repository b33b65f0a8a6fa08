"""The consumer groups of a log, in one file: generations, members, assignments and commits.

A generation is one distribution of partitions among members.  Whoever joins, leaves or is put out
starts the next one.  Then every member gives back what it holds (until then it may commit) and says
that it is ready; when all have, the oldest one assigns, and each takes its part.  So no partition
ever has two holders, and a commit counts only from a member that holds its generation.

Generations only grow, across every restart.  Members are alive by their :mod:`lease`.
"""

import os
import sqlite3
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import NamedTuple

from streamapp.core.clock import monotonic_s, now_ms
from streamapp.core.errors import Refuse
from streamapp.transport.local import lease, sqlite

FOLDER = "groups"

#: What a plain member's metadata begins with; a Faust app's never does.
PLAIN = b"plain\0"

_TABLES = """
CREATE TABLE groups (
    name TEXT PRIMARY KEY, generation INTEGER NOT NULL, since_s REAL NOT NULL,
    assigned INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE members (
    member TEXT PRIMARY KEY, consumer_group TEXT NOT NULL, joined INTEGER NOT NULL,
    pid INTEGER NOT NULL, ready INTEGER, holds INTEGER, metadata BLOB, assignment BLOB
) WITHOUT ROWID;
CREATE TABLE commits (
    consumer_group TEXT, topic TEXT, partition INTEGER,
    next INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (consumer_group, topic, partition)
) WITHOUT ROWID;
"""


class Standing(NamedTuple):
    """How a group stands, for one of its members."""

    generation: int
    #: False when the member was put out.
    present: bool
    #: Whether the member has said that it is ready for this generation.
    ready: bool
    #: What each member brought, when all are ready and it is this one's turn to assign.
    turn: dict[str, bytes] | None
    #: What the member was assigned in this generation.
    assignment: bytes | None
    #: Process ids of members that this look has put out.
    put_out: list[int]


class _Member(NamedTuple):
    member: str
    pid: int
    ready: int | None
    metadata: bytes | None
    assignment: bytes | None


class _Group(NamedTuple):
    generation: int
    since_s: float
    assigned: int
    members: list[_Member]  # the oldest first

    @property
    def unassigned(self) -> bool:
        return self.assigned != self.generation

    @property
    def unready(self) -> list[_Member]:
        return [member for member in self.members if member.ready != self.generation]


class Groups:
    """The file of all groups of a log, for the thread that opened it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._path = self._folder / "groups.db"
        if not self._path.exists():
            older = self._folder / "commits.db"
            if sqlite.create(self._path, lambda db: _make(db, older)):
                for file in (older, *self._folder.glob("*.lock")):  # of the first layout
                    file.unlink(missing_ok=True)
        self._db = sqlite.connect(self._path)

    @staticmethod
    def exist(folder: Path) -> bool:
        """False when no group ever was on this log, so that a look need not make the file."""
        return any((folder / FOLDER / name).exists() for name in ("groups.db", "commits.db"))

    def close(self) -> None:
        self._db.close()

    # -- members

    def join(self, group: str, member: str, metadata: bytes | None = None) -> None:
        """Become a member (with a lease already), which starts a new generation.

        Args:
            group: its name.
            member: who joins.
            metadata: of a plain member, beginning with ``PLAIN``; None for a Faust app.  The two
                kinds do not understand each other's: an app puts plain members out.

        Raises:
            Refuse: ``group.kind`` a plain member, and an app is in the group.
        """
        with self._changing():
            self._make_room(group, metadata)
            self._db.execute(
                "INSERT OR IGNORE INTO groups VALUES (?, 0, ?, -1)", (group, monotonic_s())
            )
            generation = self._start_generation(group)
            self._db.execute(
                "INSERT INTO members (member, consumer_group, joined, pid, metadata)"
                " VALUES (?, ?, ?, ?, ?)",
                (member, group, generation, os.getpid(), metadata),
            )

    def restart(self, group: str) -> None:
        """Start a new generation: a member wants other topics."""
        with self._changing():
            self._start_generation(group)

    def leave(self, group: str, member: str) -> None:
        """Be a member no more; one that was put out has left already."""
        with self._changing():
            if self._db.execute("DELETE FROM members WHERE member = ?", (member,)).rowcount:
                self._start_generation(group)

    def look(self, group: str, member: str, patience_s: float) -> Standing:
        """How the group stands, after putting out the others that died, stopped or kept it waiting.

        Args:
            group: its name.
            member: who looks.
            patience_s: how long a generation may wait for one member.
        """
        with sqlite.translated(self._path), sqlite.snapshot(self._db):
            state = self._state(group)
        put_out: list[int] = []
        gone = {
            other.member: other.pid
            for other in state.members
            if other.member != member
            and (lease.has_ended(self._folder, other.member) or _is_late(state, other, patience_s))
        }
        if gone and self._put_out(group, state, gone):
            put_out = list(gone.values())
            with sqlite.translated(self._path), sqlite.snapshot(self._db):
                state = self._state(group)
        return _standing(state, member, put_out)

    def ready(self, group: str, member: str, generation: int, metadata: bytes) -> bool:
        """Hold nothing and wait for this generation; False when there is a newer one already.

        Args:
            group: its name.
            member: who is ready.
            generation: the one it waits for.
            metadata: what the assigning member is to know of this one.
        """
        with self._changing():
            return self._is_at(group, generation) and bool(
                self._db.execute(
                    "UPDATE members SET ready = ?, holds = NULL, assignment = NULL, metadata = ?"
                    " WHERE member = ?",
                    (generation, metadata, member),
                ).rowcount
            )

    def assign(self, group: str, generation: int, assignments: Mapping[str, bytes]) -> bool:
        """Say what each member gets; False when the group has changed meanwhile."""
        with self._changing():
            state = self._state(group)
            if (
                state.generation != generation
                or state.unready
                or {member.member for member in state.members} != assignments.keys()
            ):
                return False
            self._db.executemany(
                "UPDATE members SET assignment = ? WHERE member = ?",
                [(assignment, member) for member, assignment in assignments.items()],
            )
            self._db.execute("UPDATE groups SET assigned = generation WHERE name = ?", (group,))
            return True

    def take(self, group: str, member: str, generation: int) -> bool:
        """Hold what was assigned; False when there is a newer generation already."""
        with self._changing():
            return self._is_at(group, generation) and bool(
                self._db.execute(
                    "UPDATE members SET holds = ? WHERE member = ? AND ready = ?"
                    " AND assignment IS NOT NULL",
                    (generation, member, generation),
                ).rowcount
            )

    # -- commits

    def commit(
        self, group: str, member: str, generation: int, offsets: Mapping[tuple[str, int], int]
    ) -> bool:
        """Say durably that the group is done with everything below these offsets.

        False, and nothing is changed, when the member does not hold this generation.
        """
        with self._changing():
            holds = self._db.execute(
                "SELECT 1 FROM members WHERE member = ? AND consumer_group = ? AND holds = ?",
                (member, group, generation),
            ).fetchone()
            if holds:
                self._write(group, offsets)
            return holds is not None

    def commit_alone(self, group: str, offsets: Mapping[tuple[str, int], int]) -> bool:
        """Commit for a group that has no member; False, and nothing is changed, when it has one."""
        with self._changing():
            if self._living(group):
                return False
            self._write(group, offsets)
            return True

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Everything the group committed; empty for a group that never did."""
        with sqlite.translated(self._path):
            rows = self._db.execute(
                "SELECT topic, partition, next FROM commits WHERE consumer_group = ?", (group,)
            ).fetchall()
        return {(topic, partition): next_ for topic, partition, next_ in rows}

    def names(self) -> list[str]:
        """The groups that ever committed or have a member."""
        with sqlite.translated(self._path):
            rows = self._db.execute(
                "SELECT consumer_group FROM commits UNION SELECT consumer_group FROM members"
                " ORDER BY 1"
            ).fetchall()
        return [name for (name,) in rows]

    # -- inside

    def _write(self, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
        at = now_ms()
        self._db.executemany(
            "INSERT OR REPLACE INTO commits VALUES (?, ?, ?, ?, ?)",
            [(group, topic, part, next_, at) for (topic, part), next_ in offsets.items()],
        )

    def _living(self, group: str) -> list[_Member]:
        members = self._state(group).members
        return [other for other in members if not lease.has_ended(self._folder, other.member)]

    def _make_room(self, group: str, metadata: bytes | None) -> None:
        plain = [m for m in self._state(group).members if (m.metadata or b"").startswith(PLAIN)]
        if metadata is None:
            for other in plain:
                lease.revoke(self._folder, other.member)
                self._db.execute("DELETE FROM members WHERE member = ?", (other.member,))
        elif any(other not in plain for other in self._living(group)):
            raise Refuse(
                "group.kind",
                f"group {group[:120]!r} is that of a running app",
                "use a group of your own",
            )

    def _changing(self) -> AbstractContextManager[None]:
        return sqlite.changing(self._db, self._path)

    def _is_at(self, group: str, generation: int) -> bool:
        row = self._db.execute("SELECT generation FROM groups WHERE name = ?", (group,)).fetchone()
        return bool(row == (generation,))

    def _start_generation(self, group: str) -> int:
        ((generation,),) = self._db.execute(
            "UPDATE groups SET generation = generation + 1, since_s = ? WHERE name = ?"
            " RETURNING generation",
            (monotonic_s(), group),
        ).fetchall()
        return int(generation)

    def _state(self, group: str) -> _Group:
        row = self._db.execute(
            "SELECT generation, since_s, assigned FROM groups WHERE name = ?", (group,)
        ).fetchone()
        members = self._db.execute(
            "SELECT member, pid, ready, metadata, assignment FROM members"
            " WHERE consumer_group = ? ORDER BY joined",
            (group,),
        ).fetchall()
        generation, since_s, assigned = row or (0, 0.0, -1)
        return _Group(generation, since_s, assigned, [_Member(*member) for member in members])

    def _put_out(self, group: str, seen: _Group, gone: Collection[str]) -> bool:
        """End their leases, then their membership; False when the group has changed meanwhile."""
        with self._changing():
            now = self._state(group)
            if (now.generation, now.assigned) != (seen.generation, seen.assigned):
                return False
            for member in gone:
                lease.revoke(self._folder, member)
                self._db.execute("DELETE FROM members WHERE member = ?", (member,))
            self._start_generation(group)
            return True


def _is_late(state: _Group, member: _Member, patience_s: float) -> bool:
    """Whether the others have waited too long for this member to be ready, or to assign."""
    waited_s = monotonic_s() - state.since_s  # below 0 after a restart of the machine
    if not state.unassigned or 0 <= waited_s <= patience_s:
        return False
    return member in (state.unready or state.members[:1])


def _standing(state: _Group, member: str, put_out: list[int]) -> Standing:
    me = next((other for other in state.members if other.member == member), None)
    ready = me is not None and me.ready == state.generation
    turn = None
    if ready and state.unassigned and not state.unready and state.members[0] is me:
        turn = {other.member: other.metadata or b"" for other in state.members}
    assignment = me.assignment if me is not None and ready and not state.unassigned else None
    return Standing(state.generation, me is not None, ready, turn, assignment, put_out)


def _make(db: sqlite3.Connection, older: Path) -> None:
    """The tables; commits of the first layout (a file of their own) are taken over."""
    for statement in _TABLES.split(";")[:-1]:
        db.execute(statement)
    if older.exists():
        with closing(sqlite.connect(older)) as commits:
            rows = commits.execute(
                "SELECT consumer_group, topic, partition, next, at_ms FROM commits"
            )
            db.executemany("INSERT INTO commits VALUES (?, ?, ?, ?, ?)", rows)
