"""What an admin has the store do, and who else may not."""

import threading

import pytest
from pyarrow import flight

from streamapp.core.config import Settings
from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.flight import Client


def count(arguments):
    """Count to a number."""
    for n in range(int(arguments["to"])):
        yield {"at": n}
    yield {"done": True}


@pytest.fixture
def server(serve):
    return serve(token="produce", options={"actions": {"count": count}, "admin_token": "admin"})


def test_an_action_yields_its_progress(server):
    admin = Client("127.0.0.1", server.port, "admin")
    assert list(admin.action("count", to=2)) == [{"at": 0}, {"at": 1}, {"done": True}]


def test_only_the_admin_token_acts(server):
    with pytest.raises(Refuse, match="takes the store's admin token") as caught:
        list(Client("127.0.0.1", server.port, "produce").action("count", to=2))
    assert (caught.value.code, caught.value.fix) == (
        "flight.not_allowed",
        "use flight_admin_token (STREAMAPP_FLIGHT_ADMIN_TOKEN)",
    )
    with pytest.raises(Refuse, match="token is missing"):
        list(Client("127.0.0.1", server.port).action("count", to=2))


@pytest.mark.parametrize(
    ("tokens", "admin", "setting"),
    [
        ({"token": "x", "flight_admin_token": "y"}, True, "STREAMAPP_FLIGHT_ADMIN_TOKEN"),
        ({"token": "x", "flight_admin_token": "y"}, False, "STREAMAPP_TOKEN"),
        ({"token": "x"}, True, "STREAMAPP_TOKEN"),
        ({"flight_read_token": "x"}, False, "STREAMAPP_FLIGHT_READ_TOKEN"),
        ({}, True, "STREAMAPP_FLIGHT_ADMIN_TOKEN"),
        ({}, False, "STREAMAPP_TOKEN"),
    ],
)
def test_a_wrong_token_is_called_by_its_setting(server, tokens, admin, setting):
    client = Client.of(Settings(flight_port=server.port, **tokens), admin=admin)
    with pytest.raises(Refuse, match="token is missing or wrong") as caught:
        list(client.action("count", to=1)) if admin else client.query("SELECT 1")
    assert caught.value.fix == f"set {setting} to the store's"


def test_without_an_admin_token_this_machine_acts(serve):
    for token in ("", "produce"):
        server = serve(token=token, options={"actions": {"count": count}})
        assert list(Client("127.0.0.1", server.port, token).action("count", to=0)) == [
            {"done": True}
        ]


def test_a_reader_never_acts(serve):
    server = serve(options={"read_token": "read", "actions": {"count": count}})
    with pytest.raises(Refuse, match="admin token"):
        list(Client("127.0.0.1", server.port, "read").action("count", to=0))


@pytest.mark.parametrize("kind", [Refuse, Retry, Halt])
def test_an_actions_error_comes_whole(serve, kind):
    def fails(arguments):
        yield {"at": 1}
        raise kind("store.verify", "a row is missing", "rebuild it")

    server = serve(options={"actions": {"verify": fails}})
    results = Client("127.0.0.1", server.port).action("verify")
    assert next(results) == {"at": 1}
    with pytest.raises(kind, match="a row is missing") as caught:
        next(results)
    assert (caught.value.code, caught.value.fix) == ("store.verify", "rebuild it")


def test_an_action_runs_once_at_a_time_and_ends_with_its_client(serve):
    ended, go_on = threading.Event(), threading.Event()

    def slow(arguments):
        try:
            while True:
                go_on.wait(0.01)
                yield {"at": "work"}
        finally:
            ended.set()

    server = serve(options={"actions": {"slow": slow}})
    client = Client("127.0.0.1", server.port)
    running = client.action("slow")
    next(running)
    with pytest.raises(Retry, match="slow runs already"):
        list(client.action("slow"))
    running.close()
    assert ended.wait(10)


def test_what_is_no_action_is_refused(served, serve):
    with pytest.raises(Refuse, match="streamapp.nope is not offered"):
        list(Client("127.0.0.1", served.port).action("nope"))
    server = serve(options={"actions": {"count": count}})
    with server.client() as client:
        for body in (b"[1]", b"\xff\xfe", b"{", b"[" * 100_000, b"x" * (2 << 20)):
            with pytest.raises(flight.FlightServerError, match="the body is"):
                list(client.do_action(flight.Action("streamapp.count", body)))
        listed = {action.type: action.description for action in client.list_actions()}
        assert listed["streamapp.count"] == "Count to a number."
