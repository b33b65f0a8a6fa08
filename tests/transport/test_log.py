import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.core.errors import Refuse
from streamapp.transport.clients import TopicSpec
from streamapp.transport.local import retention
from streamapp.transport.local.log import TopicLog, create_topic
from streamapp.transport.local.retention import TOMBSTONE_MS, Patrol, Retention
from streamapp.transport.local.rows import Row, Rows, pack_headers

ROOMY = 1 << 40


def opened(folder, topic="t", partitions=2, **options):
    folder.mkdir(parents=True, exist_ok=True)
    create_topic(folder, TopicSpec(topic, partitions, 1 << 20, **options))
    return TopicLog(folder, topic)


def row(partition=0, value=b"v", key=None, timestamp=0):
    return Row(partition, timestamp, key, value, None)


def append(log, rows):
    """Their offsets."""
    (offsets,) = log.append(Rows(rows))
    return offsets


def trim(log, at_ms=0):
    """Let retention finish; the number of steps."""
    keeping, steps = Retention(log), 1
    while keeping.step(at_ms):
        steps += 1
    return steps


def kept(log):
    partitions = range(log.spec.partitions)
    return [(r.offset, r.key, r.value) for p in partitions for r in log.read(p, 0, 99, ROOMY)[0]]


real = Retention.step

blob = st.none() | st.binary(max_size=8)
headers = st.lists(st.tuples(st.text(max_size=4), st.binary(max_size=4)), max_size=3)
record = st.tuples(st.integers(0, 2), st.integers(0, 2**41), blob, blob, headers)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(groups=st.lists(st.lists(record, max_size=6), max_size=6), data=st.data())
def test_reads_give_back_what_was_appended_at_dense_offsets(tmp_path_factory, groups, data):
    log = opened(tmp_path_factory.mktemp("log"), partitions=3)
    model = {0: [], 1: [], 2: []}
    for group in groups:
        expected = []
        for partition, timestamp, key, value, pairs in group:
            expected.append(len(model[partition]))
            model[partition].append((timestamp, key, value, tuple(pairs)))
        assert append(log, [Row(*r[:4], pack_headers(r[4])) for r in group]) == expected
    for partition, kept in model.items():
        assert log.bounds(partition) == (0, len(kept))
        first = data.draw(st.integers(0, len(kept)))
        count = data.draw(st.integers(1, 10))
        read, size = log.read(partition, first, count, ROOMY)
        assert size == sum(len(r.key or b"") + len(r.value or b"") for r in read)
        assert [r.offset for r in read] == list(range(first, len(kept)))[:count]
        assert [tuple(r)[1:5] for r in read] == kept[first : first + count]
    log.close()


def test_bytes_bound_a_read_but_never_to_nothing(folder):
    log = opened(folder)
    append(log, [row(value=b"x" * 100) for _ in range(10)])
    for bytes_max, count in ((1, 1), (100, 1), (101, 2), (250, 3), (300, 3), (ROOMY, 10)):
        records, size = log.read(0, 0, 10, bytes_max)
        assert (len(records), size) == (count, count * 100)
        assert [r.offset for r in records] == list(range(count))


def test_offsets_go_on_after_every_record_is_gone_and_the_file_reopened(folder):
    log = opened(folder, retention_ms=1000)
    append(log, [row(timestamp=0)] * 5)
    trim(log, 10_000)
    assert log.bounds(0) == (5, 5)
    records, size = log.read(0, 0, 10, ROOMY)
    assert (list(records), size) == ([], 0)
    log.close()
    again = TopicLog(folder, "t")
    assert again.bounds(0) == (5, 5)
    assert append(again, [row()]) == [5]


def test_retention_by_time_keeps_what_is_young_in_bounded_steps(folder, monkeypatch):
    monkeypatch.setattr(retention, "TRIM_ROWS", 10)
    log = opened(folder, retention_ms=100)
    append(log, [row(timestamp=t) for t in range(50)])
    assert trim(log, 130) == 4
    assert log.bounds(0) == (30, 50)


