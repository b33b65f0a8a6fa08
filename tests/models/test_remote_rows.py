"""Servers that answer about other rows than they were given: a fault of theirs, and nobody's row."""

import json

import numpy as np
import pytest
from model_servers import ModelServer

from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.models import Registry
from streamapp.models.formats import http

EMBED = (
    'task = "embed"\nname = "far"\nversion = 1\nabout = "x"\nlicence = "MIT"\nformat = "v2"\n'
    'dim = 4\nbatch_invariant = true\n[remote]\nurl = "{url}"\n'
)
CLASSIFY = (
    'task = "classify"\nname = "far"\nversion = 1\nabout = "x"\nlicence = "MIT"\nformat = "v2"\n'
    'labels = ["a", "b"]\nactivation = "softmax"\noutput = "y"\n[remote]\nurl = "{url}"\n'
)


class TextServer(ModelServer):
    """Open Inference Protocol v2 over texts: ``gives`` is the shape and numbers of each answer."""

    declared = (-1, -1)

    def __init__(self):
        super().__init__(binary=False)
        self.gives = []

    def answer(self, method, path, headers, body):
        metadata = {
            "name": "far",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": self.declared}],
        }
        if path == "/v2/models/far":
            return 200, {}, json.dumps(metadata).encode()
        if path != "/v2/models/far/infer":
            return super().answer(method, path, headers, body)
        shape, data = self.gives.pop(0)
        output = {"name": "y", "datatype": "FP32", "shape": shape, "data": data}
        return 200, {}, json.dumps({"outputs": [output]}).encode()


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(http, "PAUSE_S_FIRST", 0.0)


@pytest.fixture
def server():
    with TextServer() as one:
        yield one


@pytest.fixture
def registry(server, tmp_path):
    """The registry of one manifest; its connections are closed in the end."""
    made = []

    def make(text):
        path = tmp_path / "models" / text.split('"')[1] / "far/1/manifest.toml"
        path.parent.mkdir(parents=True)
        path.write_text(text.replace("{url}", server.url))
        made.append(Registry(tmp_path / "models", tmp_path / "cache"))
        return made[0]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(
    "wrong",
    [
        ([1, 4], [1] * 4),
        ([3, 4], [1] * 12),
        ([0, 4], []),
        ([2, 3], [1] * 6),
        ([2, 5], [1] * 10),
        ([2, 4], [1, 2, 3, 4, None, 6, 7, 8]),
    ],
)
def test_vectors_of_other_rows_or_lengths_are_the_servers_fault(server, registry, wrong):
    embedder = registry(EMBED).embedder("embed/far")
    server.gives = [wrong, ([2, 4], [3, 4, 0, 0, 0, 0, 0, 2])]
    with pytest.raises(Retry, match="no answer"):
        embedder.embed(["a", "b"])
    vectors, _ = embedder.embed(["a", "b"])  # the next answer is right
    np.testing.assert_allclose(vectors, [[0.6, 0.8, 0, 0], [0, 0, 0, 1]], rtol=1e-6)


def test_a_server_of_vectors_of_another_length_is_refused_as_it_is_opened(server, registry):
    server.declared = (-1, 8)
    with pytest.raises(Refuse, match="dim is 4"):
        registry(EMBED).embedder("embed/far")


@pytest.mark.parametrize("wrong", [([1, 2], [1] * 2), ([2, 3], [1] * 6), ([2, 1], [1] * 2)])
def test_labels_of_other_rows_are_the_servers_fault(server, registry, wrong):
    classifier = registry(CLASSIFY).classifier("classify/far")
    server.gives = [wrong, ([2, 2], [0, 9, 9, 0])]
    with pytest.raises(Retry, match="no answer"):
        classifier.classify(["a", "b"])
    assert classifier.classify(["a", "b"]).argmax(axis=1).tolist() == [1, 0]


def test_a_callable_that_gives_other_rows_stops_the_worker(tmp_path, monkeypatch):
    (tmp_path / "gives_one.py").write_text(
        "import numpy as np\ndef run(text):\n    return {'y': np.ones((1, 4), np.float32)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "models/embed/here/1/manifest.toml"
    path.parent.mkdir(parents=True)
    path.write_text(
        'task = "embed"\nname = "here"\nversion = 1\nabout = "x"\nlicence = "MIT"\n'
        'format = "function"\nfunction = "gives_one:run"\ndim = 4\nbatch_invariant = true\n'
        '[inputs]\ntext = "string[n]"\n[outputs]\ny = "float32[n,4]"\n'
    )
    embedder = Registry(tmp_path / "models", tmp_path / "cache").embedder("embed/here")
    with pytest.raises(Halt, match="for 2 texts"):
        embedder.embed(["a", "b"])
