"""Models on servers: what the server does wrong is named, and nothing of it becomes an answer."""

import json
import threading

import numpy as np
import pytest
from model_servers import ModelServer, vector_of
from tiny_models import affine

from streamapp.core.errors import Halt, Refuse, Reject, Retry
from streamapp.core.model import ModelRef
from streamapp.models import Registry
from streamapp.models.formats import http, v2
from streamapp.models.formats.remote import OpenaiSession, V2Session
from streamapp.models.manifest import RemoteSpec

REF = ModelRef("tensor", "affine", 1, "0" * 64)
X = np.arange(6, dtype=np.float32).reshape(2, 3)
BUSY = (503, {"Retry-After": "0"}, b"busy")


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(http, "PAUSE_S_FIRST", 0.0)


@pytest.fixture
def server():
    with ModelServer() as one:
        yield one


@pytest.fixture
def session(server):
    one = V2Session(REF, RemoteSpec(url=server.url, token="secret", timeout_s=10))
    server.requests.clear()
    yield one
    one.close()


def test_connections_are_kept_and_the_token_is_sent(server, session):
    for _ in range(5):
        np.testing.assert_array_equal(session.run({"x": X})["y"], affine(X)["y"])
    assert server.connections == 1
    assert set(server.tokens) == {"Bearer secret"}


