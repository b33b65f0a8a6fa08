"""similar() and near() give what NumPy gives over the same table, whatever happened to it."""

import subprocess
import sys
import threading

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.batch import vector_column
from streamapp.core.errors import Refuse
from streamapp.sink import Store
from streamapp.sink.matrix import Matrix, unit
from streamapp.sink.search import K_MAX, TEXT_CHARS_MAX, Search

DIM = 7
ROW_BYTES = DIM * 4 + Matrix.ROW_BYTES


def vectors_of(seed, count, dim=DIM):
    """Random directions of random lengths; every fifth row has none (NaN)."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(count, dim)).astype(np.float32) * random.uniform(0.5, 2)
    vectors[4::5] = np.nan
    return vectors


def embed(texts):
    """A model for tests: a text's vector follows from its letters."""
    return np.stack([unit(np.random.default_rng(list(t.encode())).normal(size=DIM)) for t in texts])


@pytest.fixture
def opened(open_store):
    """``opened(rows_max=...)``: a store whose matrix holds that many rows."""

    def make_store(path=":memory:", *, rows_max=1000, model=embed, dim=DIM):
        search = Search(model, bytes_max=rows_max * (dim * 4 + Matrix.ROW_BYTES))
        columns = {"embedding": pa.list_(pa.float32(), dim)}
        return open_store(path, columns=columns, search=search)

    return make_store


@pytest.fixture
def fill(make):
    """``fill(store, vectors)`` stores one event per vector, after those that are there."""

    def write(store, vectors):
        first = max((next_ for next_ in store.positions().values()), default=0)
        events = [make.event(first + n) for n in range(len(vectors))]
        extra = {"embedding": vector_column(vectors)}
        record = make.record(first, first + len(vectors), events, stages=False, extra=extra)
        store.write([record])

    return write


def brute(stored, query, k, without=None):
    """(id, cosine) of the best k by NumPy in float64; ``stored`` is id to vector."""
    found = []
    for name, vector in stored.items():
        if name != without and np.isfinite(vector).all() and vector.any():
            wide = vector.astype(np.float64)
            found.append((name, float(wide @ query / np.linalg.norm(wide))))
    return sorted(found, key=lambda hit: -hit[1])[:k]


def assert_same(found, expected):
    assert np.allclose([c for _, c in found], [c for _, c in expected], atol=1e-5)
    assert len({name for name, _ in found}) == len(expected)


# ---- exactness ----


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["store", "store", "retain", "ask"]), st.integers(1, 40)),
        min_size=1,
        max_size=12,
    ),
    rows_max=st.sampled_from([1, 3, 16, 1000]),
    k=st.integers(1, 60),
)
@settings(max_examples=25, deadline=None)
def test_as_numpy(make_record, steps, rows_max, k):
    """Rows come and old ones go in any order; the matrix holds all of them, some, or one."""
    search = Search(embed, bytes_max=rows_max * ROW_BYTES)
    columns = {"embedding": pa.list_(pa.float32(), DIM)}
    with Store.open(":memory:", columns=columns, search=search) as store:
        stored, first, query = {}, 0, embed(["q"])[0].astype(np.float64)
        for number, (step, count) in enumerate([*steps, ("ask", 0)]):
            cursor = store.reader()
            if step == "store":
                vectors = vectors_of(number, count)
                store.write([make_record(first, vectors)])
                stored |= {f"id-{first + n}": vectors[n] for n in range(count)}
                first += count
            elif step == "retain":
                gone = list(stored)[:count]
                cursor.execute("DELETE FROM events WHERE list_contains(?, id)", [gone])
                for name in gone:
                    del stored[name]
                if count % 2:
                    cursor.execute("CHECKPOINT db")
            else:
                found = cursor.execute("SELECT id, cosine FROM similar('q', ?)", [k]).fetchall()
                assert_same(found, brute(stored, query, k))
            cursor.close()


