"""``streamapp send``: nothing lost, the same ids, and clear words when something is wrong."""

import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections import defaultdict

import pytest
from machine import wait_for

from streamapp.cli import delivery


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(delivery, "BACKOFF_S", 0.005)
    monkeypatch.setattr(delivery, "FIRST_CONTACT_S", 0.2)


class NoHttp(socketserver.BaseRequestHandler):
    """Answers as a gRPC server does."""

    def handle(self):
        self.request.recv(1 << 16)
        self.request.sendall(b"\x00\x00\x18\x04\x00\x00\x00\x00\x00\r\n\r\n")


def csv_file(folder, rows, name="messages.csv"):
    path = folder / name
    lines = [f"{n},chat{n % 7},message {n}" for n in range(rows)]
    path.write_text("\n".join(["n,chat,message", *lines]) + "\n")
    return path


def test_csv_columns_become_fields_and_payload(run, clean, double):
    (clean / "a.csv").write_text(
        "body,who,when,time,duration_ms\nhello,anna,now,1700000000000,250\nbye,,later,,\n"
    )
    with double() as gateway:
        result = run(
            *("send", "a.csv", "--text", "body", "--conversation", "who"),
            *("--type", "Greeting", "--source", "test", "--url", gateway.url, "--json"),
        )
    assert result.code == 0, result.err
    assert (result.json["sent"], result.json["accepted"], result.json["rejected"]) == (2, 2, 0)
    first, second = sorted(gateway.kept, key=lambda event: event["message"], reverse=True)
    assert first == {
        "id": first["id"],
        "message": "hello",
        "conversation_id": "anna",
        "type": "Greeting",
        "source": "test",
        "when": "now",
        "time": 1700000000000,
        "duration_ms": 250.0,
    }
    assert "conversation_id" not in second
    assert "time" not in second


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"message": "one", "deep": {"er": [1]}}\n\n{"message": "two"}\n'),
        ("a.txt", "one\n\ntwo\r\n"),
        ("a.tsv", "message\tother\none\tx\ntwo\ty\n"),
        ("b.csv", '\ufeffmessage\n"one"\ntwo\n'),
    ],
)
def test_every_format(run, clean, name, content, double):
    (clean / name).write_bytes(content.encode())
    with double() as gateway:
        result = run("send", name, "--url", gateway.url)
    assert result.code == 0, result.err
    assert sorted(event["message"] for event in gateway.kept) == ["one", "two"]
    assert "sent 2 in" in result.out


def test_a_quoted_cell_may_hold_lines(run, clean, double):
    (clean / "a.csv").write_text('message,b\n"one\ntwo",x\nthree,y\n')
    with double() as gateway:
        assert run("send", "a.csv", "--url", gateway.url).code == 0
    assert {event["message"] for event in gateway.kept} == {"one\ntwo", "three"}


def test_faults_lose_nothing_and_repeat_the_same_ids(run, clean, double):
    file = csv_file(clean, 3000)
    faults = ["429", "lose", "503", "drop", "lose", "", "429", "drop", "lose", "503"] * 2
    with double() as calm, double(faults) as shaky:
        arguments = ("send", file, "--conversation", "chat", "--json", "--url")
        expected, result = run(*arguments, calm.url), run(*arguments, shaky.url)
    assert expected.json["retries"] == 0
    assert (result.code, result.json["accepted"], result.json["retries"]) == (0, 3000, 18)
    assert len(shaky.kept) > 3000, "what was kept but not answered came again"
    assert set(shaky.ids) == set(calm.ids)
    by_id = {event["id"]: event for event in calm.kept}
    assert len(by_id) == 3000
    assert all(by_id[event["id"]] == event for event in shaky.kept)


def test_a_conversation_stays_in_order_whatever_fails(run, clean, double):
    file = csv_file(clean, 3000)
    with double(["503", "lose", "drop", "", "lose"] * 3) as gateway:
        run("send", file, "--conversation", "chat", "--url", gateway.url)
    chats = defaultdict(list)
    for event in gateway.once():
        chats[event["conversation_id"]].append(int(event["n"]))
    assert len(chats) == 7
    assert all(numbers == sorted(numbers) for numbers in chats.values())


def test_the_same_file_sent_again_has_the_same_ids(run, clean, double):
    file = csv_file(clean, 500)
    (clean / "copy.csv").write_bytes(file.read_bytes())
    with double() as gateway:
        for name in (file, "copy.csv"):
            assert run("send", name, "--url", gateway.url).code == 0
        assert len(gateway.kept) == 1000
        assert len(gateway.once()) == 500
        assert run("send", file, "--url", gateway.url, "--key", "another").code == 0
    assert len(gateway.once()) == 1000


def test_equal_rows_have_different_ids(run, clean, double):
    (clean / "a.txt").write_text("same\nsame\n")
    (clean / "b.txt").write_text("same\nsame\nother\n")
    with double() as gateway:
        run("send", "a.txt", "--url", gateway.url)
        run("send", "b.txt", "--url", gateway.url)
    assert len(set(gateway.ids)) == 5


