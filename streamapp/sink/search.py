"""Vectors in SQL: ``embed(text)`` and ``nearest(vector, k, last_row)``, functions of the instance.

The macros ``similar`` and ``near`` are made of them (:mod:`streamapp.sink.views`).
"""

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from functools import partial

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import PythonUDFType

from streamapp.core.errors import Refuse, Retry, StreamappError
from streamapp.sink import duck
from streamapp.sink.matrix import K_MAX, Hit, Matrix, Vectors, best, unit

_log = logging.getLogger(__name__)

#: Texts to vectors, (n, dim): the model that wrote column ``embedding``.
Embed = Callable[[Sequence[str]], Vectors]
#: A new cursor of the instance.
Cursor = Callable[[], duckdb.DuckDBPyConnection]
#: Number, topic, partition and offset of a row; None when there is none.
Address = tuple[int, str, int, int] | None

TEXT_CHARS_MAX = 32_768
#: Rows that one call of DuckDB's may bring: nothing interrupts Python in the middle of one.
CALL_ROWS_MAX = 16
_SEARCHING = frozenset({"near", "nearest", "similar"})
_LOOK_EVERY_S = 0.05
_TEXTS_KEPT = 64
_READ_ROWS = 8192
_HITS = pa.list_(
    pa.struct(
        [
            pa.field("topic", pa.string()),
            pa.field("partition", pa.int32()),
            pa.field("offset", pa.int64()),
            pa.field("cosine", pa.float32()),
        ]
    )
)


