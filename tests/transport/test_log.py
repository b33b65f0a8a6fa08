import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.core.errors import Refuse
from streamapp.transport.clients import TopicSpec
from streamapp.transport.local import log as log_module
from streamapp.transport.local.log import Row, TopicLog, create_topic, pack_headers

ROOMY = 1 << 40


def opened(folder, topic="t", partitions=2, **options):
    folder.mkdir(parents=True, exist_ok=True)
    create_topic(folder, TopicSpec(topic, partitions, 1 << 20, **options))
    return TopicLog(folder, topic)


def row(partition=0, value=b"v", key=None, timestamp=0):
    return Row(partition, timestamp, key, value, None)


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
        assert log.append([Row(*r[:4], pack_headers(r[4])) for r in group]) == expected
    for partition, kept in model.items():
        assert log.bounds(partition) == (0, len(kept))
        first = data.draw(st.integers(0, len(kept)))
        count = data.draw(st.integers(1, 10))
        read = log.read(partition, first, count, ROOMY)
        assert [r.offset for r in read] == list(range(first, len(kept)))[:count]
        assert [tuple(r)[1:] for r in read] == kept[first : first + count]
    log.close()


def test_bytes_bound_a_read_but_never_to_nothing(folder):
    log = opened(folder)
    log.append([row(value=b"x" * 100) for _ in range(10)])
    assert len(log.read(0, 0, 10, 1)) == 1
    assert len(log.read(0, 0, 10, 250)) == 3
    assert len(log.read(0, 0, 10, ROOMY)) == 10


def test_offsets_go_on_after_every_record_is_gone_and_the_file_reopened(folder):
    log = opened(folder, retention_ms=1000)
    log.append([row(timestamp=0)] * 5)
    while log.trim(now_ms=10_000):
        pass
    assert log.bounds(0) == (5, 5)
    assert log.read(0, 0, 10, ROOMY) == []
    log.close()
    again = TopicLog(folder, "t")
    assert again.bounds(0) == (5, 5)
    assert again.append([row()]) == [5]


def test_retention_by_time_keeps_what_is_young_in_bounded_steps(folder, monkeypatch):
    monkeypatch.setattr(log_module, "TRIM_ROWS", 10)
    log = opened(folder, retention_ms=100)
    log.append([row(timestamp=t) for t in range(50)])
    steps = 1
    while log.trim(now_ms=130):
        steps += 1
    assert steps == 4
    assert log.bounds(0) == (30, 50)


def test_retention_by_bytes_drops_the_oldest_of_every_partition(folder):
    log = opened(folder, retention_bytes=300_000)
    for _ in range(100):
        log.append([row(0, b"x" * 10_000), row(1, b"x" * 10_000)])
    while log.trim(now_ms=0):
        pass
    for partition in (0, 1):
        first, end = log.bounds(partition)
        assert 0 < first < end == 100


def test_compaction_keeps_the_latest_of_each_key_and_every_keyless_record(folder, monkeypatch):
    monkeypatch.setattr(log_module, "COMPACT_ROWS", 1)
    log = opened(folder, compacted=True)
    log.append([row(key=b"a", value=b"1"), row(key=b"b", value=b"1"), row(key=None)])
    log.append([row(key=b"a", value=b"2"), row(key=b"b", value=None), row(1, key=b"a", value=b"3")])
    log.trim(now_ms=0)
    kept = [(r.offset, r.key, r.value) for p in (0, 1) for r in log.read(p, 0, 99, ROOMY)]
    assert kept == [(2, None, b"v"), (3, b"a", b"2"), (4, b"b", None), (0, b"a", b"3")]
    assert log.bounds(0) == (2, 5)


def test_a_failed_append_leaves_nothing(folder):
    log = opened(folder)
    with pytest.raises(sqlite3.Error):
        log.append([row(value=b"good"), row(value={"not": "bytes"})])
    assert log.bounds(0) == (0, 0)
    assert log.append([row()]) == [0]


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
    log.append([row(value=b"x" * 2000)] * 50)
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
