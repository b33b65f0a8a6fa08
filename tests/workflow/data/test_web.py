"""HTTP with paging, against a server of 127.0.0.1."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from streamapp.core.errors import Refuse, Retry
from streamapp.workflow.data import open_input
from streamapp.workflow.graph.spec import Input

ROWS = [{"id": n, "name": f"row {n}"} for n in range(7)]
FAST = {"tries": 2, "wait_s_max": 0.01, "timeout_s": 5.0}


class Server:
    """Answers each path by a function of its query: a body, or (status, headers, body)."""

    def __init__(self):
        self.routes, self.asked = {}, []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                site.asked.append((self.path, dict(self.headers)))
                answer = site.routes[parts.path](query)
                status, headers, body = answer if isinstance(answer, tuple) else (200, {}, answer)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in ({"Content-Length": len(data)} | headers).items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


def opened(server, path, folder, bad=None, **options):
    keep = {} if bad is None else {"on_bad": bad.append}
    declared = Input(type="http", url=server.url + path, options={**FAST, **options})
    return open_input(declared, folder, name="rows", **keep)


def pages(server):
    """The same rows in pages of three, in each of the ways."""

    def some(start):
        return ROWS[start : start + 3]

    def link(query):
        start = int(query.get("start", 0))
        more = f'<{server.url}/link?start={start + 3}>; rel="next", <x>; rel="last"'
        return 200, {"Link": more} if start + 3 < len(ROWS) else {}, some(start)

    def following(query):
        start = int(query.get("start", 0))
        end = start + 3 >= len(ROWS)
        return {
            "data": {"items": some(start)},
            "links": {"next": None if end else f"?start={start + 3}"},
        }

    def cursor(query):
        start = int(query.get("after", "c0")[1:])
        return {"items": some(start), "cursor": f"c{start + 3}" if start + 3 < len(ROWS) else ""}

    server.routes = {
        "/link": link,
        "/next": following,
        "/cursor": cursor,
        "/page": lambda query: some((int(query["page"]) - 1) * 3),
        "/offset": lambda query: some(int(query["skip"])),
        "/none": lambda _: b"".join(json.dumps(row).encode() + b"\n" for row in ROWS),
    }


@pytest.mark.parametrize(("path", "options", "asked"), [
    ("/link", {"paging": "link"}, 3),
    ("/next", {"paging": "next", "next": "links.next", "records": "data.items"}, 3),
    ("/cursor", {"paging": "cursor", "next": "cursor", "parameter": "after", "records": "items"}, 3),
    ("/page?size=3", {"paging": "page"}, 4),
    ("/offset?skip=9", {"paging": "offset", "parameter": "skip"}, 4),
    ("/none", {"body": "jsonl"}, 1),
])  # fmt: skip
def test_all_pages_are_read_once_and_in_order(server, tmp_path, path, options, asked):
    pages(server)
    source = opened(server, path, tmp_path, **options)
    assert source.read().read_all().to_pylist() == ROWS
    assert len(server.asked) == asked
    assert source.files == ()
    assert source.schema().names == ["id", "name"]


def test_headers_may_be_secrets_and_stay_with_their_origin(server, tmp_path, monkeypatch):
    monkeypatch.setenv("ROWS_TOKEN", "Bearer s3cret")
    server.routes = {
        "/rows": lambda _: ROWS,
        "/away": lambda _: (302, {"Location": "http://localhost:9/rows"}, b""),
        "/other": lambda _: (200, {"Link": '<http://localhost:9/x>; rel="next"'}, ROWS),
    }
    headers = {"authorization": "env:ROWS_TOKEN", "x-plain": "yes"}
    opened(server, "/rows", tmp_path, headers=headers).read().read_all()
    sent = {name.lower(): value for name, value in server.asked[0][1].items()}
    assert (sent["authorization"], sent["x-plain"]) == ("Bearer s3cret", "yes")
    for path in ("/away", "/other"):
        with pytest.raises(Refuse, match="another origin") as refused:
            opened(server, path, tmp_path, headers=headers, paging="link").read().read_all()
        assert "s3cret" not in str(refused.value)


def test_a_server_that_is_away_for_a_moment_is_asked_again(server, tmp_path):
    answers = [(503, {"Retry-After": "0"}, b""), ROWS]
    server.routes = {"/rows": lambda _: answers.pop(0)}
    assert opened(server, "/rows", tmp_path).read().read_all().num_rows == len(ROWS)


@pytest.mark.parametrize("answer", [
    (503, {}, b""), (429, {"Retry-After": "3600"}, b""), (200, {"Content-Length": 100}, b'[{"id'),
])  # fmt: skip
def test_a_source_that_dies_while_it_is_read_is_a_retry(server, tmp_path, answer):
    """After the first page; the pages that came are void, as the error says."""
    first = (200, {"Link": f'<{server.url}/second>; rel="next"'}, ROWS[:3])
    server.routes = {"/rows": lambda _: first, "/second": lambda _: answer}
    with pytest.raises(Retry) as died:
        opened(server, "/rows", tmp_path, paging="link").read().read_all()
    assert died.value.code == "source.died"
    assert [path for path, _ in server.asked] == ["/rows", "/second", "/second"]


@pytest.mark.parametrize(("answer", "options", "why"), [
    ((404, {}, b""), {}, "status 404"),
    ((401, {}, b""), {}, "status 401 .*give headers"),
    ((200, {}, b"<html>"), {}, "check that it is whole"),
    ((200, {}, {"items": []}), {"records": "rows"}, "no 'rows' on the way"),
    ((200, {}, b"x" * 200), {"page_bytes_max": 100}, "more than 100 bytes"),
    ((200, {}, ROWS), {"paging": "next"}, "is no object, so that it cannot name the next"),
    ((200, {}, {"items": ROWS, "next": {"a": 1}}),
     {"paging": "next", "records": "items"}, "says is no URL and no cursor"),
    ((200, {}, {"items": ROWS, "next": "http://[x/"}),
     {"paging": "next", "records": "items"}, "127.0.0.1 sends on to is no web address"),
    ((200, {}, {"items": ROWS, "next": "file:///etc/passwd"}),
     {"paging": "next", "records": "items"}, "127.0.0.1 sends on to is no web address"),
    ((302, {"Location": "file:///etc/passwd"}, b""), {}, "status 302"),
    ((200, {}, b"[" * 100_000), {}, "maximum recursion depth"),
    ((200, {}, ROWS), {"paging": "cursor", "body": "jsonl"}, "JSON lines have no place"),
    ((200, {}, ROWS), {"headers": {"x-a": "s3cret\r\nx-b: 1"}}, "header 'x-a' has characters"),
    ((200, {}, ROWS), {"headers": {"x a": "s3cret"}}, "header 'x a' has characters"),
    ((200, {"Link": '</rows>; rel="next"'}, ROWS), {"paging": "link"}, "names one that came before"),
    ((200, {}, {"items": ROWS, "next": "c"}),
     {"paging": "cursor", "records": "items", "pages_max": 1}, "more than pages_max = 1"),
])  # fmt: skip
def test_an_answer_that_cannot_be_taken_is_refused(server, tmp_path, answer, options, why):
    server.routes = {"/rows": lambda _: answer}
    with pytest.raises(Refuse, match=why) as refused:
        opened(server, "/rows", tmp_path, **options).read().read_all()
    assert "s3cret" not in str(refused.value)


def test_a_path_that_is_not_ascii_is_sent_in_percent(server, tmp_path):
    server.routes = {"/r%C3%B6ws%20all": lambda _: ROWS}
    assert opened(server, "/röws all", tmp_path).read().read_all().num_rows == len(ROWS)


def test_a_secret_of_a_file_may_end_in_a_line_end(server, tmp_path):
    (tmp_path / "token").write_text("Bearer s3cret\n")
    server.routes = {"/rows": lambda _: ROWS}
    opened(server, "/rows", tmp_path, headers={"authorization": "file:token"}).read()
    sent = {name.lower(): value for name, value in server.asked[0][1].items()}
    assert sent["authorization"] == "Bearer s3cret"


def test_an_object_that_does_not_fit_is_a_bad_row_by_its_number(server, tmp_path):
    second = [{"id": 4}, {"id": "five"}]
    first = (200, {"Link": '</more>; rel="next"'}, ROWS[:3])
    server.routes = {"/rows": lambda _: first, "/more": lambda _: second}
    bad = []
    rows = opened(server, "/rows", tmp_path, bad, paging="link").read().read_all()
    assert rows["id"].to_pylist() == [0, 1, 2, 4]
    assert [(row.line, row.text) for row in bad] == [(5, '{"id":"five"}')] or bad[0].line == 5


def test_columns_are_those_of_the_first_page_that_has_rows(server, tmp_path):
    """A server that filters after it has cut its pages gives empty ones."""
    found = {"": {"items": [], "cursor": "b"}, "b": {"items": ROWS[:2], "cursor": None}}
    server.routes["/"] = lambda query: found[query.get("cursor", "")]
    source = opened(server, "/", tmp_path, paging="cursor", next="cursor", records="items")
    assert source.schema().names == ["id", "name"]
    assert source.read().read_all().to_pylist() == ROWS[:2]


def test_no_rows_at_all_are_no_rows(server, tmp_path):
    server.routes["/"] = lambda _: []
    assert opened(server, "/", tmp_path).read().read_all().num_rows == 0


def test_a_number_that_is_none_of_ascii_is_no_time_to_wait(server, tmp_path):
    server.routes["/"] = lambda _: (503, {"Retry-After": "\xb2"}, b"")
    with pytest.raises(Retry, match="status 503, 2 times"):
        opened(server, "/", tmp_path).read()


def test_a_page_that_drips_has_an_end(server, tmp_path, monkeypatch):
    monkeypatch.setattr("streamapp.workflow.data.fetching.PAGE_S_MAX", -1.0)
    server.routes["/"] = lambda _: ROWS
    with pytest.raises(Retry, match="the page was not there within"):
        opened(server, "/", tmp_path).read()