def test_no_more_connections_than_allowed(server):
    session = V2Session(REF, RemoteSpec(url=server.url, connections=2))
    threads = [threading.Thread(target=session.run, args=({"x": X},)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.connections <= 2
    session.close()


@pytest.mark.parametrize("ill", ["drop", BUSY, (500, {}, b"oops"), (429, {}, b""), "half"])
def test_one_bad_moment_is_got_over(server, session, ill):
    session.run({"x": X})
    server.ill = [ill]
    np.testing.assert_array_equal(session.run({"x": X})["y"], affine(X)["y"])
    assert len(server.requests) == 3


def test_a_kept_connection_that_died_costs_no_attempt(server):
    session = V2Session(REF, RemoteSpec(url=server.url, attempts=1))
    server.ill = ["drop"]  # the connection that the metadata came over
    np.testing.assert_array_equal(session.run({"x": X})["y"], affine(X)["y"])
    session.close()


@pytest.mark.parametrize(
    ("ill", "says"),
    [
        ("drop", "does not answer"),
        (BUSY, "answered 503: busy"),
        ((500, {}, b"oops"), "answered 500: oops"),
        ("half", "does not answer: its answer ended 990 bytes early"),
        ((200, {}, b"<html>"), "answered what is no answer"),
        ((200, {}, b'{"outputs": []}'), "no output 'y'"),
        ((200, {}, b"\xff\xfe"), "answered what is no answer"),
        ((200, {v2.JSON_LENGTH: "99"}, b"{}"), "the body has 2 bytes"),
        ((200, {}, b'{"x":' + b"[" * 100_000), "answered what is no answer"),
        ((503, {"Retry-After": "\xb2"}, b"busy"), "answered 503: busy"),
        ((500, {}, b"\x1b[31mred\r\nline\0"), "answered 500: [31mred line"),
    ],
)
def test_a_server_that_stays_bad_is_a_retry_that_says_how(server, session, ill, says):
    server.ill = [ill] * 9
    with pytest.raises(Retry) as caught:
        session.run({"x": X})
    assert says in caught.value.message
    assert caught.value.fix
    assert len(server.requests) <= 4  # bounded
    server.ill.clear()
    session.run({"x": X})


def outputs(**changed):
    """An answer that is nearly right."""
    y = {"name": "y", "datatype": "FP32", "shape": [2, 3], "data": [0.0] * 6} | changed
    total = {"name": "total", "datatype": "FP32", "shape": [2], "data": [0, 0]}
    return 200, {}, json.dumps({"outputs": [y, total]}).encode()


@pytest.mark.parametrize(
    "changed",
    [
        {"shape": [3, 3]},
        {"shape": [2, -3]},
        {"shape": [6]},
        {"datatype": "INT64", "data": [0] * 6},
        {"datatype": "FP7"},
        {"data": [0.0] * 5},
        {"data": ["a"] * 6},
        {"data": None},
        {"data": [None] * 6},
        {"parameters": {"binary_data_size": 24}},
        {"name": "z"},
    ],
)
def test_an_output_that_is_not_the_declared_one_is_a_retry(server, session, changed):
    server.ill = [outputs()]
    assert (session.run({"x": X})["y"] == 0).all()  # the answer is right but for the change
    server.ill = [outputs(**changed)]
    with pytest.raises(Retry, match="no answer"):
        session.run({"x": X})


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_input_that_the_server_refuses_is_a_reject(server, session, status):
    server.ill = [(status, {}, b'{"error": "x is too warm"}')]
    with pytest.raises(Reject, match="x is too warm"):
        session.run({"x": X})
    assert len(server.requests) == 1


def test_a_token_that_a_server_says_again_is_not_shown(server, session):
    server.ill.append((401, {}, b"no secret of ours: secret"))
    with pytest.raises(Retry) as caught:
        session.run({"x": X})
    assert "no *** of ours: ***" in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(("status", "fix"), [(401, "token"), (404, "model"), (301, "url")])
def test_what_is_set_wrong_is_not_the_events_fault(server, session, status, fix):
    server.ill = [(status, {}, b"")]
    with pytest.raises(Retry) as caught:
        session.run({"x": X})
    assert fix in caught.value.fix
    assert len(server.requests) == 1


def test_a_server_that_hangs_is_given_up_in_time(server):
    session = V2Session(REF, RemoteSpec(url=server.url, timeout_s=0.2))
    server.ill = ["hang"]
    with pytest.raises(Retry, match="took too long"):
        session.run({"x": X})
    session.run({"x": X})
    session.close()


@pytest.mark.parametrize(
    "dripped",
    [
        b"HTTP/1.1 200 OK\nX-Name: value\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n \r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n",
    ],
)
def test_a_server_that_drips_is_given_up_in_time(server, dripped):
    """Each byte is in time, and there would be no end of them."""
    session = V2Session(REF, RemoteSpec(url=server.url, timeout_s=0.3, attempts=1))
    session.run({"x": X})  # over a connection that is kept
    server.ill = [dripped, dripped]
    for _ in range(2):
        with pytest.raises(Retry, match="took too long"):
            session.run({"x": X})
    session.run({"x": X})
    session.close()


def test_a_request_and_an_answer_have_a_limit(server):
    session = V2Session(REF, RemoteSpec(url=server.url, body_bytes_max=2000))
    with pytest.raises(Reject, match="is too large"):
        session.run({"x": np.zeros((500, 3), np.float32)})
    server.ill = [(200, {}, b" " * 3000)] * 3
    with pytest.raises(Retry, match="is over 2000 bytes"):
        session.run({"x": X})
    session.close()


def test_a_server_that_is_away_when_the_model_is_opened():
    with ModelServer() as server:
        url = server.url
    with pytest.raises(Retry, match="does not answer"):
        V2Session(REF, RemoteSpec(url=url))


def test_a_model_that_the_server_does_not_have(server):
    with pytest.raises(Retry, match="answered 404"):
        V2Session(REF, RemoteSpec(url=server.url, model="other"))


@pytest.mark.parametrize("url", ["http://", "http://host:99999", "ftp://host", "http://me:pw@host"])
def test_a_url_that_cannot_be_asked_is_refused_and_not_repeated(url):
    with pytest.raises(Refuse, match="url in") as caught:
        OpenaiSession(REF, RemoteSpec(url=url))
    assert "pw" not in str(caught.value)


def test_after_close_no_call_goes_out(server, session):
    session.close()
    with pytest.raises(Halt, match="closed"):
        session.run({"x": X})
    assert server.requests == []


@pytest.fixture
def openai(server):
    one = OpenaiSession(REF, RemoteSpec(url=f"{server.url}/v1"), 4)
    yield one
    one.close()


def texts(*some):
    array = np.empty(len(some), object)
    array[:] = some
    return {"text": array}


def test_many_texts_are_several_requests(server, openai, monkeypatch):
    monkeypatch.setattr("streamapp.models.formats.remote.TEXTS_MAX", 4)
    some = [f"t{number:02}" for number in range(10)]
    found = openai.run(texts(*some))["embedding"]
    np.testing.assert_array_equal(found, [vector_of(text) for text in some])
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{"index": 0, "embedding": [1, 2, 3, 4]}] * 2,
        [{"index": 0, "embedding": [1, 2, 3, 4]}, {"index": 1, "embedding": [1, 2]}],
        [{"index": 0, "embedding": [1, 2, 3]}, {"index": 1, "embedding": [1, 2, 3]}],
        [{"index": 0, "embedding": "?"}, {"index": 1, "embedding": "?"}],
        [
            {"index": 0, "embedding": "AADAfwAAAAAAAAAAAAAAAA=="},
            {"index": 1, "embedding": [1, 2, 3, 4]},
        ],
        [{"index": 0, "embedding": [1e39, 2, 3, 4]}, {"index": 1, "embedding": [1, 2, 3, 4]}],
        [{"index": 0, "embedding": None}, {"index": 1, "embedding": [1, 2, 3, 4]}],
    ],
)
def test_vectors_that_are_not_those_of_the_texts_are_a_retry(server, openai, data):
    server.ill = [(200, {}, json.dumps({"data": data}).encode())]
    with pytest.raises(Retry, match="no answer"):
        openai.run(texts("a", "b"))


def test_vectors_in_base64(server, openai):
    import base64

    data = [{"index": 0, "embedding": base64.b64encode(vector_of("a").tobytes()).decode()}]
    server.ill = [(200, {}, json.dumps({"data": data}).encode())]
    np.testing.assert_array_equal(openai.run(texts("a"))["embedding"][0], vector_of("a"))


def declare(folder, text):
    path = folder / "models" / f"{text.split()[0]}/1/manifest.toml"
    path.parent.mkdir(parents=True)
    task, name = text.split()[0].split("/")
    path.write_text(
        f'task = "{task}"\nname = "{name}"\nversion = 1\nabout = "x"\nlicence = "MIT"\n'
        + text.split("\n", 1)[1]
    )
    return Registry(folder / "models", folder / "cache", secret={"env:PLACE": "", **SECRETS}.get)


