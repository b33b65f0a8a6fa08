"""The Arrow Flight SQL JDBC driver, as DBeaver, DataGrip and Spark use it: a Java program runs."""

import subprocess
from pathlib import Path

import certificates
import duckdb
import pytest
from kafka_jars import Unavailable, jdbc_jar

from streamapp.flight import Certificate

PROGRAM = Path(__file__).with_name("jdbc") / "Main.java"


@pytest.fixture(scope="module")
def java():
    """``java(url)``: the facts that the program finds, by name."""
    try:
        jar = jdbc_jar()
    except Unavailable as error:
        pytest.skip(str(error))

    def run(url, *options):
        ran = subprocess.run(
            ["java", "--add-opens=java.base/java.nio=ALL-UNNAMED", *options, "-cp", jar, PROGRAM, url],
            capture_output=True, text=True, timeout=110, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr[-3000:]
        lines = [line.partition(" = ") for line in ran.stdout.splitlines()]
        return {name: value for name, _, value in lines}

    return run


EXPECTED = {
    "product": f"streamapp DuckDB {duckdb.__version__}",
    "read only": "true",
    "quote": '"',
    "keywords": "true",
    "union": "true",
    "transactions": "false",
    "group by": "true",
    "outer joins": "true",
    "statement length": str(1 << 20),
    "catalogs": "db |",
    "schemas": "main db |",
    "table types": "BASE TABLE | VIEW |",
    "tables": "ledger |",
    "columns": "topic VARCHAR | partition INTEGER | next BIGINT | stored_at TIMESTAMP_WITH_TIMEZONE |",
    "primary keys": "",
    "imported keys": "",
    "exported keys": "",
    "cross reference": "",
    "rows": 'id-0 1970-01-01 00:00:00.0 text 0 {"a": 1} | '
    'id-1 1970-01-01 00:00:00.001 text 1 {"a": 1} |',
    "count": "6000 |",
    "vector": "1024",
    "prepared": "id-0 | id-1 | then id-0 |",
    "still": "1 |",
}


@pytest.mark.timeout(240)
def test_by_token(java, serve):
    server = serve(token="sesame")
    found = java(
        f"jdbc:arrow-flight-sql://127.0.0.1:{server.port}/?useEncryption=false&token=sesame",
        "-Duser.timezone=UTC",
    )
    assert {name: found.get(name) for name in EXPECTED} == EXPECTED
    assert found["functions"].startswith("abs,")
    refused = [name for name in found if " ! " in name]
    assert len(refused) == 2
    assert "it is not a SELECT" in refused[0]
    assert '"nope" not found' in refused[1]


@pytest.mark.timeout(240)
def test_by_password_over_tls(java, serve, tmp_path):
    made = certificates.make(tmp_path)
    if made is None:
        pytest.skip("JDBC over TLS: no openssl on this machine")
    server = serve(token="sesame", options={"certificate": Certificate.read(*made)})
    found = java(
        f"jdbc:arrow-flight-sql://127.0.0.1:{server.port}/?useEncryption=true"
        f"&user=me&password=sesame&tlsRootCerts={made[0]}"
    )
    assert found["count"] == "6000 |"
    assert found["prepared"] == EXPECTED["prepared"]
