"""Flight SQL as drivers speak it: adbc-driver-flightsql over the wire."""

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pytest
from pyarrow import flight

from streamapp.flight import FlightServer, wire


@pytest.fixture
def connection(serve):
    server = serve(token="sesame")
    options = {"adbc.flight.sql.authorization_header": "Bearer sesame"}
    with flightsql.connect(server.uri, db_kwargs=options, autocommit=True) as opened:
        yield opened


@pytest.fixture
def cursor(connection):
    with connection.cursor() as opened:
        yield opened


def test_execute(cursor):
    cursor.execute("SELECT count(*) AS n, max(id) AS id FROM events")
    assert cursor.fetchall() == [(6000, "id-999")]


def test_zero_rows(cursor):
    cursor.execute("SELECT * FROM dead")
    assert cursor.fetch_arrow_table().num_rows == 0


def test_parameters(cursor):
    sql = "SELECT id FROM events WHERE source_offset BETWEEN ? AND ? AND type = ? ORDER BY 1"
    cursor.execute(sql, parameters=(10, 12, "message"))
    assert cursor.fetchall() == [("id-10",), ("id-11",), ("id-12",)]
    vector = [0.0] * 1023 + [1.0]
    cursor.execute(
        "SELECT count(*) FROM events WHERE array_inner_product(embedding, ?::FLOAT[1024]) > 0.5",
        parameters=(vector,),
    )
    assert cursor.fetchall() == [(5,)]
    cursor.execute("SELECT ? IS NULL, ?", parameters=(None, b"\x00\xff"))
    assert cursor.fetchall() == [(True, b"\x00\xff")]


def test_more_than_ten_parameters_keep_their_order(cursor):
    cursor.execute(f"SELECT [{', '.join('?' * 12)}]", parameters=tuple(range(12)))
    assert cursor.fetchone() == (list(range(12)),)


@pytest.mark.parametrize("given", [(), (1,), (1, 2, 3)])
def test_the_wrong_number_of_parameters(cursor, given):
    with pytest.raises(adbc_driver_manager.Error, match="parameters"):
        cursor.execute("SELECT ?, ?", parameters=given)


def test_big_embeddings_fit_the_drivers_messages(cursor):
    """6,000 vectors of 4 KiB are 24 MB; the driver takes no message above 16 MiB."""
    cursor.execute("SELECT id, embedding FROM events ORDER BY source_offset")
    table = cursor.fetch_arrow_table()
    assert table.num_rows == 6000
    assert table["embedding"][1025].as_py().index(1.0) == 1


def test_get_objects(connection):
    (catalog,) = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    assert catalog["catalog_name"] == "db"
    (schema,) = catalog["catalog_db_schemas"]
    tables = {table["table_name"]: table for table in schema["db_schema_tables"]}
    assert tables["latest"]["table_type"] == "VIEW"
    names = [column["column_name"] for column in tables["events"]["table_columns"]]
    assert names[-1] == "embedding"
    some = connection.adbc_get_objects(
        depth="tables", table_name_filter="l%", table_types_filter=["VIEW"]
    )
    (catalog,) = some.read_all().to_pylist()
    (found,) = catalog["catalog_db_schemas"][0]["db_schema_tables"]
    assert found["table_name"] == "latest"


def test_get_table_schema_and_types(connection):
    schema = connection.adbc_get_table_schema("events")
    assert schema.field("embedding").type == pa.list_(pa.float32(), 1024)
    assert connection.adbc_get_table_types() == ["BASE TABLE", "VIEW"]


def test_get_info(connection):
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "streamapp"
    assert info["vendor_version"].startswith("DuckDB 2.")


@pytest.mark.parametrize(
    "sql",
    ["selec 1", "SELECT nope FROM events", "DROP TABLE events", "INSERT INTO meta VALUES (1, 2)"],
)
def test_errors_have_no_traceback(cursor, sql):
    with pytest.raises(adbc_driver_manager.Error) as caught:
        cursor.execute(sql)
    assert "Traceback" not in str(caught.value)
    assert ".py" not in str(caught.value)