SECRETS: dict[str, str] = {}


def test_an_embedder_on_a_server(server, tmp_path, monkeypatch):
    monkeypatch.setitem(SECRETS, "env:PLACE", f"{server.url}/v1")
    monkeypatch.setitem(SECRETS, "env:KEY", "secret")
    registry = declare(
        tmp_path,
        'embed/far\nformat = "openai"\ndim = 4\nbatch_invariant = true\ntokens_max = 2\n'
        'batch_texts = 2\n[prefixes]\nquery = "q: "\n[remote]\nurl = "env:PLACE"\n'
        'token = "env:KEY"\nmodel = "theirs"\n',
    )
    assert registry.status("embed/far").pulled  # there is nothing to pull
    assert registry.pull("embed/far").bytes == 0
    embedder = registry.embedder("embed/far")
    out = np.zeros((4, 4), np.float32)
    vectors, truncated = embedder.embed(["one", None, "a text too long", ""], out=out)
    assert vectors is out
    for row, text in ((0, "q: one"), (2, "q: a text t"), (3, "q: ")):
        expected = vector_of(text)
        np.testing.assert_allclose(vectors[row], expected / np.linalg.norm(expected), rtol=1e-6)
    assert np.isnan(vectors[1]).all()
    assert truncated.tolist() == [False, False, True, False]
    assert len(server.requests) == 2
    assert set(server.tokens) == {"Bearer secret"}
    assert (embedder.dim, registry.embedding_dim("embed/far")) == (4, 4)
    registry.close()


def test_a_model_on_a_server_is_held_to_its_manifest(server, tmp_path):
    signature = '[inputs]\nx = "float32[n,{size}]"\n[remote]\nurl = "{url}"\nmodel = "affine"\n'
    text = 'tensor/far\nformat = "v2"\n' + signature
    registry = declare(tmp_path, text.format(size=3, url=server.url))
    np.testing.assert_array_equal(
        registry.session("tensor/far").run({"x": X})["total"], affine(X)["total"]
    )
    registry.close()
    registry = declare(tmp_path / "2", text.format(size=4, url=server.url))
    with pytest.raises(Refuse, match=r"has the input x = float32\[\?,3\], its manifest says"):
        registry.session("tensor/far")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('format = "v2"\n', "needs [remote]"),
        ('format = "v2"\n[remote]\nurl = "ftp://x"\n', "url"),
        ('format = "openai"\n[remote]\nurl = "http://127.0.0.1:9"\n', "cannot serve tensor"),
        ('format = "v2"\n[remote]\nurl = "http://me:pass@127.0.0.1:9"\n', "names a user"),
        ('format = "function"\n', "needs function"),
        ('format = "function"\nfunction = "raises_at_import:f"\n', "RuntimeError: no licence"),
        ('format = "function"\nfunction = "nowhere:f"\n', "nowhere"),
        ('format = "function"\nfunction = "math:f"\n', "'f'"),
        ('format = "function"\nfunction = "math:pi"\n', "a float"),
        ('format = "function"\nfunction = "math:sin"\n', "declares no inputs"),
    ],
)
def test_a_wrong_declaration_is_named(tmp_path, monkeypatch, text, says):
    (tmp_path / "raises_at_import.py").write_text('raise RuntimeError("no licence")')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Refuse) as caught:
        declare(tmp_path, f"tensor/far\n{text}").session("tensor/far")
    assert says in caught.value.message
    assert caught.value.fix


def test_a_callable_as_a_model(tmp_path):
    registry = declare(
        tmp_path,
        'tensor/far\nformat = "function"\nfunction = "tiny_models:affine"\n'
        '[inputs]\nx = "float32[n,3]"\n[outputs]\ny = "float32[n,3]"\ntotal = "float32[n]"\n',
    )
    found = registry.session("tensor/far").run({"x": X}, ["total"])
    np.testing.assert_array_equal(found["total"], affine(X)["total"])
    assert len(registry.session("tensor/far").ref.sha256) == 64


@pytest.mark.parametrize(
    ("gives", "error", "says"),
    [
        (None, Halt, "gave NoneType"),
        ({}, Halt, "not 'y'"),
        ({"y": [[1.0]], "total": [1.0]}, Halt, "its manifest says"),
        ({"y": "words", "total": [1.0]}, Halt, "is no"),
        (ZeroDivisionError("division"), Reject, "ZeroDivisionError"),
        (Retry("x.away", "away"), Retry, "away"),
    ],
)
def test_a_callable_that_does_not_keep_its_word(gives, error, says):
    from streamapp.models.formats.function import FunctionSession
    from streamapp.models.session import Tensor

    def function(x):
        if isinstance(gives, Exception):
            raise gives
        return gives

    ins = [Tensor("x", "float32", (-1, 3))]
    outs = [Tensor("y", "float32", (-1, 3)), Tensor("total", "float32", (-1,))]
    with pytest.raises(error, match=says):
        FunctionSession(REF, function, ins, outs).run({"x": X})