def test_files_that_begin_alike_have_different_ids(run, clean, double):
    head = "message\n" + "x" * 80_000 + "\n"
    (clean / "a.csv").write_text(head + "one\n")
    (clean / "b.csv").write_text(head + "two\n")
    with double() as gateway:
        run("send", "a.csv", "--url", gateway.url)
        run("send", "b.csv", "--url", gateway.url)
    assert len(set(gateway.ids)) == 3


def test_ids_of_the_file_are_kept(run, clean, double):
    (clean / "a.jsonl").write_text('{"id": "a1", "message": "x"}\n{"key": "k2", "message": "y"}\n')
    with double() as gateway:
        assert run("send", "a.jsonl", "--url", gateway.url).code == 0
        assert "a1" in gateway.ids
    (clean / "b.csv").write_text("key,message\nk1,x\n")
    with double() as gateway:
        assert run("send", "b.csv", "--id", "key", "--url", gateway.url).code == 0
    assert gateway.kept == [{"id": "k1", "message": "x"}]


def test_rejected_rows_are_named_by_their_line_and_change_the_exit_code(run, clean, double):
    file = csv_file(clean, 300)
    with double(refuse=lambda event: int(event["n"]) % 20 == 0) as gateway:
        result = run("send", file, "--json", "--url", gateway.url)
        text = run("send", file, "--url", gateway.url)
    assert result.code == text.code == 65
    said = result.json
    assert (said["sent"], said["accepted"], said["rejected"]) == (300, 285, 15)
    assert said["codes"] == {"event.bad": 15}
    assert len(said["reasons"]) == 10
    assert {"line": 2, "code": "event.bad", "message": "message 0 is bad"} in said["reasons"]
    assert "line 2: message 0 is bad [event.bad]" in text.err
    assert "and 5 more" in text.err


BAD = "message,b\ngood,1\nonly one cell\nfine,2\n\xff,3\nlast,4\n".encode("latin-1")


def test_unreadable_lines_are_skipped_and_counted(run, clean, double):
    (clean / "a.csv").write_bytes(BAD)
    with double() as gateway:
        result = run("send", "a.csv", "--json", "--url", gateway.url)
    assert {event["message"] for event in gateway.kept} == {"good", "fine", "last"}
    assert (result.code, result.json["skipped"], result.json["accepted"]) == (65, 2, 3)
    assert [reason["line"] for reason in result.json["reasons"]] == [3, 5]
    assert "1 cells where the header has 2" in result.json["reasons"][0]["message"]
    assert "not UTF-8" in result.json["reasons"][1]["message"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", BAD, "line 3: 1 cells where the header has 2"),
        ("a.jsonl", b'{"message": "x"}\n{"message": \n', "line 2: not JSON"),
        ("a.jsonl", b'{"message": "x"}\n[1]\n', "line 2: JSON, but not an object"),
        ("a.csv", b'message\n"never closed\n', "not csv"),
    ],
)
def test_strict_stops_at_the_first_unreadable_line(run, clean, name, content, said, double):
    (clean / name).write_bytes(content)
    with double() as gateway:
        result = run("send", name, "--strict", "--url", gateway.url)
    assert result.code == 2
    assert said in result.err
    assert "--strict" in result.err


@pytest.mark.parametrize(
    ("name", "content", "arguments", "said"),
    [
        ("a.csv", "text,lang\nx,y\n", ["--text", "txet"], ["'txet'", "did you mean 'text'"]),
        ("a.csv", "body,lang\nx,y\n", [], ["--text COLUMN", "body, lang"]),
        ("a.csv", "a,a\nx,y\n", ["--text", "a"], ["'a' comes twice"]),
        ("a.jsonl", '{"body": 1}\n', ["--text", "bdy"], ["'bdy'", "did you mean 'body'"]),
        ("a.json", '[{"message": 1}]', [], ["JSON array", "jq -c '.[]'"]),
        ("a.xlsx", "PK", [], ["'.xlsx'", "--format"]),
        ("a.csv", "message\nx\n", ["--url", "nonsense"], ["'nonsense'", "http://127.0.0.1:9382"]),
    ],
)
def test_wrong_files_are_refused_in_words(run, clean, name, content, arguments, said):
    (clean / name).write_text(content)
    result = run("send", name, "--url", "http://127.0.0.1:9", *arguments)
    assert result.code == 2
    assert all(words in result.err for words in said), result.err


def test_missing_files_and_folders(run, clean):
    assert "nowhere.csv: No such file" in run("send", "nowhere.csv").err
    (clean / "folder.csv").mkdir()
    assert "Is a directory" in run("send", "folder.csv").err


def test_no_gateway(run, clean):
    file = csv_file(clean, 3)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        result = run("send", file, "--gateway-port", str(port))
    assert result.code == 75
    assert f"no gateway answers at http://127.0.0.1:{port}: Connection refused\n" in result.err
    assert "streamapp up" in result.err


def test_an_ipv6_gateway_is_asked_at_a_url_that_is_one(run, clean):
    (clean / "a.txt").write_text("hello\n")
    result = run("send", "a.txt", "--gateway-host", "::1", "--gateway-port", "9")
    assert result.code == 75
    assert "http://[::1]:9" in result.err


