"""Where files come from: what is cut is resumed, what is wrong is named, tokens stay at home."""

from contextlib import suppress
from threading import Event

import pytest
from file_servers import FakeMlflow, FileServer
from sites import Handler, Site

from streamapp.core.errors import Refuse
from streamapp.models import download as downloads
from streamapp.models.source import Places, SourceError, fetch

CONTENT = bytes(range(256)) * 40
SIZE = len(CONTENT)


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE_S", 0)


@pytest.fixture
def site():
    with FileServer({"/model.onnx": CONTENT}) as server:
        yield server


@pytest.fixture
def get(tmp_path):
    """Fetch to a file of a name; returns what is in it and the progress that was told."""

    def run(source, size=SIZE, places=None, name="model.onnx"):
        seen = []
        fetch(source, tmp_path / name, size, seen.append, places or Places())
        assert seen == sorted(seen)
        assert [path.name for path in tmp_path.iterdir()] == [name]
        return (tmp_path / name).read_bytes(), seen

    return run


def test_a_file_of_the_web(site, get):
    content, seen = get(f"{site.url}/model.onnx")
    assert content == CONTENT
    assert seen[-1] == SIZE
    assert site.asked("Range") == [None]


def test_a_download_that_is_cut_goes_on_where_it_was(site, get):
    site.cuts = [1000, 2500, 1]
    content, _ = get(f"{site.url}/model.onnx")
    assert content == CONTENT
    assert site.asked("Range") == [None, "bytes=1000-", "bytes=3500-", "bytes=3501-"]


def test_a_process_that_was_killed_left_what_the_next_one_goes_on_with(
    site, get, tmp_path, monkeypatch
):
    monkeypatch.setattr(downloads, "ATTEMPTS", 0)
    site.cuts = [4000]
    with pytest.raises(SourceError, match="4000 of 10240 bytes arrived"):
        get(f"{site.url}/model.onnx")
    assert not (tmp_path / "model.onnx").exists()
    content, seen = get(f"{site.url}/model.onnx")
    assert content == CONTENT
    assert seen[0] > 4000
    assert site.asked("Range")[-1] == "bytes=4000-"


def test_a_file_that_changed_meanwhile_comes_whole(site, get):
    class Changing(list):
        def pop(self, place):
            site.files["/model.onnx"] = CONTENT[::-1]
            return super().pop(place)

    site.cuts = Changing([1000])
    content, _ = get(f"{site.url}/model.onnx")
    assert content == CONTENT[::-1]
    assert site.asked("If-Range")[1]


@pytest.mark.parametrize("missing", ["ranges", "validators", "lengths"])
def test_a_server_that_knows_less_gives_the_whole_file_again(site, get, missing):
    setattr(site, missing, False)
    site.cuts = [1000]
    content, _ = get(f"{site.url}/model.onnx")
    assert content == CONTENT


def test_the_part_of_another_address_is_not_gone_on_with(site, get, monkeypatch):
    monkeypatch.setattr(downloads, "ATTEMPTS", 0)
    site.files["/other.onnx"] = CONTENT
    site.cuts = [4000]
    with pytest.raises(SourceError):
        get(f"{site.url}/other.onnx")
    get(f"{site.url}/model.onnx")
    assert site.asked("Range") == [None, None]


def test_a_server_that_is_busy_is_asked_again(site, get):
    site.statuses = [503, 429]
    assert get(f"{site.url}/model.onnx")[0] == CONTENT
    site.statuses = [503] * 9
    with pytest.raises(SourceError, match="HTTP 503"):
        get(f"{site.url}/model.onnx")
    assert len(site.requests) == 3 + downloads.ATTEMPTS


def test_what_brings_nothing_again_and_again_ends(site, get):
    site.cuts = [0] * 100
    with pytest.raises(SourceError, match="0 of 10240 bytes arrived"):
        get(f"{site.url}/model.onnx")
    assert len(site.requests) == downloads.ATTEMPTS


class Dripping(Handler):
    """Sends a byte now and then for as long as anybody reads."""

    def do_GET(self):
        self.server.asked += 1
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while not self.server.released.wait(0.02):
                self.wfile.write(b" ")


def test_a_server_that_drips_is_given_up(get, monkeypatch):
    monkeypatch.setattr(downloads, "READ_S_MAX", 0.2)
    with Site(Dripping) as site:
        site.asked, site.released = 0, Event()
        try:
            with pytest.raises(SourceError, match="next to nothing arrived"):
                get(f"{site.url}/model.onnx")
            assert site.asked == downloads.ATTEMPTS
            with pytest.raises(SourceError, match="next to nothing arrived"):
                get("mlflow:risk/1:model.onnx", places=Places(mlflow_url=site.url))
        finally:
            site.released.set()