@pytest.fixture(scope="module")
def make_record(make):
    def record(first, vectors):
        events = [make.event(first + n) for n in range(len(vectors))]
        extra = {"embedding": vector_column(vectors)}
        return make.record(first, first + len(vectors), events, stages=False, extra=extra)

    return record


@pytest.mark.parametrize("rows_max", [10, 1000])
def test_near_leaves_the_event_itself_out(make, opened, fill, rows_max):
    store, vectors = opened(rows_max=rows_max), vectors_of(1, 60)
    fill(store, vectors)
    stored = {f"id-{n}": v for n, v in enumerate(vectors)}
    found = make.rows(store, "SELECT id, cosine FROM near('id-3', 8)")
    query = vectors[3].astype(np.float64)
    assert_same(found, brute(stored, query / np.linalg.norm(query), 8, without="id-3"))
    assert "id-3" not in {name for name, _ in found}


def test_other_sizes_of_vectors(make, open_store, fill):
    store = open_store(columns={"embedding": pa.list_(pa.float32(), 3)}, search=Search())
    fill(store, vectors_of(1, 20, 3))
    assert make.rows(store, "SELECT count(*) FROM near('id-0', 5)") == [(5,)]


def test_a_row_without_a_vector_is_not_near_anything(make, opened, fill):
    store = opened()
    fill(store, vectors_of(1, 10))
    assert make.rows(store, "SELECT count(*) FROM near('id-4', 3)") == [(0,)]
    assert make.rows(store, "SELECT count(*) FROM near('no such', 3)") == [(0,)]
    assert make.rows(store, "SELECT count(*) FROM similar('q', 100)") == [(8,)]


def test_nothing_is_stored_yet(make, opened):
    assert make.rows(opened(), "SELECT count(*) FROM similar('q', 3)") == [(0,)]


def test_all_columns_of_the_event_come_but_the_vector(opened, fill):
    store = opened()
    fill(store, vectors_of(1, 4))
    cursor = store.reader()
    names = [row[0] for row in cursor.execute("DESCRIBE FROM similar('q', 1)").fetchall()]
    cursor.close()
    assert names[0] == "cosine"
    assert {"id", "text", "source_topic", "source_offset", "time"} <= set(names)
    assert "embedding" not in names


# ---- what is seen ----


def test_a_row_stored_a_moment_ago_is_found(make, opened, fill):
    store = opened()
    fill(store, vectors_of(1, 10))
    assert make.rows(store, "SELECT count(*) FROM similar('new', 1) WHERE cosine > 0.999") == [(0,)]
    fill(store, embed(["new"]))
    assert make.rows(store, "SELECT id, cosine > 0.999 FROM similar('new', 1)") == [("id-10", True)]


def test_a_statement_sees_its_own_snapshot(make, opened, fill):
    """A row stored after a transaction began is not in its answer, and takes nobody's place."""
    store = opened()
    fill(store, vectors_of(1, 10))
    early = store.reader()
    early.execute("BEGIN TRANSACTION READ ONLY")
    assert early.execute("SELECT count(*) FROM events").fetchall() == [(10,)]
    fill(store, np.repeat(embed(["q"]), 5, axis=0))
    assert {name for (name,) in make.rows(store, "SELECT id FROM similar('q', 5)")} == {
        f"id-{n}" for n in range(10, 15)
    }
    names = [name for (name,) in early.execute("SELECT id FROM similar('q', 5)").fetchall()]
    early.close()
    assert len(names) == 5
    assert not set(names) & {f"id-{n}" for n in range(10, 15)}


def test_rows_that_are_gone_are_not_found(make, opened, fill, path):
    """Also when as many came as went, and after their space was given back."""
    store = opened(path, rows_max=5000)
    fill(store, vectors_of(1, 6000))
    assert make.rows(store, "SELECT count(*) FROM similar('q', 3)") == [(3,)]
    make.rows(store, "DELETE FROM events WHERE source_offset < 4500")
    make.rows(store, "CHECKPOINT db")
    fill(store, vectors_of(2, 4500))
    found = make.rows(store, "SELECT source_offset FROM similar('q', 1000)")
    assert len(found) == 1000
    assert min(offset for (offset,) in found) >= 4500


