"""``/v2``: a model that cannot serve is not ready, and says no more than that."""

from urllib.error import HTTPError
from urllib.request import urlopen

import msgspec
import pytest
from gateway_thread import GatewayThread
from model_servers import ModelServer

from streamapp.models import Registry

DECLARED = 'task = "tensor"\nname = "NAME"\nversion = 1\nabout = "x"\nlicence = "MIT"\n'
SIDES = '[inputs]\nx = "float32[n,3]"\n[outputs]\ny = "float32[n,3]"\n'
BROKEN = {
    "sound": f'{DECLARED}format = "function"\nfunction = "tiny_models:affine"\n{SIDES}',
    "nowhere": f'{DECLARED}format = "function"\nfunction = "tiny_models:nowhere"\n{SIDES}',
    "spacy": f'{DECLARED}format = "spacy"\n{SIDES}',
    "nonsense": "task = 3",
}


def test_what_is_no_model_is_not_ready(tmp_path):
    """A function that is not there, a format for another task, and a manifest that is none."""
    for name, text in BROKEN.items():
        place = tmp_path / f"models/tensor/{name}/1/manifest.toml"
        place.parent.mkdir(parents=True)
        place.write_text(text.replace("NAME", name))
    make = lambda: Registry(tmp_path / "models", tmp_path / "cache")  # noqa: E731
    with GatewayThread(models=make) as gateway:
        ready = {}
        for name in BROKEN:
            try:
                with urlopen(f"{gateway.url}/v2/models/tensor%2F{name}/ready") as answer:
                    ready[name] = answer.status
            except HTTPError as error:
                ready[name] = error.code
                assert str(tmp_path) not in error.read().decode()
        index = urlopen(f"{gateway.url}/v2/repository/index", b"").read().decode()
    assert ready == {"sound": 200, "nowhere": 503, "spacy": 503, "nonsense": 503}
    states = {one["name"]: one["state"] for one in msgspec.json.decode(index)}
    assert states["tensor/sound"] == "READY"
    assert states["tensor/nonsense"] == states["tensor/spacy"] == "UNAVAILABLE"
    assert str(tmp_path) not in index


REMOTE = """about = "x"
licence = "x"
version = 1
[remote]
url = "URL"
model = "affine"
"""


@pytest.fixture
def remote(tmp_path):
    """Manifests of models on a server that answers, and on one that is not there."""

    def write(name, task, format_, url, more=""):
        place = tmp_path / f"models/{task}/{name}/1/manifest.toml"
        place.parent.mkdir(parents=True)
        head = f'task = "{task}"\nname = "{name}"\nformat = "{format_}"\n{more}'
        place.write_text(head + REMOTE.replace("URL", url))

    vectors = "dim = 4\nbatch_invariant = true\n"
    with ModelServer() as server:
        write("up", "tensor", "v2", f"{server.url}/v2")
        write("far", "embed", "openai", f"{server.url}/v1", vectors)
        write("down", "tensor", "v2", "http://127.0.0.1:9")
        write("silent", "chat", "openai", "http://127.0.0.1:9/v1")
        yield server, lambda: Registry(tmp_path / "models", tmp_path / "cache")


def state_of(url):
    try:
        with urlopen(url) as answer:
            return answer.status
    except HTTPError as error:
        assert "127.0.0.1" not in error.read().decode()
        return error.code


def test_a_model_on_a_server_is_ready_when_that_answers(remote):
    server, make = remote
    with GatewayThread(models=make) as gateway:
        names = ("tensor%2Fup", "embed%2Ffar", "tensor%2Fdown", "chat%2Fsilent")
        ready = [state_of(f"{gateway.url}/v2/models/{name}/ready") for name in names]
        with urlopen(f"{gateway.url}/v2/repository/index", b"") as answer:
            index = msgspec.json.decode(answer.read())
    assert ready == [200, 200, 503, 503]
    states = {one["name"]: (one["state"], one["reason"]) for one in index}
    assert states["tensor/up"] == states["embed/far"] == ("READY", "")
    assert states["tensor/down"] == ("UNAVAILABLE", "its server does not answer")
    asked = [path for _, path in server.requests]
    assert sorted(asked) == sorted(set(asked))  # one look was enough for all five


def test_a_server_that_hangs_or_refuses_is_away_within_the_time(remote, tmp_path):
    from streamapp.models.reach import away

    server, make = remote
    known = make()
    manifests = [known.manifest("tensor/up"), known.manifest("embed/far")]
    server.ill += ["hang", "hang"]
    assert set(away(manifests, str, 0.2)) == {"tensor/up@1", "embed/far@1"}
    server.released.set()
    server.ill += [(401, {}, b"{}")] * 2
    assert {why.rpartition(" ")[2] for why in away(manifests, str, 10).values()} == {"401"}
    server.ill += ["drop", "drop"]
    assert "does not answer" in away(manifests[:1], str, 10)["tensor/up@1"]
    server.ill.clear()
    assert away(manifests, str, 10) == {}