def test_what_speaks_no_http_is_refused(run, clean):
    (clean / "a.txt").write_text("hello\n")
    with socketserver.TCPServer(("127.0.0.1", 0), NoHttp) as server:
        threading.Thread(target=server.handle_request).start()
        result = run("send", "a.txt", "--gateway-port", str(server.server_address[1]))
    assert result.code == 2
    assert "it does not speak HTTP (Bad status line)\n" in result.err


def test_a_gateway_that_stops_answering_is_given_up_in_the_end(run, clean, double):
    file = csv_file(clean, 300)
    with double(["", *["503"] * 999]) as gateway:
        result = run("send", file, "--retry-s", "0.3", "--url", gateway.url)
    assert result.code == 75
    assert "told to 503" in result.err
    assert "run the same command again" in result.err


def test_retry_after_is_obeyed(run, clean, double):
    file = csv_file(clean, 3)
    started = time.monotonic()
    with double(["429"], retry_after="1") as gateway:
        assert run("send", file, "--url", gateway.url).code == 0
    assert time.monotonic() - started >= 1


def test_a_batch_that_is_too_large_is_halved(run, clean, double):
    file = csv_file(clean, 100)
    with double(["413", "413"]) as gateway:
        result = run("send", file, "--json", "--url", gateway.url)
    assert result.json["accepted"] == 100
    assert sorted(gateway.sizes) == [25, 25, 50]


def test_one_event_that_is_too_large_costs_only_itself(run, clean, double):
    (clean / "a.txt").write_text("large\n")
    with double(["413"]) as gateway:
        result = run("send", "a.txt", "--json", "--url", gateway.url)
    assert (result.code, result.json["codes"]) == (65, {"http.413": 1})


def test_the_token(run, clean, double):
    file = csv_file(clean, 3)
    with double(token="s3cret") as gateway:
        refused = run("send", file, "--url", gateway.url, "--token", "wrong")
        assert (refused.code, "--token" in refused.err) == (2, True)
        assert run("send", file, "--url", gateway.url, "--token", "s3cret").code == 0


def test_the_rate_is_a_limit(run, clean, double):
    file = csv_file(clean, 30)
    with double() as gateway:
        result = run("send", file, "--rate", "50", "--json", "--url", gateway.url)
    assert result.json["accepted"] == 30
    assert result.json["seconds"] >= 0.4
    assert max(gateway.sizes) <= 10


def test_standard_input_is_sent_as_it_comes(clean, double):
    """Rows arrive although the pipe stays open, and one that is closed ends the command."""
    with double() as gateway:
        command = [sys.executable, "-m", "streamapp.cli", "send", "-", "--json"]
        with subprocess.Popen(
            [*command, "--url", gateway.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            process.stdin.write(b'{"message": "first"}\n')
            process.stdin.flush()
            wait_for(lambda: gateway.kept)
            process.stdin.write(b'{"message": "second"}\n')
            out, _ = process.communicate(timeout=30)
    assert json.loads(out)["accepted"] == 2
    assert [event["message"] for event in gateway.kept] == ["first", "second"]


def test_an_interrupted_send_can_be_repeated(clean, double):
    file = csv_file(clean, 4000)
    command = [sys.executable, "-m", "streamapp.cli", "send", str(file), "--url"]
    with double() as gateway:
        with subprocess.Popen(
            [*command, gateway.url, "--rate", "1000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            wait_for(lambda: len(gateway.kept) > 200)
            os.kill(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Traceback" not in err
        assert "run it again" in err
        assert "accepted" in out
        assert len(gateway.kept) < 4000
        subprocess.run([*command, gateway.url], check=True, capture_output=True)
    assert len(gateway.once()) == 4000


def test_a_terminal_sees_progress_and_a_pipe_does_not(clean, double):
    file = csv_file(clean, 1000)
    with double() as gateway:
        command = [sys.executable, "-m", "streamapp.cli", "send", str(file), "--rate", "1000"]
        ours, theirs = os.openpty()
        env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
        with subprocess.Popen(
            [*command, "--url", gateway.url], stdout=subprocess.PIPE, stderr=theirs, env=env
        ) as process:
            os.close(theirs)
            seen = b""
            while chunk := read_terminal(ours):
                seen += chunk
            out = process.stdout.read()
        os.close(ours)
        piped = subprocess.run([*command, "--url", gateway.url], check=True, capture_output=True)
    assert b"messages.csv" in seen
    assert b"events" in seen
    assert b"/s" in seen
    assert b"0:0" in seen, "time left"
    assert out.startswith(b"sent 1,000 in")
    assert piped.stderr == b""


def read_terminal(end):
    try:
        return os.read(end, 65536)
    except OSError:  # EIO: the other end is closed
        return b""


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_message_without_text_is_not_sent(run, clean, double, text):
    with double() as gateway:
        result = run("send", "--message", text, "--url", gateway.url)
    assert result.code == 2
    assert "--message: is empty" in result.err
    assert not gateway.kept
