"""Views and macros as clients reach them: by ADBC and plain Flight, with a token that only reads."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import adbc_driver_flightsql.dbapi as flight_sql
import numpy as np
import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions

from streamapp.core.batch import vector_column
from streamapp.core.errors import Refuse
from streamapp.flight import Client, FlightServer
from streamapp.sink import Store
from streamapp.sink.matrix import unit
from streamapp.sink.search import Search

DIM, ROWS, TOKEN = 5, 300, "reads"
COLUMNS = {
    "embedding": pa.list_(pa.float32(), DIM),
    "intent": pa.string(),
    "sentiment": pa.float32(),
    "velocity": pa.float32(),
}


def embed(texts):
    return np.stack([unit(np.random.default_rng(list(t.encode())).normal(size=DIM)) for t in texts])


VECTORS = embed([f"text {n}" for n in range(ROWS)])


@pytest.fixture(scope="module")
def store(make, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("search") / "store.duckdb")
    search = Search(embed, bytes_max=100 * (DIM * 4 + 20))
    with Store.open(path, columns=COLUMNS, search=search) as opened:
        extra = {
            "embedding": vector_column(VECTORS),
            "intent": pa.array(["cancel", "greet", None] * (ROWS // 3)),
            "sentiment": pa.array([0.5] * ROWS, pa.float32()),
            "velocity": pa.array([0.7] * ROWS, pa.float32()),
        }
        events = [make.event(n) for n in range(ROWS)]
        opened.write([make.record(0, ROWS, events, stages=False, extra=extra)])
        opened.write([make.record(ROWS, ROWS + 1, rejects=[make.reject(ROWS)])])
        yield opened


@pytest.fixture(scope="module")
def server(store):
    with FlightServer(store.reader, port=0, read_token=TOKEN, token="other") as running:
        yield running


@pytest.fixture
def ask(server):
    """``ask(sql, *parameters)``: rows by ADBC."""
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {TOKEN}"}
    address = f"grpc://127.0.0.1:{server.port}"

    def rows(sql, *parameters):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # autocommit is not the driver's to switch off
            connection = flight_sql.connect(address, db_kwargs=options, autocommit=True)
        with connection, connection.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            return cursor.fetchall()

    return rows


def best(text, k, without=None):
    """Ids of the k nearest by NumPy."""
    cosines = VECTORS @ embed([text])[0]
    order = [int(n) for n in np.argsort(-cosines) if f"id-{n}" != without]
    return [f"id-{n}" for n in order[:k]]


def test_similar(ask):
    assert [row[0] for row in ask("SELECT id FROM similar('a refund', 12)")] == best("a refund", 12)


def test_similar_with_parameters(ask):
    rows = ask("SELECT id FROM similar(?, 7)", "where is my parcel")
    assert [row[0] for row in rows] == best("where is my parcel", 7)


def test_near(ask):
    rows = ask("SELECT id, cosine FROM near('id-7', 9)")
    assert [row[0] for row in rows] == best("text 7", 9, without="id-7")


def test_the_views(ask):
    assert ask("SELECT events, last_intent, mean_sentiment FROM conversations") == [
        (ROWS, "greet", 0.5)
    ]
    assert ask("SELECT sum(events) FROM intents_by_minute WHERE intent = 'cancel'") == [(100,)]
    assert ask("SELECT count(*) FROM velocity('c')") == [(ROWS,)]
    assert ask("SELECT count(*) FROM latest") == [(100,)]
    assert ask("SELECT source_offset, code FROM dead") == [(ROWS, "event.json")]


def test_macros_join(ask):
    rows = ask(
        "SELECT intent, count(*) FROM similar('a refund', 60) "
        "JOIN conversations USING (conversation) GROUP BY ALL ORDER BY ALL"
    )
    assert sum(count for _, count in rows) == 60


def test_many_at_once(ask):
    texts = [f"text of client {n}" for n in range(18)]
    with ThreadPoolExecutor(6) as clients:
        answers = clients.map(lambda text: ask(f"SELECT id FROM similar('{text}', 5)"), texts)
    for text, rows in zip(texts, answers, strict=True):
        assert [row[0] for row in rows] == best(text, 5)


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("FROM similar('a', 5000)", "k is not from 1 to 1,000"),
        ("FROM similar('a', 1001)", "k is not from 1 to 1,000"),
        ("SELECT nearest([NULL, 1]::FLOAT[], 1, 1)", "has a NULL in it"),
        ("FROM similar('', 5)", "a text to embed is empty"),
        ("SELECT embed(text) FROM events", "at once"),
    ],
)
def test_a_refusal_is_in_our_words(server, sql, says):
    with pytest.raises(Refuse, match=says) as refused:
        Client("127.0.0.1", server.port, TOKEN).query(sql)
    assert "Traceback" not in str(refused.value)
    assert "/" not in refused.value.message
