"""The C engine and its NumPy twin do the same to the same bytes, and read each other's files."""

import tempfile
from pathlib import Path

import numpy as np
import ring_content
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.ring import RingReader, RingSpec, RingWriter, SourcePosition, layout
from streamapp.ring.layout import Column

CAPACITY = 8
HALF = CAPACITY // 2
ENGINES = ("c", "twin")
#: Header words that hold a time, a process or a random number, or depend on when a commit came.
LOCAL = (
    "ring_uuid",
    "created_unix_ns",
    "clock_offset_ns",
    "writer_pid",
    "writer_start_unix_ns",
    "heartbeat_mono_ns",
    "last_commit_unix_us",
    "wake",
    "watch_ns",
)

#: The engine C maps a column of 128 floats twice in a row; the twin copies at the wrap.
SHAPES = (
    RingSpec(3, CAPACITY),
    RingSpec(128, CAPACITY),
    RingSpec(3, CAPACITY, "<f2", (Column("scores", 2), Column("halves", 256, "<f2"))),
)

operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 2 * CAPACITY + 1)),
        st.tuples(st.just("put"), st.integers(0, 2 * CAPACITY + 1)),
        st.tuples(st.just("place"), st.integers(0, 1)),
        st.tuples(st.just("killed"), st.integers(1, HALF), st.integers(0, HALF)),
        st.tuples(
            st.just("reserve"),
            st.lists(st.booleans(), min_size=1, max_size=HALF),
            st.sampled_from(["commit", "keep", "abandon", "killed"]),
        ),
        st.tuples(st.just("reshape"), st.sampled_from(SHAPES)),
        st.tuples(st.just("read"), st.integers(0, CAPACITY + 1)),
        st.tuples(st.just("latest"), st.integers(0, CAPACITY + 1)),
    ),
    min_size=1,
    max_size=25,
)


class Subject:
    """One ring written by one engine, read by both."""

    def __init__(self, path, engine):
        self.path, self.engine = path, engine
        self.keys = self.placed = 0
        self.spec = SHAPES[0]
        self.writer = RingWriter.open(path, self.spec, engine=engine)
        self.writer.source_index("events.raw", 0)
        self.readers = [RingReader.open(path, engine=name) for name in ENGINES]

    def rows(self, n):
        keys = np.arange(self.keys, self.keys + n)
        self.keys += n
        columns = {
            column.name: (keys[:, None] % 64 + np.arange(column.dim)).astype(column.dtype)
            for column in self.spec.columns
        }
        return ring_content.records(keys), columns

    def position(self):
        return SourcePosition("events.raw", 0, self.keys, self.keys + 1)

    def write(self, n):
        records, columns = self.rows(n)
        semantic = columns.pop("semantic")
        return self.writer.write(records, semantic, extra=columns, positions=[self.position()])

    def put(self, n):
        """Without positions: the extension's short way, where there is one column."""
        records, columns = self.rows(n)
        semantic = columns.pop("semantic")
        if columns:
            return self.writer.write(records, semantic, extra=columns)
        return self.writer.write(records, semantic)

    def place(self, partition):
        self.placed += 1
        position = SourcePosition("other", partition, self.placed, self.placed)
        records, columns = self.rows(0)
        return self.writer.write(records, columns["semantic"], positions=[position])

    def reserve(self, keep, how):
        rows = self.writer.reserve(len(keep))
        records, columns = self.rows(len(keep))
        if how == "abandon":
            return rows.abandon()
        if how == "killed":
            self.writer.let_go()
            self.reopen()
            return self.writer.sources()
        for name, values in columns.items():
            rows.columns[name][:] = values
        return rows.commit(
            records, positions=[self.position()], keep=keep if how == "keep" else None
        )

    def killed(self, n, done):
        """What a writer leaves behind that was killed with `done` of its n stamps complete."""
        mapping, (records, columns) = self.writer._map, self.rows(n)
        first = mapping.word("head")
        seqs = np.arange(first, first + n, dtype=np.uint64)
        slots = seqs & np.uint64(CAPACITY - 1)
        mapping.header["claim"] = first + n
        records["stamp"], records["frame_id"] = 2 * seqs + 1, seqs
        records["stamp"][:done] += 1
        mapping.records[slots] = records
        for name, values in columns.items():
            mapping.columns[name][slots] = values
        self.reopen()
        return self.writer.sources(), list(self.writer.covered())

    def reshape(self, spec):
        self.spec = spec
        self.reopen()

    def reopen(self):
        self.writer.close()
        self.writer = RingWriter.open(self.path, self.spec, engine=self.engine)

    def read(self, n):
        return [self.seen(reader.read(n), reader) for reader in self.readers]

    def latest(self, n):
        return [self.seen(reader.latest(n), reader) for reader in self.readers]

    @staticmethod
    def seen(frames, reader):
        where = (reader.position, reader.lost, reader.void, reader.lag)
        columns = {name: rows.tobytes() for name, rows in frames.columns.items()}
        return frames.records.tobytes(), columns, frames.lost, frames.void, where

    def bytes(self):
        raw = bytearray(self.path.read_bytes())
        header = np.frombuffer(raw, layout.HEADER_DTYPE, 1)
        for name in LOCAL:
            header[name] = np.zeros(1, header[name].dtype)
        return bytes(raw)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(operations)
def test_both_engines_leave_the_same_bytes_and_read_the_same_rows(steps):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        subjects = [Subject(Path(folder, name), name) for name in ENGINES]
        for operation, *arguments in steps:
            results = [getattr(subject, operation)(*arguments) for subject in subjects]
            assert results[0] == results[1]
            if operation in {"read", "latest"}:
                assert results[0][0] == results[0][1], "the readers of one file agree"
            assert subjects[0].bytes() == subjects[1].bytes()
        for subject in subjects:
            subject.writer.close()