@pytest.mark.parametrize("rows_max", [2000, 20_000])
def test_rows_that_are_numbered_anew(make, opened, fill, path, rows_max):
    """Asked between a DELETE and the checkpoint after it, which gives early rows other numbers."""
    store, vectors = opened(path, rows_max=rows_max), vectors_of(3, 12_000)
    for first in range(0, 12_000, 3000):
        fill(store, vectors[first : first + 3000])
    make.rows(store, "DELETE FROM events WHERE source_offset < 9000 AND source_offset % 2 = 0")
    stored = {f"id-{n}": v for n, v in enumerate(vectors) if n >= 9000 or n % 2}
    expected = brute(stored, embed(["q"])[0].astype(np.float64), 50)
    numbers = "SELECT source_offset, rowid FROM events"
    before = dict(make.rows(store, numbers))
    assert_same(make.rows(store, "SELECT id, cosine FROM similar('q', 50)"), expected)
    make.rows(store, "CHECKPOINT db")
    after = dict(make.rows(store, numbers))
    assert any(after[offset] != row for offset, row in before.items())
    assert_same(make.rows(store, "SELECT id, cosine FROM similar('q', 50)"), expected)


def test_the_same_offsets_of_other_sources(make, opened):
    store = opened()
    sources = [("a", 0), ("a", 1), ("b", 0)]
    for number, (topic, partition) in enumerate(sources):
        events = [make.event(n, name=f"{topic}{partition}-{n}") for n in range(3)]
        extra = {"embedding": vector_column(np.repeat(embed([f"q{number}"]), 3, axis=0))}
        store.write(
            [make.record(0, 3, events, topic=topic, partition=partition, stages=False, extra=extra)]
        )
    for number, (topic, partition) in enumerate(sources):
        found = make.rows(store, f"SELECT id FROM similar('q{number}', 3)")
        assert sorted(found) == [(f"{topic}{partition}-{n}",) for n in range(3)]


def test_a_store_opened_again(make, opened, fill, path):
    with opened(path) as store:
        fill(store, vectors_of(1, 50))
        before = make.rows(store, "SELECT id FROM similar('q', 10)")
    assert make.rows(opened(path), "SELECT id FROM similar('q', 10)") == before


def test_readers_and_the_writer_at_once(make, opened, fill):
    store, failures, stop = opened(rows_max=200), [], threading.Event()
    fill(store, embed(["target"]))

    def read():
        while not stop.is_set():
            found = make.rows(store, "SELECT id, cosine FROM similar('target', 3)")
            cosines = [cosine for _, cosine in found]
            if found[0][0] != "id-0" or cosines != sorted(cosines, reverse=True):
                failures.append(found)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for seed in range(40):
        fill(store, vectors_of(seed, 11))
    stop.set()
    for thread in threads:
        thread.join(60)
    assert failures == []


# ---- limits and mistakes ----


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("FROM similar('q', 0)", "k is not from 1 to 1,000"),
        (f"FROM similar('q', {K_MAX + 1})", "k is not from 1 to 1,000"),
        (f"FROM similar('q', '{K_MAX + 1}')", "k is not from 1 to 1,000"),
        ("FROM near('id-0', 0)", "k is not from 1 to 1,000"),
        (f"FROM near('id-0', {K_MAX + 1})", "k is not from 1 to 1,000"),
        ("FROM similar('  ', 1)", "a text to embed is empty"),
        (f"FROM similar(repeat('a', {TEXT_CHARS_MAX + 1}), 1)", "32,769 characters"),
        ("SELECT embed(text) FROM events", r"embed\(\) is called for 40 rows at once"),
        ("SELECT nearest(embedding, 1, 1) FROM events", r"nearest\(\) is called for 32 rows"),
        ("SELECT nearest([1, 0], 1, 1)", "the vector has 2 numbers, those stored have 7"),
        ("SELECT nearest([0, 0, 0, 0, 0, 0, 0], 1, 1)", "has no direction"),
        ("SELECT nearest([1, 0, 0, NULL, 0, 0, 0], 1, 1)", "has a NULL in it"),
    ],
)
def test_what_is_refused(make, opened, fill, sql, says):
    store = opened()
    fill(store, vectors_of(1, 40))
    with pytest.raises(duckdb.Error, match=says):
        make.rows(store, sql)