@pytest.mark.parametrize("times", [[5] * 20, [*range(15), 0, 1], [9, 8, 20, 1], [], [30]])
def test_retention_by_time_ends_at_the_first_young_record(folder, monkeypatch, times):
    monkeypatch.setattr(retention, "TRIM_ROWS", 7)
    log = opened(folder, retention_ms=1)
    append(log, [row(partition, timestamp=t) for t in times for partition in (0, 1)])
    trim(log, 11)
    young = next((n for n, t in enumerate(times) if t >= 10), len(times))
    assert [log.bounds(n) for n in (0, 1)] == [(young, len(times))] * 2


def test_retention_looks_at_few_rows_while_nobody_can_append(folder):
    log = opened(folder, retention_ms=10)
    append(log, [row(n % 2, timestamp=n) for n in range(2_000)])
    log.db = Counting(log.db)
    Retention(log).step(1_000)
    assert log.db.rows < 10
    assert log.bounds(0)[0] == 990 / 2


class Counting:
    """A connection that counts the rows that Python gets of it."""

    def __init__(self, db):
        self.db, self.rows = db, 0

    def execute(self, *arguments):
        return CountingCursor(self, self.db.execute(*arguments))

    def __getattr__(self, name):
        return getattr(self.db, name)


class CountingCursor:
    def __init__(self, db, cursor):
        self.db, self.cursor = db, cursor

    def fetchone(self):
        self.db.rows += 1
        return self.cursor.fetchone()

    def __iter__(self):
        for found in self.cursor:
            self.db.rows += 1
            yield found

    def fetchall(self):
        return list(self)


def test_retention_by_bytes_drops_the_oldest_of_every_partition(folder):
    log = opened(folder, retention_bytes=300_000)
    for _ in range(100):
        append(log, [row(0, b"x" * 10_000), row(1, b"x" * 10_000)])
    trim(log)
    for partition in (0, 1):
        first, end = log.bounds(partition)
        assert 0 < first < end == 100
    assert log.bytes_kept() < 2 * 400_000


def test_retention_by_bytes_is_of_each_partition(folder):
    log = opened(folder, retention_bytes=500_000)
    for _ in range(100):
        append(log, [row(0, b"x" * 10_000)])
    append(log, [row(1, b"x" * 10_000)] * 10)
    trim(log)
    assert log.bounds(1) == (0, 10)
    first, end = log.bounds(0)
    assert 30 <= end - first <= 50


def test_compaction_keeps_the_latest_of_each_key_and_every_keyless_record(folder, monkeypatch):
    monkeypatch.setattr(retention, "COMPACT_ROWS", 1)
    log = opened(folder, compacted=True)
    append(log, [row(key=b"a", value=b"1"), row(key=b"b", value=b"1"), row(key=None)])
    append(
        log, [row(key=b"a", value=b"2"), row(key=b"b", value=None), row(1, key=b"a", value=b"3")]
    )
    trim(log)
    assert kept(log) == [(2, None, b"v"), (3, b"a", b"2"), (4, b"b", None), (0, b"a", b"3")]
    assert log.bounds(0) == (2, 5)


def test_a_deleted_key_is_told_for_a_while_and_the_last_record_stays(folder, monkeypatch):
    monkeypatch.setattr(retention, "COMPACT_ROWS", 1)
    log = opened(folder, partitions=1, compacted=True)
    append(log, [row(key=b"a", timestamp=0), row(key=b"a", value=None, timestamp=10)])
    append(log, [row(key=b"b", value=None, timestamp=10)])
    trim(log, 10 + TOMBSTONE_MS)
    assert kept(log) == [(1, b"a", None), (2, b"b", None)]
    append(log, [row(key=b"c", value=b"1", timestamp=20), row(key=b"d", value=None, timestamp=10)])
    trim(log, 11 + TOMBSTONE_MS)
    assert kept(log) == [(3, b"c", b"1"), (4, b"d", None)]  # recovery ends at the last one
    assert log.bounds(0) == (3, 5)


