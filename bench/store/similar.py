"""The nearest of many vectors: similar() against NumPy on the same matrix and against plain SQL.

Run alone: ``python bench/store/similar.py [ROWS]``.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))

import report

from streamapp.core.batch import EVENT_SCHEMA, vector_column
from streamapp.sink import Store, StoredRecord
from streamapp.sink.search import Search
from streamapp.topics.enriched import Cover, Enriched

DIM = 384
K = 10
ROUNDS = 9
_RECORD_ROWS = 20_480


def measure(rows: int, folder: Path, rounds: int = ROUNDS) -> tuple[dict[str, float], list[str]]:
    """Ratios and a table row: median ms of one search, all subjects in turn, ``rows`` rows.

    ``numpy`` is what a program with the matrix in memory does: one product and argpartition.
    ``sql`` is the same question to DuckDB alone.  ``similar`` is the macro with all its rows in the
    matrix, from SQL text to a table with ids and texts; the text's vector is known already, since
    the model costs the same in each.  ``similar_half`` is the macro with room for half the rows.
    """
    vectors = _vectors(rows)
    query = vectors[rows // 3]
    whole = Search(lambda _texts: query[None], bytes_max=rows * (DIM * 4 + 20))
    store = _filled(folder / f"similar-{rows}.duckdb", vectors, whole)
    cursor = store.reader()

    def sql() -> list[tuple[object, ...]]:
        return cursor.execute(
            "SELECT id, text, array_inner_product(embedding, ?::FLOAT[384]) AS cosine "
            "FROM events ORDER BY cosine DESC LIMIT ?",
            [query.tolist(), K],
        ).fetchall()

    def similar() -> list[tuple[object, ...]]:
        return cursor.execute("SELECT id, text, cosine FROM similar('q', ?)", [K]).fetchall()

    def numpy() -> list[tuple[object, ...]]:
        cosines = vectors @ query
        best = np.argpartition(-cosines, K)[:K]
        return [(f"id-{n}",) for n in best[np.argsort(-cosines[best])]]

    first_s = _seconds(similar)
    subjects = {"numpy": numpy, "similar": similar, "sql": sql}
    answers = {name: [row[0] for row in ask()] for name, ask in subjects.items()}
    assert answers["numpy"] == answers["similar"] == answers["sql"], answers
    times = report.interleaved({n: lambda f=f: _seconds(f) for n, f in subjects.items()}, rounds)
    cursor.close()
    store.close()
    half = Search(lambda _texts: query[None], bytes_max=rows // 2 * (DIM * 4 + 20))
    columns = {"embedding": pa.list_(pa.float32(), DIM)}
    with Store.open(str(folder / f"similar-{rows}.duckdb"), columns=columns, search=half) as store:
        cursor = store.reader()
        assert [row[0] for row in similar()] == answers["numpy"]
        times["similar_half"] = [_seconds(similar) for _ in range(rounds)]
        cursor.close()
    ms = {name: statistics.median(figures) * 1000 for name, figures in times.items()}
    ratios = {
        f"similar_vs_numpy_{rows}": report.median_ratio(times["numpy"], times["similar"]),
        f"similar_vs_sql_{rows}": report.median_ratio(times["sql"], times["similar"]),
    }
    row = [
        f"{rows:,}",
        *(f"{ms[name]:.1f}" for name in ("numpy", "similar", "similar_half", "sql")),
    ]
    return ratios, [*row, f"{first_s * 1000:.0f}"]


HEADER = ["rows", "NumPy ms", "similar ms", "half in memory ms", "SQL alone ms", "first similar ms"]


def _vectors(rows: int) -> np.ndarray:
    vectors = np.random.default_rng(5).standard_normal((rows, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _filled(path: Path, vectors: np.ndarray, search: Search) -> Store:
    columns = {"embedding": pa.list_(pa.float32(), DIM)}
    store = Store.open(str(path), columns=columns, search=search, dedup_window_events=0)
    for first in range(0, len(vectors), _RECORD_ROWS):
        part = vectors[first : first + _RECORD_ROWS]
        cover = Cover(
            topic="events.raw", partition=0, first=first, next=first + len(part), rows=len(part)
        )
        rows = _rows(first, part)
        store.write([StoredRecord(Enriched(cover, rows), "events.enriched", 0, first + 1)])
    return store


def _rows(first: int, vectors: np.ndarray) -> pa.RecordBatch:
    numbers = np.arange(first, first + len(vectors))
    values = {
        "source_offset": numbers,
        "id": [f"id-{n}" for n in numbers],
        "type": ["message"] * len(numbers),
        "source": ["bench"] * len(numbers),
        "conversation": [f"c-{n % 5000}" for n in numbers],
        "actor": ["ann"] * len(numbers),
        "time": numbers * 1000,
        "ingest_time": numbers * 1000,
        "text": [f"message number {n} of a customer who wants something" for n in numbers],
        "duration_ms": np.zeros(len(numbers), np.float32),
        "payload": ["{}"] * len(numbers),
        "attachments": [None] * len(numbers),
    }
    arrays = [pa.array(values[field.name], field.type) for field in EVENT_SCHEMA]
    rows = pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)
    return rows.append_column("embedding", vector_column(vectors))


def _seconds(ask: Callable[[], object]) -> float:
    started = time.perf_counter()
    ask()
    return time.perf_counter() - started


def main() -> None:
    table = [HEADER]
    with TemporaryDirectory() as folder:
        for rows in [int(text) for text in sys.argv[1:]] or [100_000, 1_000_000]:
            ratios, row = measure(rows, Path(folder))
            table.append(row)
            print(ratios)
    report.show(table)


if __name__ == "__main__":
    main()