class Search:
    """Exact nearest neighbours over ``events.embedding``, from memory for the newest rows.

    The matrix is made when it is first asked for, and each search reads what was stored since: so
    it has every row that the asking statement sees, and costs a store that nobody searches nothing.
    Rows older than the matrix holds are searched by DuckDB.

    Args:
        embed: texts to vectors; None when no stage embeds.
        bytes_max: what the matrix may take.
        row: the column that numbers rows in the order they were stored.
    """

    def __init__(
        self, embed: Embed | None = None, *, bytes_max: int = 512 << 20, row: str = "rowid"
    ) -> None:
        self._model = embed
        self._bytes_max = bytes_max
        self._row = row
        self._cursor: Cursor | None = None
        self._lock = threading.Lock()
        self._inference = threading.Lock()
        self._texts: OrderedDict[str, Vectors] = OrderedDict()
        self._forget()

    def install(self, root: duckdb.DuckDBPyConnection, cursor: Cursor | None = None) -> None:
        """Give an instance the two functions.

        Args:
            root: a connection to the instance.
            cursor: a new one in whose current database is ``events``; default: that of the store.
        """
        self._cursor = cursor or partial(duck.cursor, root)
        me = weakref.proxy(self)  # an instance that held us, as we hold it, would never go
        root.create_function(
            "embed",
            lambda texts: me.embed(texts),  # noqa: PLW0108  # me.embed would hold us
            ["VARCHAR"],
            "FLOAT[]",
            type=PythonUDFType.ARROW,
        )
        root.create_function(
            "nearest",
            lambda vectors, counts, last_rows: me.nearest(vectors, counts, last_rows),  # noqa: PLW0108
            ["FLOAT[]", "BIGINT", "BIGINT"],
            'STRUCT(topic VARCHAR, "partition" INTEGER, "offset" BIGINT, cosine FLOAT)[]',
            type=PythonUDFType.ARROW,
            side_effects=True,  # rows come: the same arguments have another answer
        )

    def prepare(self, functions: AbstractSet[str], check: Callable[[], None]) -> None:
        """Read what a statement that calls these functions will search.

        The first search of a large store reads for seconds, and inside of DuckDB nothing would end
        that.

        Args:
            functions: their names; most statements search nothing.
            check: called between batches; ends the reading with what it raises.

        Raises:
            Refuse: the store has no vectors.
            Retry: the store is closed.
        """
        if functions.isdisjoint(_SEARCHING):
            return
        while not self._lock.acquire(timeout=_LOOK_EVERY_S):
            check()
        try:
            with self._open_cursor() as cursor:
                cursor.execute("BEGIN TRANSACTION READ ONLY").fetchall()
                self._refreshed(cursor, check)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Let go of the instance and of the matrix."""
        self._cursor = None  # a read that is under way sees it
        with self._lock:
            self._forget()

    def embed(self, texts: pa.ChunkedArray) -> pa.Array:
        """SQL's ``embed(VARCHAR) -> FLOAT[]``.

        Raises:
            Refuse: a text is empty or too long, they are too many, or the model is not here.
        """
        _check_rows("embed", len(texts))
        return pa.array([self._vector(text) for text in texts.to_pylist()], pa.list_(pa.float32()))

    def _vector(self, text: str) -> Vectors:
        if not text.strip():
            raise Refuse("sql.text", "a text to embed is empty")
        if len(text) > TEXT_CHARS_MAX:
            what = f"a text to embed has {len(text):,} characters"
            raise Refuse("sql.text", what, f"{TEXT_CHARS_MAX:,} are the most")
        if self._model is None:
            what = "no stage of the workflow embeds a text alone"
            raise Refuse("sql.model", what, "near(id, k) needs none")
        with self._inference:  # planning and execution ask for the same text
            if text not in self._texts:
                self._texts[text] = self._inferred(self._model, text)
                if len(self._texts) > _TEXTS_KEPT:
                    self._texts.popitem(last=False)
            return self._texts[text]

    def _inferred(self, model: Embed, text: str) -> Vectors:
        try:
            vectors = model([text])
        except StreamappError as error:  # its message names this machine's files
            _log.warning("no text can be embedded: %s", error)
            what = f"the store cannot embed texts: {error.code}, its log says more"
            raise Refuse("sql.model", what, error.fix) from None
        vector: Vectors = vectors[0]
        return vector

    def nearest(
        self, vectors: pa.ChunkedArray, counts: pa.ChunkedArray, last_rows: pa.ChunkedArray
    ) -> pa.Array:
        """SQL's ``nearest(FLOAT[], k, last_row) -> STRUCT(topic, partition, offset, cosine)[]``.

        Raises:
            Refuse: ``k`` or a vector is out of range, or they are too many.
            Retry: the store is closed.
        """
        _check_rows("nearest", len(vectors))
        asked = zip(vectors, counts.to_pylist(), last_rows.to_pylist(), strict=True)
        hits = [self._hits(_numbers(vector), k, last) for vector, k, last in asked]
        return pa.array([[hit._asdict() for hit in one] for one in hits], _HITS)

    def _hits(self, vector: Vectors, k: int, last_row: int) -> list[Hit]:
        if not 1 <= k <= K_MAX + 1:  # near(id, k) asks for itself too
            raise Refuse("sql.k", f"k is not from 1 to {K_MAX:,}")
        query = unit(vector)
        if query is None:
            raise Refuse("sql.vector", "the vector to search has no direction")
        with self._lock, self._open_cursor() as cursor:
            cursor.execute("BEGIN TRANSACTION READ ONLY").fetchall()
            matrix = self._refreshed(cursor)
            if len(query) != matrix.dim:
                what = f"the vector has {len(query)} numbers, those stored have {matrix.dim}"
                raise Refuse("sql.vector", what)
            hits = matrix.nearest(query, k, last_row)
            if matrix.first_row == 0:
                return hits
            # A row that DuckDB renumbered since may come twice.
            return best([*hits, *self._older(cursor, matrix, query, k, last_row)], k)

    def _open_cursor(self) -> duckdb.DuckDBPyConnection:
        cursor = self._cursor
        if cursor is None:
            raise _closed()
        return cursor()

    def _forget(self) -> None:
        self._matrix: Matrix | None = None
        self._rows = 0
        self._last: Address = None

    def _refreshed(
        self, cursor: duckdb.DuckDBPyConnection, check: Callable[[], None] = lambda: None
    ) -> Matrix:
        """The matrix with all that this transaction sees.

        Rows are numbered as they are stored.  When some were deleted there are fewer than those
        known and the new ones together, or the last known one has another number.  (A checkpoint
        after that may give rows smaller numbers, in the same order; only the last one's matters.)
        """
        if self._last is not None:
            known = self._last[0]
            sql = f"SELECT count(*), count(*) FILTER ({self._row} > {known}) FROM events"  # noqa: S608
            ((rows, new),) = cursor.execute(sql).fetchall()
            if rows != self._rows + new or self._address(cursor, known) != self._last:
                self._forget()
            elif not new and self._matrix is not None:
                return self._matrix
        try:
            return self._read_on(cursor, check)
        except BaseException:
            self._forget()  # it may have some of the new rows
            raise

    def _read_on(self, cursor: duckdb.DuckDBPyConnection, check: Callable[[], None]) -> Matrix:
        sql = f"SELECT count(*), max({self._row}) FROM events"  # noqa: S608
        ((rows, last),) = cursor.execute(sql).fetchall()
        dim = _dim(cursor)
        rows_max = max(1, self._bytes_max // (dim * 4 + Matrix.ROW_BYTES))
        first = (self._last[0] if self._last else -1) + 1
        if self._matrix is None or (last or 0) - first >= rows_max:
            first = max(0, (last or 0) + 1 - rows_max)
            self._matrix = Matrix(rows_max, dim, first)
        sql = f"""SELECT {self._row}, source_topic, source_partition, source_offset, embedding
            FROM events WHERE {self._row} >= {first} AND embedding IS NOT NULL"""  # noqa: S608
        for batch in cursor.sql(sql).to_arrow_reader(_READ_ROWS):
            if self._cursor is None:
                raise _closed()
            check()
            _add(self._matrix, batch)
        self._rows, self._last = rows, self._address(cursor, last)
        return self._matrix

    def _address(self, cursor: duckdb.DuckDBPyConnection, row: int | None) -> Address:
        sql = f"""SELECT {self._row}, source_topic, source_partition, source_offset
            FROM events WHERE {self._row} = ?"""  # noqa: S608
        found = cursor.execute(sql, [row]).fetchall()
        return found[0] if found else None

    def _older(
        self,
        cursor: duckdb.DuckDBPyConnection,
        matrix: Matrix,
        query: Vectors,
        k: int,
        last_row: int,
    ) -> list[Hit]:
        """The best k of the rows before those of the matrix."""
        # The address by a join: with a LIMIT and a row number in WHERE, DuckDB 2.0.0 fails
        # (INTERNAL Error in LateMaterialization) as soon as it could fetch columns late.
        # NaN, of a vector without direction, comes last in rising order.
        sql = f"""SELECT source_topic, source_partition, source_offset, -away FROM events JOIN
            (SELECT {self._row} AS number,
                    -array_cosine_similarity(embedding, ?::FLOAT[{matrix.dim}]) AS away
             FROM events WHERE number < ? AND number <= ? AND embedding IS NOT NULL
             ORDER BY away, number LIMIT ?) AS found
            ON found.number = events.{self._row} AND isfinite(away)"""  # noqa: S608
        found = cursor.execute(sql, [query.tolist(), matrix.first_row, last_row, k]).fetchall()
        return [Hit(*row) for row in found]


def _add(matrix: Matrix, batch: pa.RecordBatch) -> None:
    """Add rows of any sources, in order."""
    rows, topics, partitions, offsets, embeddings = batch.columns
    flat = embeddings.flatten().to_numpy(zero_copy_only=False)
    vectors = flat.reshape(-1, matrix.dim)
    topics = topics.dictionary_encode()
    names = topics.dictionary.to_pylist()
    numbers = topics.indices.to_numpy(), partitions.to_numpy()
    changes = np.flatnonzero(np.any([np.diff(part) != 0 for part in numbers], axis=0)) + 1
    for first, next_ in zip([0, *changes], [*changes, len(vectors)], strict=True):
        source = names[numbers[0][first]], int(numbers[1][first])
        part = slice(first, next_)
        matrix.add(source, rows.to_numpy()[part], offsets.to_numpy()[part], vectors[part])


def _dim(cursor: duckdb.DuckDBPyConnection) -> int:
    """How many numbers a stored vector has."""
    table = cursor.sql("SELECT * FROM events LIMIT 0").to_arrow_table()
    names = {name.lower(): name for name in table.column_names}
    kind = table.schema.field(names["embedding"]).type if "embedding" in names else None
    if kind is None or not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32():
        raise Refuse("sql.vector", "the store has no column embedding of type FLOAT[n]")
    return int(kind.list_size)


def _numbers(vector: pa.ListScalar) -> Vectors:
    if vector.values.null_count:
        raise Refuse("sql.vector", "the vector to search has a NULL in it")
    numbers: Vectors = vector.values.to_numpy()
    return numbers


def _closed() -> Retry:
    return Retry("store.closed", "the store is not open", "wait for the store")


def _check_rows(name: str, rows: int) -> None:
    if rows > CALL_ROWS_MAX:
        what = f"{name}() is called for {rows:,} rows at once"
        raise Refuse("sql.rows_at_once", what, f"{CALL_ROWS_MAX} are the most")
