"""The tokens of the gateway's file at the store: read, produce:* and admin."""

import json

import pyarrow as pa
import pytest
from pyarrow import flight

from streamapp.core.errors import Refuse
from streamapp.core.tokens import TokenFile, create_token, revoke_tokens
from streamapp.flight import Client, FlightServer


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokens.json"


class Impatient:
    """A second has passed whenever it is asked."""

    s = 0

    def monotonic_s(self):
        self.s += 1
        return self.s

    def now_us(self):
        return 1_700_000_000_000_000


@pytest.fixture
def tokens_file(path):
    return TokenFile(path, Impatient())


@pytest.fixture
def served(serve, tokens_file):
    return serve(options={"tokens_file": tokens_file})


def one(server, token):
    return Client("127.0.0.1", server.port, token).query("SELECT 1 AS a").num_rows


def options(token):
    return flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + token.encode())])


def test_who_has_read_or_admin_reads_and_nobody_else(served, path):
    assert one(served, "") == 1  # nobody is asked
    for name, scopes in (("a", ["read"]), ("b", ["admin"]), ("c", ["read", "produce:*"])):
        assert one(served, create_token(path, name, scopes)[1]) == 1
    with pytest.raises(Refuse) as refused:
        one(served, "")
    assert refused.value.code == "flight.token"
    for name, scope in (("d", "produce:*"), ("e", "consume:*")):
        secret = create_token(path, name, [scope])[1]
        with served.client() as client, pytest.raises(flight.FlightUnauthorizedError) as caught:
            client.do_get(flight.Ticket(b"SELECT 1"), options(secret)).read_all()
        assert "the token lacks scope read" in str(caught.value)


def test_a_revoked_token_is_none_from_then_on(served, path):
    _, secret = create_token(path, "a", ["read"])
    assert one(served, secret) == 1
    revoke_tokens(path, ["a"])
    for shown in (secret, ""):
        with pytest.raises(Refuse, match="missing or wrong"):
            one(served, shown)


class Log:
    topics = ("events.raw",)

    def take(self, topic, batch, *, whole):
        return ["id"] * batch.num_rows


def put(server, token):
    batch = pa.record_batch({"a": [1, 2]})
    with server.client() as client:
        descriptor = flight.FlightDescriptor.for_path("events.raw")
        writer, results = client.do_put(descriptor, batch.schema, options(token))
        with writer:
            writer.write_batch(batch)
            report = results.read()
            writer.done_writing()
        return json.loads(report.to_pybytes())["accepted"]


@pytest.mark.parametrize("scopes", [["read", "produce:*"], ["admin"]])
def test_who_may_produce_to_every_topic_produces(serve, path, tokens_file, scopes):
    server = serve(options={"tokens_file": tokens_file, "ingest": Log()})
    assert put(server, create_token(path, "a", scopes)[1]) == 2


@pytest.mark.parametrize("scopes", [["read"], ["read", "produce:events.raw"]])
def test_who_may_not_produce_to_all_of_them_does_not(serve, path, tokens_file, scopes):
    server = serve(options={"tokens_file": tokens_file, "ingest": Log()})
    with pytest.raises(flight.FlightUnauthorizedError, match="does not produce"):
        put(server, create_token(path, "a", scopes)[1])


def test_actions_take_admin_also_on_this_machine(serve, path, tokens_file):
    actions = {"count": lambda _: iter([{"done": True}])}
    server = serve(options={"tokens_file": tokens_file, "actions": actions})

    def act(name, *scopes):
        _, secret = create_token(path, name, scopes)
        return list(Client("127.0.0.1", server.port, secret).action("count"))

    assert act("a", "admin") == [{"done": True}]
    for name, scopes in (("b", ["read"]), ("c", ["read", "produce:*"])):
        with pytest.raises(Refuse, match="admin token"):
            act(name, *scopes)


def test_the_other_tokens_stay_beside_the_file_s(serve, path):
    create_token(path, "a", ["read"])
    server = serve(token="produce", options={"tokens_file": TokenFile(path)})
    assert one(server, "produce") == 1
    with pytest.raises(Refuse):
        one(server, "produc")


def test_a_file_makes_an_open_address_a_guarded_one(store, path):
    def serve():
        server = FlightServer(store.reader, host="0.0.0.0", port=0, tokens_file=TokenFile(path))
        server.stop()

    with pytest.raises(Refuse, match="no token is set"):
        serve()
    create_token(path, "a", ["read"])
    serve()