def test_what_is_not_there_is_not_asked_for_again(site, get):
    with pytest.raises(SourceError, match="HTTP 404"):
        get(f"{site.url}/nothing.onnx")
    assert len(site.requests) == 1


def test_nobody_there(get):
    with pytest.raises(SourceError, match="refused"):
        get("http://127.0.0.1:9/model.onnx")


@pytest.mark.parametrize(("size", "says"), [(SIZE - 1, "larger than"), (SIZE + 1, "it has 10240")])
def test_another_size_than_declared(site, get, size, says, tmp_path):
    with pytest.raises(SourceError, match=says):
        get(f"{site.url}/model.onnx", size)
    assert not (tmp_path / "model.onnx").exists()


def test_a_truncated_file_of_this_disk(get, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/model.onnx").write_bytes(CONTENT[:100])
    with pytest.raises(SourceError, match="it has 100 bytes, the manifest declares 10240"):
        get(f"file:{tmp_path}/there/model.onnx")


def test_hugging_face(site, get):
    site.files["/owner/repo/resolve/v1.0/onnx/model%20a.onnx"] = CONTENT
    places = Places(hf_url=site.url, hf_token="secret")
    assert get("hf:owner/repo@v1.0:onnx/model a.onnx", places=places)[0] == CONTENT
    assert site.asked("Authorization") == ["Bearer secret"]


def test_a_token_does_not_follow_a_redirect_to_another_host(site, get):
    site.files["/owner/repo/resolve/main/model.onnx"] = b""
    with FileServer({"/blob": CONTENT}) as elsewhere:
        site.redirects["/owner/repo/resolve/main/model.onnx"] = f"{elsewhere.url}/blob"
        elsewhere.cuts = [77]
        places = Places(hf_url=site.url, hf_token="secret")
        assert get("hf:owner/repo@main:model.onnx", places=places)[0] == CONTENT
        assert site.asked("Authorization") == ["Bearer secret"] * 2
        assert elsewhere.asked("Authorization") == [None] * 2
        assert elsewhere.asked("Range") == [None, "bytes=77-"]


@pytest.mark.parametrize(
    ("source", "stored", "requests"),
    [
        ("mlflow-artifacts:/1/models/m-1/artifacts", "", 2),
        ("runs:/r1/model", "mlflow-artifacts:/0/r1/artifacts", 3),
        ("models:/m-7", "mlflow-artifacts:/0/models/m-7/artifacts", 3),
        ("s3://bucket/a/b", "", 2),
        ("runs:/r1/model", "s3://bucket/r1", 3),
    ],
)
def test_an_artifact_of_mlflow(get, source, stored, requests):
    with FakeMlflow(source, stored) as registry:
        registry.publish("intents", 3, "model.onnx", CONTENT)
        places = Places(mlflow_url=registry.url + "/", mlflow_token="secret")
        assert get("mlflow:intents/3:model.onnx", places=places)[0] == CONTENT
        assert registry.queries()[0] == {"name": ["intents"], "version": ["3"]}
        if "s3" in source + stored:
            assert registry.queries()[-1]["path"] == ["model.onnx"]
        if source.startswith("runs"):
            assert registry.queries()[1] == {"run_id": ["r1"]}
        assert registry.asked("Authorization") == ["Bearer secret"] * requests


def test_mlflow_that_is_not_set_or_knows_no_such_version(get):
    with pytest.raises(Refuse, match="mlflow_url is not set"):
        get("mlflow:intents/3:model.onnx")
    with FakeMlflow() as registry:
        with pytest.raises(SourceError, match="404"):
            get("mlflow:intents/3:model.onnx", places=Places(mlflow_url=registry.url))
        registry.files["/api/2.0/mlflow/model-versions/get-download-uri"] = b"<html>"
        with pytest.raises(SourceError, match="is no MLflow"):
            get("mlflow:intents/3:model.onnx", places=Places(mlflow_url=registry.url))


@pytest.mark.parametrize(
    "source", ["ftp://x/y", "pypi:no-version:x", "hf:model:file", "file:x", "mlflow:name:x"]
)
def test_an_unknown_kind_is_refused(get, source):
    with pytest.raises(Refuse, match="no known kind"):
        get(source)


@pytest.mark.parametrize("source", ["http://[::1/x", "https://", "http://a:b/x"])
def test_what_is_no_address_is_refused(get, source):
    with pytest.raises(Refuse, match="is no web address"):
        get(source)


def test_an_address_with_a_password_is_refused_and_not_repeated(get):
    with pytest.raises(Refuse, match="names a user") as caught:
        get("https://me:hunter2@127.0.0.1:1/x")
    assert "hunter2" not in str(caught.value)