def test_compaction_in_steps_never_shows_an_older_value(folder, monkeypatch):
    monkeypatch.setattr(retention, "COMPACT_ROWS", 1)
    monkeypatch.setattr(retention, "TRIM_ROWS", 3)
    log = opened(folder, partitions=1, compacted=True)
    append(log, [row(key=b"%d" % (n % 4), value=b"%d" % n) for n in range(40)])
    keeping = Retention(log)
    oldest, steps = 0, 1
    while keeping.step(0):
        steps += 1
        first = kept(log)[0][0]
        assert first > oldest
        oldest = first
    assert steps == 12
    assert kept(log) == [(n, b"%d" % (n % 4), b"%d" % n) for n in range(36, 40)]
    append(log, [row(key=b"0", value=b"40")])
    assert not Retention(log).step(0)  # another process: it is not time again yet
    assert len(kept(log)) == 5


def test_a_topic_that_nobody_writes_to_is_trimmed_by_one_of_all(folder, monkeypatch):
    log = opened(folder, retention_ms=1)
    other = opened(folder, "u", retention_ms=1)
    for each in (log, other):
        append(each, [row(timestamp=0)] * 5)
    names = {"t": log, "u": other}
    patrols = [Patrol(folder, names.__getitem__) for _ in range(2)]
    for patrol in patrols:
        patrol.round()  # not yet
    assert log.bounds(0) == (0, 5)
    for patrol in patrols:
        patrol._due_s = 0.0
    stepped = []
    monkeypatch.setattr(
        Retention, "step", lambda self, at: stepped.append(self) or real(self, at), raising=True
    )
    for patrol in patrols:
        patrol.round()
        assert patrol.wait_s() > 0
    assert len(stepped) == 2  # one round by one of them
    assert log.bounds(0) == other.bounds(0) == (5, 5)


def test_one_damaged_topic_does_not_keep_the_others_from_retention(folder, caplog):
    log = opened(folder, "z", retention_ms=1)
    append(log, [row(timestamp=0)] * 5)
    (folder / "a.db").write_bytes(b"this is no database" * 100)
    patrol = Patrol(folder, lambda topic: TopicLog(folder, topic))
    patrol._due_s = 0.0
    patrol.round()
    assert log.bounds(0) == (5, 5)
    assert "no retention of" in caplog.text
    assert "a.db" in caplog.text


def test_a_failed_append_leaves_nothing(folder):
    log = opened(folder)
    with pytest.raises(sqlite3.Error):
        append(log, [row(value=b"good"), row(value={"not": "bytes"})])
    assert log.bounds(0) == (0, 0)
    assert append(log, [row()]) == [0]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../a", "a b", "x" * 250, "é", "a\0b", "a\n"]
)
def test_only_kafkas_names_are_topic_names(folder, name):
    with pytest.raises(Refuse, match="topic name"):
        opened(folder, name)


@pytest.mark.parametrize(("partitions", "size"), [(0, 1), (99_999, 1), (1, 0), (1, 1 << 40)])
def test_impossible_topics_are_refused(folder, partitions, size):
    with pytest.raises(Refuse, match="topic 't' cannot"):
        create_topic(folder, TopicSpec("t", partitions, size))


def test_creation_is_once_and_leaves_no_draft(folder):
    opened(folder).close()
    assert not create_topic(folder, TopicSpec("t", 7, 1))
    assert TopicLog(folder, "t").spec.partitions == 2
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_damaged_and_foreign_files_are_refused_by_name(folder):
    log = opened(folder)
    append(log, [row(value=b"x" * 2000)] * 50)
    log.close()
    path = folder / "t.db"
    whole = path.read_bytes()

    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(Refuse, match=r"t\.db is damaged"):
        TopicLog(folder, "t")

    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(Refuse, match=r"t\.db is damaged"):
        TopicLog(folder, "t").read(0, 0, 99, ROOMY)

    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE somebody (elses INTEGER)")
    other.close()
    with pytest.raises(Refuse, match=r"t\.db is a database, but not a log of ours"):
        TopicLog(folder, "t")
