"""The clients that people have: pandas, polars, ADBC's metadata at every depth, plain Flight."""

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import flight

from streamapp.flight import wire


@pytest.fixture
def connection(served):
    with flightsql.connect(served.uri, autocommit=True) as opened:
        yield opened


def test_pandas(connection):
    frame = pd.read_sql(
        "SELECT id, time FROM events WHERE source_offset < 3 ORDER BY 1", connection
    )
    assert frame["id"].tolist() == ["id-0", "id-1", "id-2"]
    assert str(frame["time"].dt.tz) == "UTC"


def test_polars(connection):
    frame = pl.read_database(
        "SELECT id, embedding FROM events ORDER BY source_offset LIMIT 2", connection
    )
    assert frame["id"].to_list() == ["id-0", "id-1"]
    assert frame.schema["embedding"] == pl.Array(pl.Float32, 1024)


def test_columns_of_one_name(connection, served):
    """As a join has them; what is announced is what comes."""
    sql = "SELECT one.id, two.id, 3 AS id_1 FROM events AS one JOIN events AS two USING (source_offset)"
    names = ["id", "id", "id_1"]
    with connection.cursor() as cursor:
        cursor.execute(f"{sql} WHERE one.source_offset < ?", (2,))
        assert cursor.fetch_arrow_table().column_names == names
        cursor.execute(f"{sql} LIMIT 2")
        assert cursor.fetch_arrow_table().column_names == names
    assert pd.read_sql(f"{sql} LIMIT 2", connection).columns.tolist() == names
    with served.client() as client:
        info = client.get_flight_info(flight.FlightDescriptor.for_command(sql.encode()))
    assert info.schema.names == names


@pytest.mark.parametrize("depth", ["catalogs", "db_schemas", "tables", "all"])
def test_objects_at_every_depth(connection, depth):
    (catalog,) = connection.adbc_get_objects(depth=depth).read_all().to_pylist()
    assert catalog["catalog_name"] == "db"
    schemas = catalog["catalog_db_schemas"]
    assert (schemas is None) == (depth == "catalogs")
    if schemas is None:
        return
    (schema,) = schemas
    assert schema["db_schema_name"] == "main"
    tables = {t["table_name"]: t for t in schema["db_schema_tables"] or []}
    assert bool(tables) == (depth in {"tables", "all"})
    if depth == "all":
        columns = [column["column_name"] for column in tables["ledger"]["table_columns"]]
        assert columns == ["topic", "partition", "first", "next", "lost", "rows", "stored_at"]
        assert tables["latest"]["table_type"] == "VIEW"


def test_objects_by_filter(connection):
    found = connection.adbc_get_objects(
        depth="tables", table_name_filter="le%", table_types_filter=["BASE TABLE"]
    ).read_all().to_pylist()  # fmt: skip
    (schema,) = found[0]["catalog_db_schemas"]
    assert [table["table_name"] for table in schema["db_schema_tables"]] == ["ledger"]
    nothing = connection.adbc_get_objects(depth="tables", catalog_filter="nope").read_all()
    assert nothing.num_rows == 0


def test_a_table_that_is_not_there(connection):
    with pytest.raises(adbc_driver_manager.Error):
        connection.adbc_get_table_schema("nope")


def test_executing_many_is_for_writing(connection):
    with connection.cursor() as cursor, pytest.raises(adbc_driver_manager.Error, match="read only"):
        cursor.executemany("SELECT ?", [(1,), (2,)])


def test_the_types_of_parameters(connection):
    with connection.cursor() as cursor:
        schema = cursor.adbc_prepare(
            "SELECT id FROM events WHERE time > ? AND source_offset IN (?, ?) AND id LIKE ? "
            "AND duration_ms BETWEEN ? AND 5 AND ?::DATE IS NULL LIMIT ? OFFSET ?"
        )
    assert schema.types == [
        pa.timestamp("us", tz="UTC"), pa.int64(), pa.int64(), pa.string(), pa.float32(),
        pa.date32(), pa.int64(), pa.int64(),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "sql", ["WITH a AS (SELECT 1 AS x) FROM a", "VALUES (1, 'a')", "FROM ledger", "SHOW TABLES",
            "DESCRIBE events", "EXPLAIN SELECT 1", "SUMMARIZE ledger"],
)  # fmt: skip
def test_every_kind_that_reads(connection, sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        assert cursor.fetch_arrow_table().num_rows >= 1


def command(client, name, *fields):
    """The answer to a metadata command of Flight SQL."""
    message = wire.pack(name, *fields)
    info = client.get_flight_info(flight.FlightDescriptor.for_command(message))
    table = client.do_get(info.endpoints[0].ticket).read_all()
    assert table.schema == info.schema
    return table


@pytest.mark.parametrize(
    "name", ["CommandGetPrimaryKeys", "CommandGetImportedKeys", "CommandGetExportedKeys",
             "CommandGetCrossReference"],
)  # fmt: skip
def test_there_are_no_keys(served, name):
    with served.client() as client:
        assert command(client, name, (3, "events")).num_rows == 0


def test_types(served):
    with served.client() as client:
        every = command(client, "CommandGetXdbcTypeInfo").to_pylist()
        assert {"VARCHAR", "BIGINT", "TIMESTAMP", "BLOB"} <= {row["type_name"] for row in every}
        (one,) = command(client, "CommandGetXdbcTypeInfo", (1, 12)).to_pylist()
        assert (one["type_name"], one["literal_prefix"]) == ("VARCHAR", "'")
        (negative,) = command(client, "CommandGetXdbcTypeInfo", (1, -7)).to_pylist()
        assert negative["type_name"] == "BOOLEAN"


def test_every_info(served):
    with served.client() as client:
        every = dict(zip(*command(client, "CommandGetSqlInfo").to_pydict().values(), strict=True))
        assert (every[0], every[3], every[504], every[557]) == ("streamapp", True, '"', 1 << 20)
        assert "select" in every[508]
        assert set(range(500, 576)) <= set(every)
        some = command(client, "CommandGetSqlInfo", (1, 8), (1, 4), (1, 99_999))
        assert some["info_name"].to_pylist() == [8, 4]
