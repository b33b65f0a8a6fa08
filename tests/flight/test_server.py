"""What a Flight client gets: rows within limits, clear errors, and nothing else."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pyarrow as pa
import pytest
from machine import wait_for
from pyarrow import flight

from streamapp.core.errors import Refuse, Retry
from streamapp.flight import FlightServer
from streamapp.flight.client import query, stream

ENDLESS = "SELECT count(*) FROM range(100000000000) a, range(1000) b"
BIG = "SELECT a.* FROM events a, range(1000)"


def test_rows(served):
    table = served.query("SELECT id, time, embedding FROM events WHERE source_offset IN (1, 7)")
    assert table.column("id").to_pylist() == ["id-1", "id-7"]
    assert table.schema.field("time").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 1024)
    assert table.column("embedding")[1].as_py()[7] == 1.0
    assert served.results == ["ok"]


def test_no_rows_have_a_schema(served):
    table = served.query("SELECT id, embedding FROM events WHERE false")
    assert (table.num_rows, table.column_names) == (0, ["id", "embedding"])


def test_all_rows_in_messages_that_fit(served):
    with stream("127.0.0.1", served.port, "SELECT embedding FROM events") as reader:
        sizes = [(batch.num_rows, batch.nbytes) for batch in reader]
    assert sum(rows for rows, _ in sizes) == 6000
    assert max(size for _, size in sizes) <= 8 << 20


def test_views_and_macros(served):
    assert served.query("SELECT id FROM latest LIMIT 2")["id"].to_pylist() == ["id-5999", "id-5998"]
    near = served.query("SELECT id, cosine FROM near('id-3000', 3)").to_pylist()
    others = {"id-952", "id-1976", "id-4024", "id-5048"}
    assert {row["id"] for row in near} < others
    assert [row["cosine"] for row in near] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "sql", ["DESCRIBE events", "SHOW TABLES", "SUMMARIZE ledger", "EXPLAIN SELECT 1",
            "explain analyze select count(*) from events", "FROM ledger", "VALUES (1)",
            "WITH a AS (SELECT 1 AS x) SELECT * FROM a UNION ALL SELECT 2",
            "SELECT unnest([1, 2])", "SELECT * FROM information_schema.tables"],
)  # fmt: skip
def test_what_reads_is_allowed(served, sql):
    assert served.query(sql).num_rows > 0


def test_enums_come_as_strings(served):
    assert served.query("SELECT 'a'::ENUM ('a', 'b') AS e").to_pylist() == [{"e": "a"}]
    with pytest.raises(Refuse, match="ENUM inside a list"):
        served.query("SELECT ['a'::ENUM ('a', 'b')] AS e")


def test_tables_are_listed_and_described(served):
    with served.client() as client:
        infos = {info.descriptor.path[0]: info for info in client.list_flights()}
        assert {b"events", b"dead", b"ledger", b"latest"} <= set(infos)
        ticket = infos[b"ledger"].endpoints[0].ticket
        assert client.do_get(ticket).read_all().num_rows == 1
        path = flight.FlightDescriptor.for_path("events")
        assert client.get_schema(path).schema.names[:2] == ["source_topic", "source_partition"]
        info = client.get_flight_info(flight.FlightDescriptor.for_command(b"SELECT 42 AS a"))
        assert client.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"a": 42}]


def put(client):
    """Try to write rows."""
    path = flight.FlightDescriptor.for_path("events")
    writer, _ = client.do_put(path, pa.schema([("a", pa.int8())]))
    writer.close()


def test_errors_are_short_and_tell_nothing_of_the_host(served, store):
    with served.client() as client:
        calls = [
            lambda: client.do_get(flight.Ticket(b"selec")).read_all(),
            lambda: client.do_get(flight.Ticket(b"SELECT nope FROM events")).read_all(),
            lambda: client.do_get(flight.Ticket(b"SELECT text::INT FROM events")).read_all(),
            lambda: client.do_get(flight.Ticket(b"SELECT error('mine')")).read_all(),
            lambda: client.do_get(flight.Ticket(b"\xff\xfe")).read_all(),
            lambda: client.get_flight_info(flight.FlightDescriptor.for_command(b"selec")),
            lambda: client.get_flight_info(flight.FlightDescriptor.for_path("no", "such")),
            lambda: list(client.do_action("Drop")),
            lambda: list(client.do_action(flight.Action("CreatePreparedStatement", b"\x0a\xff"))),
            lambda: put(client),
        ]
        for call in calls:
            with pytest.raises((flight.FlightError, pa.ArrowException)) as caught:
                call()
            text = str(caught.value)
            assert len(text) < 1500
            for secret in ("Traceback", ".py", 'File "', store.path, "/work", "Stack"):
                assert secret not in text, text


@pytest.mark.parametrize("sql", ["", "  ", ";", "-- nothing", "/* nothing */"])
def test_an_empty_statement_is_called_empty(served, sql):
    with pytest.raises(Refuse, match="the statement is empty") as caught:
        served.query(sql)
    assert caught.value.code == "sql.empty"


def test_what_duckdb_cannot_plan_is_told_with_the_way_out(served):
    """LateMaterialization of DuckDB 2.0.0 fails on a condition on rowid under ORDER BY and LIMIT."""
    with pytest.raises(Refuse, match="cannot plan a LIMIT over a condition on rowid") as caught:
        served.query("SELECT * FROM events WHERE rowid < 100 ORDER BY time LIMIT 5")
    assert caught.value.code == "sql.engine"
    found = served.query(
        "WITH early AS MATERIALIZED (SELECT * FROM events WHERE rowid < 100)"
        "SELECT id FROM early ORDER BY time DESC LIMIT 1"
    )
    assert found.to_pylist() == [{"id": "id-99"}]


def test_duckdbs_own_words_reach_the_client(served):
    with pytest.raises(Refuse, match='syntax error at or near "selec"') as caught:
        served.query("selec 1")
    assert caught.value.code == "sql.syntax"
    with pytest.raises(Refuse, match='column "nope" not found') as caught:
        served.query("SELECT nope FROM events")
    assert caught.value.code == "sql.invalid"
    with pytest.raises(Refuse, match=r"Could not convert string 'text \d+' to INT32") as caught:
        served.query("SELECT text::INT FROM events")
    assert served.results == ["sql.syntax", "sql.invalid", "sql.invalid"]


def test_the_token_is_asked_for(serve):
    server = serve(token="sesame")
    assert server.query("SELECT 1 AS a").to_pylist() == [{"a": 1}]
    for token in ("", "sesam", "sesame2"):
        with pytest.raises(Refuse, match="token is missing or wrong") as caught:
            query("127.0.0.1", server.port, "SELECT 1", token)
        assert caught.value.code == "flight.token"
    with server.client() as client:
        for call in (
            lambda: list(client.list_flights()),
            lambda: list(client.list_actions()),
            lambda: list(client.do_action("CreatePreparedStatement")),
            lambda: client.get_flight_info(flight.FlightDescriptor.for_command(b"SELECT 1")),
        ):
            with pytest.raises(flight.FlightUnauthenticatedError):
                call()


def test_a_token_that_no_header_holds_is_refused(store):
    with pytest.raises(Refuse, match="not printable ASCII"):
        FlightServer(store.reader, port=0, token="sésame")
    with pytest.raises(Refuse, match="not printable ASCII"):
        query("127.0.0.1", 1, "SELECT 1", "a\nb")


def test_a_runaway_query_is_stopped_at_the_limit(serve):
    server = serve(seconds_max=0.3)
    with pytest.raises(Refuse, match=r"took longer than 0\.3 s") as caught:
        server.query(ENDLESS)
    assert caught.value.code == "sql.time"
    wait_for(lambda: server.server.running == 0)


def test_a_client_that_does_not_read_is_stopped_at_the_limit(serve, store):
    """Its snapshot is let go of, although its call stays open."""
    server = serve(seconds_max=3)
    with server.client() as client:
        reader = client.do_get(flight.Ticket(BIG.encode()))
        reader.read_chunk()
        wait_for(lambda: server.server.running == 0)
        with pytest.raises(flight.FlightTimedOutError, match="took longer"):
            reader.read_all()
    assert store.reader().execute("SELECT count(*) FROM events").fetchall() == [(6000,)]


def test_too_many_rows_are_an_error_not_a_cut(serve):
    server = serve(rows_max=100)
    assert server.query("SELECT * FROM range(100)").num_rows == 100
    with pytest.raises(Refuse, match="more than 100 rows"):
        server.query("SELECT * FROM range(101)")
    assert server.results == ["ok", "sql.rows"]


def test_a_row_too_large_to_send_is_an_error(serve):
    server = serve(batch_bytes_max=1 << 10, row_bytes_max=1 << 16)
    assert server.query("SELECT repeat('x', 60000) AS x")["x"][0].as_py() == "x" * 60000
    with pytest.raises(Refuse, match="a row of the answer has 70,0.. bytes, 65,536 are sent"):
        server.query("SELECT repeat('x', 70000) AS x")
    assert server.results == ["ok", "sql.row_bytes"]


@pytest.mark.parametrize("sql", [ENDLESS, BIG], ids=["blocking", "streaming"])
def test_cancelling_frees_the_cursor(served, sql):
    with served.client() as client:
        reader = client.do_get(flight.Ticket(sql.encode())) if sql is BIG else None
        if reader is None:
            options = flight.FlightCallOptions(timeout=0.3)
            with pytest.raises(flight.FlightTimedOutError):
                client.do_get(flight.Ticket(sql.encode()), options).read_all()
        else:
            reader.read_chunk()
            assert served.server.running == 1
            reader.cancel()
        wait_for(lambda: served.server.running == 0)
    assert served.query("SELECT 1 AS a").num_rows == 1


def test_a_client_that_hangs_up_frees_the_cursor(served):
    with served.client() as client:
        client.do_get(flight.Ticket(BIG.encode())).read_chunk()
        assert served.server.running == 1
    wait_for(lambda: served.server.running == 0)


def test_no_more_statements_than_the_limit(serve):
    server = serve(statements_max=1, wait_seconds_max=0.05)
    with stream("127.0.0.1", server.port, BIG) as reader:
        reader.read_next_batch()
        with pytest.raises(Retry, match="1 statements are running already") as caught:
            server.query("SELECT 1")
        assert caught.value.code == "flight.busy"
    wait_for(lambda: server.server.running == 0)
    assert server.query("SELECT 1").num_rows == 1


def test_stop_interrupts_what_runs(serve):
    server = serve()
    errors = []

    def run():
        try:
            server.query(ENDLESS)
        except Retry as error:
            errors.append(error.code)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: server.server.running == 1)
    server.server.stop()
    thread.join(10)
    assert errors == ["flight.closing"]
    server.server.stop()
    with pytest.raises(Retry, match=f"nothing answers at 127.0.0.1:{server.port}") as caught:
        server.query("SELECT 1")
    assert caught.value.fix == "streamapp up"


def test_stop_hangs_up_on_a_client_that_does_not_read(serve):
    server = serve()
    with server.client() as client:
        reader = client.do_get(flight.Ticket(BIG.encode()))
        reader.read_chunk()
        stopping = threading.Thread(target=server.server.stop)
        stopping.start()
        stopping.join(30)
        assert not stopping.is_alive()
        with pytest.raises((flight.FlightError, pa.ArrowException)):
            reader.read_all()


def test_a_port_in_use_is_refused(served, store):
    with pytest.raises(Refuse, match=f"127.0.0.1:{served.port}: Address already in use"):
        FlightServer(store.reader, port=served.port)
    with pytest.raises(Refuse, match="Cannot assign requested address"):
        FlightServer(store.reader, host="203.0.113.1", port=0, token="sesame")


def test_ipv6(store):
    try:
        server = FlightServer(store.reader, host="::1", port=0)
    except Refuse as error:
        pytest.skip(f"this host has no IPv6: {error.message}")
    with server:
        assert query("::1", server.port, "SELECT 1 AS a").to_pylist() == [{"a": 1}]


def test_a_silent_host_is_a_retry():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(Retry) as caught:
            query("127.0.0.1", port, "SELECT 1", timeout_s=0.3)
    assert caught.value.code in {"flight.timeout", "flight.unreachable"}


def test_readers_do_not_wait_for_each_other(served, store):
    """A client that holds a stream open has its snapshot, whatever else is asked meanwhile."""
    with stream("127.0.0.1", served.port, "SELECT source_offset, embedding FROM events") as reader:
        first = reader.read_next_batch().num_rows
        cursor = store.reader()
        assert cursor.execute("SELECT count(*) FROM ledger").fetchall() == [(1,)]
        cursor.close()
        assert first + sum(batch.num_rows for batch in reader) == 6000


def test_another_server_is_named_as_such():
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            with pytest.raises(Retry, match=f"127.0.0.1:{server.server_port} is no Flight server"):
                query("127.0.0.1", server.server_port, "SELECT 1", timeout_s=10)
        finally:
            server.shutdown()
            serving.join()