def test_writing_is_refused(cursor):
    with pytest.raises(adbc_driver_manager.Error, match="takes no events"):
        cursor.adbc_ingest("meta", pa.table({"name": ["a"], "value": ["b"]}), mode="append")


def test_updating_is_refused(cursor):
    cursor.adbc_statement.set_sql_query("DELETE FROM meta")
    with pytest.raises(adbc_driver_manager.Error, match="read only"):
        cursor.adbc_statement.execute_update()


def test_the_wrong_token(serve):
    server = serve(token="sesame")
    options = {"adbc.flight.sql.authorization_header": "Bearer other"}
    with (
        flightsql.connect(server.uri, db_kwargs=options, autocommit=True) as connection,
        connection.cursor() as cursor,
        pytest.raises(adbc_driver_manager.Error, match="token is missing or wrong"),
    ):
        cursor.execute("SELECT 1")


def test_cancel(cursor):
    cursor.execute("SELECT a.* FROM events a, range(1000)")
    cursor.fetchone()
    cursor.adbc_cancel()


def test_a_query_is_bound_no_more_often_than_its_parameters_ask(store):
    """ADBC prepares each one: its parameters, its schema, its rows; then also what was bound."""
    opened = []

    def reader():
        opened.append(1)
        return store.reader()

    with (
        FlightServer(reader, port=0) as server,
        flightsql.connect(f"grpc://127.0.0.1:{server.port}", autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        for sql, parameters, expected, times in (
            ("SELECT 1", None, [(1,)], None),
            ("SELECT id FROM events WHERE source_offset = 7", None, [("id-7",)], 3),
            ("SELECT ? + 1 AS n", (2**40,), [(2**40 + 1,)], 4),
        ):
            opened.clear()
            cursor.execute(sql, parameters=parameters)
            assert cursor.fetchall() == expected
            assert times in {None, len(opened)}


def test_a_prepared_statement_that_is_gone(served):
    command = wire.pack("CommandPreparedStatementQuery", (1, b"unknown"))
    with served.client() as client:
        with pytest.raises(flight.FlightServerError, match="is gone"):
            client.get_flight_info(flight.FlightDescriptor.for_command(command))
        with pytest.raises(flight.FlightServerError, match="is gone"):
            client.do_get(flight.Ticket(command)).read_all()


def test_named_parameters_are_matched_by_column(served):
    """As a driver that binds by name sends them."""
    request = wire.pack(
        "ActionCreatePreparedStatementRequest", (1, "SELECT $b::INT - $a::INT AS d")
    )
    with served.client() as client:
        (result,) = client.do_action(flight.Action("CreatePreparedStatement", request))
        name, message = wire.unpack(result.body.to_pybytes())
        assert name == "ActionCreatePreparedStatementResult"
        handle = wire.first_bytes(message, 1)
        command = wire.pack("CommandPreparedStatementQuery", (1, handle))
        descriptor = flight.FlightDescriptor.for_command(command)
        for columns, expected in ((("b", "a"), 7), (("a", "b"), -7)):
            batch = pa.record_batch([[10], [3]], names=columns)
            writer, reader = client.do_put(descriptor, batch.schema)
            writer.write_batch(batch)
            writer.done_writing()
            assert wire.first_bytes(wire.decode(reader.read().to_pybytes()), 1) == handle
            writer.close()
            info = client.get_flight_info(descriptor)
            answer = client.do_get(info.endpoints[0].ticket).read_all()
            assert answer.to_pylist() == [{"d": expected}]
        close = wire.pack("ActionClosePreparedStatementRequest", (1, handle))
        list(client.do_action(flight.Action("ClosePreparedStatement", close)))
        with pytest.raises(flight.FlightServerError, match="is gone"):
            client.get_flight_info(descriptor)
