"""Both clients against a server that breaks in every way: nothing lost, nothing made twice."""

import json
import random
import socket
import ssl
import threading
import time

import pytest
from gateway_thread import GatewayThread

from streamapp.client import Client, Patience, Refuse, Retry

QUICK = Patience(attempt_s=0.3, retry_s=20, first_s=20, backoff_s=0.001, backoff_s_max=0.01)
LONG = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999999999\r\n\r\n"


class Server:
    """Does, request by request, what a list says; then it answers well."""

    def __init__(self, *faults):
        self.kept, self.keys, self.faults = [], [], list(faults)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.done = threading.Event()
        self.threads = []

    def __enter__(self):
        self.threads.append(threading.Thread(target=self.accept))
        self.threads[0].start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(10)

    def accept(self):
        while not self.done.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self.serve, args=[connection]))
            self.threads[-1].start()

    def serve(self, connection):
        with connection, connection.makefile("rb") as stream:
            connection.settimeout(5)
            try:
                while self.answer(connection, stream):
                    pass
            except OSError:
                pass

    def answer(self, connection, stream):
        """One request; whether the connection stays."""
        if not stream.readline():
            return False
        headers = {}
        while (line := stream.readline()) not in {b"\r\n", b""}:
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        fault = self.faults.pop(0) if self.faults else "well"
        if fault == "early":
            self.say(connection, 413, {"detail": "no", "code": "request.too_large"})
            return False
        events = stream.read(int(headers["content-length"])).split(b"\n")
        if fault in {"well", "lose", "leave"}:
            self.keys.append(headers["idempotency-key"])
            self.kept += [json.loads(event)["n"] for event in events]
        if fault in {"well", "leave"}:
            lines = [{"line": 1, "status": "received", "id": "i"} for _ in events]
            self.say(connection, 200, {"events": lines})
        elif fault == "busy":
            self.say(connection, 503, {"detail": "later"})
        elif fault == "silent":
            self.done.wait(0.6)
        elif fault in {"drip", "flood"}:
            connection.sendall(LONG)
            chunk, pause_s = (b" ", 0.05) if fault == "drip" else (b" " * 65536, 0)
            while not self.done.wait(pause_s):
                connection.sendall(chunk)
        elif fault == "cut":
            connection.sendall(LONG + b"{")
        elif fault == "garbage":
            connection.sendall(b"\x00\x00\x18\x04 nobody\r\n\r\n")
        return fault in {"well", "busy"}

    @staticmethod
    def say(connection, status, body):
        content = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content)


@pytest.mark.parametrize("fault", ["drop", "busy", "silent", "drip", "flood", "cut"])
def test_after_a_fault_the_same_request_comes_again(kind, fault):
    with Server(fault) as server, kind(server.url, patience=QUICK) as client:
        assert client.send({"n": 1}).id == "i"
        assert client.retries == 1
    assert server.kept == [1]


def test_what_was_kept_without_an_answer_comes_again_with_the_same_key(kind):
    with Server("lose", "lose") as server, kind(server.url, patience=QUICK) as client:
        client.send({"n": 1})
    assert server.kept == [1, 1, 1]
    assert len(set(server.keys)) == 1


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_every_event_is_there_and_repeats_can_be_told(kind, seed):
    chance = random.Random(seed)
    faults = chance.choices(["well", "drop", "lose", "busy", "cut", "leave"], k=25)
    with (
        Server(*faults) as server,
        kind(server.url, patience=QUICK, batch_events=10) as client,
    ):
        report = client.send_many([{"n": n} for n in range(200)])
    assert (report.accepted_count, report.rejected_count) == (200, 0)
    assert set(server.kept) == set(range(200))
    assert len(set(server.keys)) == 20, "one key a request, however often it came"


def test_an_answer_before_the_body_was_read_is_heard(kind):
    big = {"n": 1, "x": "y" * 4_000_000}
    with Server("early") as server, kind(server.url, patience=QUICK) as client:
        [outcome] = client.send_batch([big])
    # The reset that follows may overtake it; then the event comes again, and is taken.
    assert server.kept == [1] or outcome.code == "request.too_large"


def test_a_connection_that_was_closed_meanwhile_is_not_used(kind):
    with Server("leave") as server, kind(server.url, patience=QUICK) as client:
        client.send({"n": 1})
        time.sleep(0.05)  # for who watches idle connections; the outcome is the same without
        client.send({"n": 2})
    assert server.kept == [1, 2]


def test_what_speaks_no_http_is_told_at_once(kind):
    with (
        Server(*["garbage"] * 9) as server,
        kind(server.url, patience=QUICK) as client,
        pytest.raises(Refuse) as told,
    ):
        client.send({"n": 1})
    assert told.value.code == "client.http"
    assert len(server.faults) == 8


def test_https_where_there_is_none_is_told_at_once(kind):
    with GatewayThread() as gateway:
        url = gateway.url.replace("http", "https")
        context = ssl.create_default_context()
        with kind(url, patience=QUICK, tls=context) as client, pytest.raises(Refuse) as told:
            client.send({"n": 1})
    assert told.value.code == "client.certificate"


def test_nobody_there(kind):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        patience = Patience(first_s=0.05, backoff_s=0.01)
        with kind(url, patience=patience) as client, pytest.raises(Retry) as told:
            client.send({"n": 1})
    assert told.value.code == "client.unreachable"
    assert url in str(told.value)


def test_any_thread_may_call_a_client():
    with Server() as server, Client(server.url, patience=QUICK) as client:
        threads = [
            threading.Thread(target=client.send_many, args=[[{"n": n + k} for k in range(10)]])
            for n in range(0, 80, 10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(server.kept) == list(range(80))


def test_a_connection_that_is_reset_while_it_is_made_is_tried_again(monkeypatch):
    def reset(*_, **__):
        raise ConnectionResetError("reset")

    monkeypatch.setattr("socket.create_connection", reset)
    patience = Patience(first_s=0.05, backoff_s=0.01)
    with Client("http://127.0.0.1:9", patience=patience) as client, pytest.raises(Retry) as told:
        client.send("hello")
    assert told.value.code == "client.unreachable"