def test_the_most_are_found(make, opened, fill):
    store = opened(rows_max=2 * K_MAX)
    vectors = np.abs(np.random.default_rng(1).normal(size=(K_MAX + 5, DIM))).astype(np.float32)
    fill(store, vectors)
    for sql in (f"similar('q', {K_MAX})", f"near('id-0', {K_MAX})"):
        assert make.rows(store, f"SELECT count(*) FROM {sql}") == [(K_MAX,)]


def test_null_asks_nothing(make, opened, fill):
    store = opened()
    fill(store, vectors_of(1, 5))
    for sql in ("similar(NULL, 3)", "similar('q', NULL)", "near(NULL, 3)"):
        assert make.rows(store, f"SELECT count(*) FROM {sql}") == [(0,)]


def test_no_model_is_said(make, opened, fill):
    store = opened(model=None)
    fill(store, vectors_of(1, 5))
    with pytest.raises(duckdb.Error, match="no stage of the workflow embeds a text"):
        make.rows(store, "FROM similar('q', 3)")
    assert make.rows(store, "SELECT count(*) FROM near('id-0', 2)") == [(2,)]


def test_a_model_that_is_not_here_is_said_each_time(make, opened, fill):
    def missing(texts):
        raise Refuse("models.missing", "embed/x@1 is not in /home/me", "streamapp models pull x")

    store = opened(model=missing)
    fill(store, vectors_of(1, 5))
    for _ in range(2):
        with pytest.raises(
            duckdb.Error, match=r"models.missing.*\(streamapp models pull x"
        ) as said:
            make.rows(store, "FROM similar('q', 3)")
        assert "/home" not in str(said.value)


def test_a_text_is_embedded_once(make, opened, fill):
    asked = []

    def counting(texts):
        asked.extend(texts)
        return embed(texts)

    store = opened(model=counting)
    fill(store, vectors_of(1, 5))
    for _ in range(3):
        make.rows(store, "FROM similar('q', 3)")
    assert asked == ["q"]


def test_a_read_that_fails_leaves_nothing_half_known(make, opened, fill, monkeypatch):
    store = opened()
    fill(store, vectors_of(1, 30))
    add = Matrix.add

    def failing(self, *arguments):
        add(self, *arguments)
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Matrix, "add", failing)
        with pytest.raises(duckdb.Error, match="MemoryError"):
            make.rows(store, "FROM similar('q', 3)")
    assert len(make.rows(store, "SELECT DISTINCT id FROM similar('q', 24)")) == 24


def test_a_column_that_is_no_vector_is_left_alone(make, open_store):
    store = open_store(columns={"embedding": pa.string()}, search=Search(embed))
    with pytest.raises(duckdb.CatalogException):
        make.rows(store, "FROM similar('q', 3)")


def test_who_forgets_to_close_hears_nothing():
    """The instance and its functions do not hold each other: all is freed when Python ends."""
    program = (
        "import numpy as np, pyarrow as pa\n"
        "from streamapp.sink import Store\n"
        "from streamapp.sink.search import Search\n"
        "search = Search(lambda texts: np.ones((1, 3), np.float32))\n"
        "columns = {'embedding': pa.list_(pa.float32(), 3)}\n"
        "store = Store.open(':memory:', columns=columns, search=search)\n"
        "print(store.reader().execute(\"FROM similar('x', 3)\").fetchall())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
