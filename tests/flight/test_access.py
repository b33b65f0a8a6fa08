"""Who may do what: tokens, logins by password, TLS, and the address that is bound."""

import adbc_driver_flightsql.dbapi
import certificates
import pytest
from adbc_driver_flightsql import DatabaseOptions
from pyarrow import flight

from streamapp.core.config import Settings
from streamapp.core.errors import Refuse, Retry
from streamapp.flight import Certificate, Client, FlightServer
from streamapp.flight.access import is_local


@pytest.fixture
def pem(tmp_path):
    """A certificate and its key."""
    made = certificates.make(tmp_path)
    if made is None:
        pytest.skip("TLS of the Flight server: no openssl on this machine")
    return made


@pytest.mark.parametrize("token", ["produce", "read", "admin"])
def test_each_token_reads(serve, token):
    server = serve(token="produce", options={"read_token": "read", "admin_token": "admin"})
    assert Client("127.0.0.1", server.port, token).query("SELECT 1 AS a").num_rows == 1


@pytest.mark.parametrize("scheme", [b"", b"produce", b"Basic", b"Basic !!", b"Basic cHJvZHVjZQ==",
                                    b"bearer", b"Digest produce", b"Bearer produce x"])  # fmt: skip
def test_what_is_no_token_is_refused(serve, scheme):
    server = serve(token="produce")
    options = flight.FlightCallOptions(headers=[(b"authorization", scheme)])
    with server.client() as client, pytest.raises(flight.FlightUnauthenticatedError) as caught:
        client.do_get(flight.Ticket(b"SELECT 1"), options).read_all()
    assert "token is missing or wrong" in str(caught.value)


def test_a_password_becomes_a_bearer_token(serve):
    server = serve(token="produce")
    with server.client() as client:
        name, value = client.authenticate_basic_token("anyone", "produce")
        assert (name, value) == (b"authorization", b"Bearer produce")
        options = flight.FlightCallOptions(headers=[(name, value)])
        assert client.do_get(flight.Ticket(b"SELECT 1"), options).read_all().num_rows == 1
        with pytest.raises(flight.FlightUnauthenticatedError):
            client.authenticate_basic_token("anyone", "wrong")


def test_adbc_logs_in_by_password_and_by_token(serve):
    server = serve(token="produce")
    by_password = {"username": "me", "password": "produce"}
    by_token = {DatabaseOptions.AUTHORIZATION_HEADER.value: "Bearer produce"}
    for options in (by_password, by_token):
        with (
            adbc_driver_flightsql.dbapi.connect(
                server.uri, db_kwargs=options, autocommit=True
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT 1 AS a")
            assert cursor.fetchall() == [(1,)]


def test_a_password_is_taken_where_none_is_asked(served):
    with served.client() as client:
        pair = client.authenticate_basic_token("anyone", "anything")
        options = flight.FlightCallOptions(headers=[pair])
        assert client.do_get(flight.Ticket(b"SELECT 1"), options).read_all().num_rows == 1


def test_two_roles_have_two_tokens(store):
    with pytest.raises(Refuse, match="two of token, flight_read_token and flight_admin_token"):
        FlightServer(store.reader, port=0, token="same", admin_token="same")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "203.0.113.1"])
def test_others_never_reach_a_server_without_a_token(store, host):
    with pytest.raises(Refuse) as caught:
        FlightServer(store.reader, host=host, port=0)
    assert caught.value.code in {"flight.open", "flight.port"}  # the latter: no IPv6 here
    if caught.value.code == "flight.open":
        assert "set STREAMAPP_TOKEN" in caught.value.fix
        assert "STREAMAPP_FLIGHT_HOST=127.0.0.1" in caught.value.fix


def test_any_token_opens_the_network(store):
    with FlightServer(store.reader, host="0.0.0.0", port=0, read_token="read") as server:
        assert Client("127.0.0.1", server.port, "read").query("SELECT 1").num_rows == 1


@pytest.mark.parametrize(
    ("peer", "local"),
    [("ipv4:127.0.0.1:5", True), ("ipv4:127.9.9.9:5", True), ("ipv6:[::1]:5", True),
     ("ipv6:%5B::1%5D:5", True), ("ipv6:[::ffff:127.0.0.1]:5", True), ("unix:/tmp/s", True),
     ("ipv4:10.0.0.1:5", False), ("ipv6:[fe80::1%25eth0]:5", False), ("ipv6:[2001:db8::1]:5", False),
     ("ipv6:[::ffff:10.0.0.1]:5", False), ("", False), ("127.0.0.1", False)],
)  # fmt: skip
def test_which_peers_are_this_machine(peer, local):
    assert is_local(peer) is local


def test_tls(serve, pem, tmp_path):
    server = serve(token="produce", options={"certificate": Certificate.read(*pem)})
    settings = Settings(
        flight_port=server.port, token="produce", flight_cert_file=pem[0], flight_key_file=pem[1]
    )
    assert Client.of(settings).query("SELECT 1 AS a").to_pylist() == [{"a": 1}]
    options = {
        DatabaseOptions.TLS_ROOT_CERTS.value: pem[0].read_text(),
        DatabaseOptions.AUTHORIZATION_HEADER.value: "Bearer produce",
    }
    with (
        adbc_driver_flightsql.dbapi.connect(
            f"grpc+tls://127.0.0.1:{server.port}", db_kwargs=options, autocommit=True
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT 2 AS a")
        assert cursor.fetchall() == [(2,)]
    other, _ = certificates.make(tmp_path, "other")
    for untrusting in (
        Client("127.0.0.1", server.port, "produce", timeout_s=5),  # no TLS at all
        Client("127.0.0.1", server.port, "produce", ca_file=other, timeout_s=5),
    ):
        with pytest.raises(Retry):
            untrusting.query("SELECT 1")


@pytest.mark.parametrize("given", [b"", b"no PEM at all", None])
def test_what_is_no_authority_is_refused_by_its_path(tmp_path, given):
    path = tmp_path / "ca.pem"
    if given is not None:
        path.write_bytes(given)
    with pytest.raises(Refuse, match=r"ca\.pem") as caught:
        Client("127.0.0.1", 9, ca_file=path).query("SELECT 1")
    assert caught.value.code == "flight.certificate"


def test_a_certificate_that_cannot_serve_is_refused(pem, tmp_path):
    chain, key = pem
    _, other_key = certificates.make(tmp_path, "other")
    missing = tmp_path / "none.pem"
    for pair in ((chain, other_key), (key, chain), (missing, key), (chain, missing)):
        with pytest.raises(Refuse) as caught:
            Certificate.read(*pair)
        assert caught.value.code == "flight.certificate"
    with pytest.raises(Refuse, match="only one is set"):
        Certificate.of(Settings(flight_cert_file=chain))
    assert Certificate.of(Settings()) is None
