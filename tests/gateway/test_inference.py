"""``/v2``: Triton's client and our own, unmodified; and whatever else comes to the port."""

import asyncio
import sys
import threading
import warnings
from urllib.request import urlopen

import msgspec
import numpy as np
import pytest
from gateway_thread import GatewayThread
from inference_models import ECHOED, registry_of

from streamapp.core.clock import SYSTEM
from streamapp.core.errors import Halt, Refuse, Reject, Retry
from streamapp.core.metrics import Metrics
from streamapp.core.model import ModelRef
from streamapp.gateway.app import GATEWAY
from streamapp.gateway.inference import hosted
from streamapp.models import Registry
from streamapp.models.formats.remote import V2Session
from streamapp.models.formats.v2 import JSON_LENGTH
from streamapp.models.manifest import RemoteSpec

X = [[1.0, 2.0, 3.0, 4.0]]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Makes a registry of its own for each gateway, which closes it; the files are pulled once."""
    folder = tmp_path_factory.mktemp("models")
    registry_of(folder).close()
    return lambda: Registry(folder / "models", folder / "cache", threads=1)


@pytest.fixture(scope="module")
def served(models):
    with GatewayThread(models=models) as gateway:
        yield gateway


@pytest.fixture
async def gate(start, models):
    return await start(models=models)


def tensor(name="x", datatype="FP32", shape=(1, 4), data=X, **more):
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": data, **more}


# Clients as they are


@pytest.fixture
def triton(served):
    with warnings.catch_warnings():  # gevent's own, at import
        warnings.simplefilter("ignore")
        http = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    with http.InferenceServerClient(served.url.removeprefix("http://")) as client:
        yield http, client


def test_triton_s_client_asks_who_is_there(triton):
    _, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tensor/double")
    assert client.is_model_ready("tensor/double", "1")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data", "model_repository"]
    described = client.get_model_metadata("tensor/double")
    assert described == {
        "name": "tensor/double",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    }
    index = client.get_model_repository_index()
    assert {(each["name"], each["version"], each["state"]) for each in index} == {
        ("tensor/double", "1", "READY"),
        ("tensor/double", "2", "READY"),
        ("tensor/echo", "1", "READY"),
    }


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize(("model", "version", "factor"), [
    ("tensor/double", "", 3), ("tensor/double", "1", 2), ("d", "", 2)
])  # fmt: skip
def test_triton_s_client_runs_a_model(triton, binary_in, binary_out, model, version, factor):
    http, client = triton
    given = http.InferInput("x", [2, 4], "FP32")
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    given.set_data_from_numpy(values, binary_data=binary_in)
    wanted = [http.InferRequestedOutput("y", binary_data=binary_out)]
    found = client.infer(model, [given], outputs=wanted, model_version=version, request_id="7")
    assert np.array_equal(found.as_numpy("y"), values * factor)
    assert found.get_response()["id"] == "7"
    assert ("data" in found.get_output("y")) != binary_out


def test_triton_s_client_sends_every_type(triton):
    http, client = triton
    texts = np.array(["", "é", "日本語"], object)
    given = {
        "text": (texts, "BYTES"),
        "count": (np.array([[1, 2], [-3, 2**62], [0, 0]], np.int64), "INT64"),
        "half": (np.array([0.5, -1.5, 65504], np.float16), "FP16"),
        "flag": (np.array([True, False, True]), "BOOL"),
    }
    inputs = []
    for name, (values, kind) in given.items():
        inputs.append(http.InferInput(name, list(values.shape), kind))
        inputs[-1].set_data_from_numpy(values)
    found = client.infer("tensor/echo", inputs)  # outputs come as binary data then
    for name, (values, _) in given.items():
        again = found.as_numpy(f"{name}_again")
        if name == "text":
            again = np.array([each.decode() for each in again], object)
        assert np.array_equal(again, values), name


def test_triton_s_client_is_told_what_is_wrong(triton):
    http, client = triton
    given = http.InferInput("x", [1, 3], "FP32")
    given.set_data_from_numpy(np.ones((1, 3), np.float32))
    with pytest.raises(http.InferenceServerException, match=r"float32\[1,3\]") as caught:
        client.infer("tensor/double", [given])
    assert caught.value.status() == "400"
    with pytest.raises(http.InferenceServerException, match="no model is called"):
        client.get_model_metadata("tensor/none")
    assert not client.is_model_ready("tensor/none")


def test_triton_s_client_compresses_and_comes_many_at_once(triton):
    http, client = triton
    values = np.ones((4, 4), np.float32)
    given = http.InferInput("x", [4, 4], "FP32")
    given.set_data_from_numpy(values)
    found = client.infer("tensor/double", [given], request_compression_algorithm="gzip")
    assert np.array_equal(found.as_numpy("y"), values * 3)
    waiting = [client.async_infer("tensor/double", [given]) for _ in range(20)]
    assert all(np.array_equal(w.get_result().as_numpy("y"), values * 3) for w in waiting)


def test_our_own_session_on_a_gateway_is_a_session(served, models):
    """What is served is the model: one gateway's models can be another's."""
    ref = ModelRef("tensor", "echo", 1, "0" * 64)
    remote = V2Session(ref, RemoteSpec(url=served.url, model="tensor/echo"))
    local = models().session("tensor/echo")
    assert (remote.inputs, remote.outputs) == (local.inputs, local.outputs)
    feeds = {
        "text": np.array(["a", "ü"], object),
        "count": np.ones((2, 2), np.int64),
        "half": np.ones(2, np.float16),
        "flag": np.zeros(2, np.bool_),
    }
    for name, array in remote.run(feeds).items():
        assert np.array_equal(array, local.run(feeds)[name])
    remote.close()


# The wire


async def test_json_nested_and_flat(gate):
    status, answer = await gate.post("/v2/models/d/infer", {"inputs": [tensor()]})
    assert status == 200
    assert answer == {
        "model_name": "tensor/double",
        "model_version": "1",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [2.0, 4.0, 6.0, 8.0]}
        ],
    }
    asked = {"inputs": [tensor(shape=(2, 4), data=list(range(8)))]}
    asked["parameters"] = {"binary_data_output": "false"}  # only true is
    _, answer = await gate.post("/v2/models/tensor%2Fdouble/versions/1/infer", asked)
    assert answer["outputs"][0]["data"] == [float(2 * each) for each in range(8)]


BAD = {
    "not JSON": (b"{", "inference.json"),
    "no inputs": ({"inputs": []}, "inference.json"),
    "inputs are none": ({"inputs": [3]}, "inference.json"),
    "an unknown input": ({"inputs": [tensor("z")]}, "models.feed"),
    "another type": ({"inputs": [tensor(datatype="INT64", data=[[1, 2, 3, 4]])]}, "models.feed"),
    "no type": ({"inputs": [tensor(datatype="FLOAT")]}, "models.datatype"),
    "too few values": ({"inputs": [tensor(shape=(2, 4))]}, "models.tensor"),
    "a huge shape": ({"inputs": [tensor(shape=(2**62, 4))]}, "models.tensor"),
    "a huge shape of nothing": ({"inputs": [tensor(shape=(2**70, 0), data=[])]}, "models.tensor"),
    "values of no kind": ({"inputs": [tensor(data=["1", "2", "nan", "inf"])]}, "models.tensor"),
    "an unknown output": ({"inputs": [tensor()], "outputs": [{"name": "q"}]}, "models.output"),
    "an input twice": ({"inputs": [tensor(), tensor()]}, "inference.twice"),
    "shared memory": (
        {"inputs": [tensor(parameters={"shared_memory_region": "r"})]},
        "inference.parameter",
    ),
    "classes": (
        {"inputs": [tensor()], "outputs": [{"name": "y", "parameters": {"classification": 1}}]},
        "inference.parameter",
    ),
    "bytes that are not there": (
        {"inputs": [tensor(parameters={"binary_data_size": 16})]},
        "models.tensor",
    ),
    "too many rows": ({"inputs": [tensor(shape=(257, 4), data=[1.0] * 1028)]}, "models.rows"),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_request_is_told_why(gate, what):
    body, code = BAD[what]
    status, answer = await gate.post("/v2/models/d/infer", body)
    assert (status, answer["code"]) == (400, code)
    assert answer["fix"]
    assert answer["error"]


@pytest.mark.parametrize("length", ["9999", "-1", "x", "²", "9" * 5000])
async def test_a_json_length_beyond_the_body_is_refused(gate, length):
    headers = {JSON_LENGTH: length}
    status, answer = await gate.post("/v2/models/d/infer", {"inputs": []}, headers=headers)
    assert (status, answer["code"]) == (400, "models.tensor")


async def test_a_large_body_goes_by_a_thread_and_is_the_same(gate):
    values = np.arange(200 * 4, dtype=np.float32)
    big = {"inputs": [tensor(shape=(200, 4), data=values.tolist())], "id": "x" * 200}
    body = msgspec.json.encode(big) + b" " * 65_536
    _, answer = await gate.post("/v2/models/d/infer", body)
    assert answer["outputs"][0]["data"] == (values * 2).tolist()


async def test_a_body_too_large_is_refused(start, models):
    gate = await start(models=models, body_bytes_max=1000)
    status, answer = await gate.post("/v2/models/d/infer", b" " * 1001)
    assert (status, answer["code"]) == (413, "request.too_large")


async def test_scopes_limits_and_health(start, models):
    gate = await start(models=models, token="s3cret", rate_requests_max=4)
    for path in ("/v2", "/v2/health/live", "/v2/health/ready"):
        assert (await gate.get(path))[0] == 200
    for path in ("/v2/models/d", "/v2/models/d/ready"):
        assert (await gate.get(path))[0] == 401
    named = {"Authorization": "Bearer s3cret"}
    answers = [(await gate.get("/v2/models/d", headers=named))[0] for _ in range(5)]
    assert answers[0] == 200
    assert answers[-1] == 429


async def test_a_gateway_that_stops_is_not_ready(gate):
    gate.gateway.life.draining = True
    status, answer = await gate.get("/v2/health/ready")
    assert (status, answer) == (503, {"ready": False})


async def test_a_gateway_without_models_has_none(start):
    gate = await start()
    assert (await gate.get("/v2/health/live"))[0] == 200
    status, answer = await gate.get("/v2/models/d")
    assert (status, answer["code"]) == (404, "models.unknown")


async def test_a_model_that_is_not_pulled_is_not_ready_and_says_no_path(start, tmp_path):
    registry = registry_of(tmp_path, pull=())
    gate = await start(models=lambda: registry)
    assert await gate.get("/v2/models/d/ready") == (503, {"name": "tensor/double", "ready": False})
    status, answer = await gate.post("/v2/models/d/infer", {"inputs": [tensor()]})
    assert (status, answer["code"]) == (503, "models.not_pulled")
    assert str(tmp_path) not in msgspec.json.encode(answer).decode()
    registry.pull("d")
    assert (await gate.get("/v2/models/d/ready"))[0] == 200
    assert (await gate.post("/v2/models/d/infer", {"inputs": [tensor()]}))[0] == 200


async def test_wrong_declarations_are_not_the_client_s_business(start):
    def broken():
        raise Refuse("models.declaration", "/secret/routes.toml: wrong", "correct it")

    gate = await start(models=broken)
    status, answer = await gate.get("/v2/models/d")
    assert (status, answer["code"]) == (503, "models.declaration")
    assert "secret" not in str(answer)


async def test_an_alias_that_moves_is_followed(start, tmp_path):
    from streamapp.testing.clock import FakeClock

    clock, registry = FakeClock(), registry_of(tmp_path)
    gate = await start(models=lambda: registry, clock=clock)
    asked = {"inputs": [tensor()]}
    _, before = await gate.post("/v2/models/d/infer", asked)
    (tmp_path / "models" / "routes.toml").write_text('[aliases]\nd = "tensor/double@2"\n')
    clock.advance(2)
    _, after = await gate.post("/v2/models/d/infer", asked)
    (tmp_path / "models" / "routes.toml").write_text("[aliases")
    clock.advance(2)  # what is wrong now leaves what was
    assert (await gate.post("/v2/models/d/infer", asked))[1] == after
    assert [each["model_version"] for each in (before, after)] == ["1", "2"]


class Stub:
    """A session that does as the test says."""

    def __init__(self, run):
        self.ref = ModelRef("tensor", "double", 1, "0" * 64)
        self.run = run
        self.memory_bytes = 0

    def close(self): ...


async def test_models_run_off_the_loop_and_their_errors_stay_theirs(start, tmp_path):
    registry = registry_of(tmp_path)
    session = registry.session("d")
    held, raised, threads = threading.Event(), [], []

    def run(feeds, outputs=None):
        threads.append(threading.current_thread())
        assert held.wait(30)
        if raised:
            raise raised.pop()
        return {"y": feeds["x"]}

    stub = Stub(run)
    stub.inputs, stub.outputs = session.inputs, session.outputs
    registry.open = lambda _name: stub
    gate = await start(models=lambda: registry)
    asked = {"inputs": [tensor()]}
    waiting = asyncio.create_task(gate.post("/v2/models/d/infer", asked))
    while not threads:
        assert (await gate.get("/healthz"))[0] == 200  # the loop turns meanwhile
    assert threading.main_thread() not in threads
    held.set()
    assert (await waiting)[0] == 200
    errors = (Retry("x.y", "away at /secret"), 503), (Halt("x.y", "bug"), 500)
    function = Reject("models.function", "raised OSError: /secret", "correct the function")
    for error, status in (*errors, (function, 400), (Reject("models.run", "/secret"), 400)):
        raised.append(error)
        got, answer = await gate.post("/v2/models/d/infer", asked)
        assert (got, answer["code"]) == (status, error.code)
        assert "secret" not in str(answer)
    assert not gate.gateway.life.draining


async def test_requests_that_come_together_are_one_call(start, tmp_path):
    registry = registry_of(tmp_path)
    session = registry.session("d")
    held, rows = threading.Event(), []

    def run(feeds, outputs=None):
        rows.append(len(feeds["x"]))
        assert held.wait(30)
        return session.__class__.run(session, feeds, outputs)

    stub = Stub(run)
    stub.inputs, stub.outputs = session.inputs, session.outputs
    registry.open = lambda _name: stub
    gate = await start(models=lambda: registry)
    asked = [{"inputs": [tensor(data=[[float(n)] * 4])]} for n in range(30)]
    waiting = [asyncio.create_task(gate.post("/v2/models/d/infer", each)) for each in asked]
    while gate.gateway.life.requests < 30 or not rows:
        await asyncio.sleep(0.001)
    held.set()
    answers = await asyncio.gather(*waiting)
    assert [a["outputs"][0]["data"] for _, a in answers] == [[2.0 * n] * 4 for n in range(30)]
    assert sum(rows) == 30
    assert len(rows) < 15


async def test_a_gateway_that_nobody_asks_loads_no_models():
    code = (
        "import sys, streamapp.gateway.app\n"
        "assert not {'onnxruntime', 'onnx', 'tokenizers'} & set(sys.modules)"
    )
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await program.wait() == 0


def test_metrics_know_the_model(served):
    body = msgspec.json.encode({"inputs": [tensor()]})
    urlopen(f"{served.url}/v2/models/tensor/double/versions/1/infer", body, timeout=30).close()
    text = served.app[GATEWAY].metrics.text().decode()
    assert 'streamapp_model_call_duration_seconds_count{model="tensor/double@1"}' in text


def test_the_types_of_the_echo_are_those_of_the_protocol():
    echoed = {kind.partition("[")[0] for kind in ECHOED.values()}
    assert echoed == {"string", "int64", "float16", "bool"}


async def test_it_may_be_closed_twice(models):
    hosted_ = hosted.Hosted(models, 0, Metrics(), SYSTEM)
    assert (await hosted_.manifest("d")).version == 1
    await hosted_.close()
    await hosted_.close()
