"""One suite for every way to run a model: whatever it is made of, it keeps the Session contract."""

import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import pytest
from model_servers import ModelServer, vector_of
from onnx import TensorProto, helper, numpy_helper
from tiny_models import affine, affine_model

from streamapp.core.errors import Halt, Reject
from streamapp.core.model import ModelRef
from streamapp.models.formats.function import FunctionSession
from streamapp.models.formats.onnx import OnnxSession
from streamapp.models.formats.remote import OpenaiSession, V2Session
from streamapp.models.manifest import RemoteSpec
from streamapp.models.session import Session, Tensor
from streamapp.models.tuned import Tuned, open_file

REF = ModelRef("tensor", "affine", 1, "0" * 64)
AFFINE_IN = (Tensor("x", "float32", (-1, 3)),)
AFFINE_OUT = (Tensor("y", "float32", (-1, 3)), Tensor("total", "float32", (-1,)))


@dataclass
class Case:
    """A session and what it must give."""

    session: Session
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    feeds: dict[str, np.ndarray]
    found: dict[str, np.ndarray]
    others: list[dict[str, np.ndarray]]

    def expect(self, rows):
        """Feeds and outputs of some rows."""
        return (
            {name: array[rows] for name, array in self.feeds.items()},
            {name: array[rows] for name, array in self.found.items()},
        )


def _affine_case(session):
    x = np.random.default_rng(3).standard_normal((7, 3)).astype(np.float32)
    others = [
        {},
        {"x": x, "z": x},
        {"x": x.astype(np.float64)},
        {"x": x[:, :2]},
        {"x": x[0]},
    ]
    return Case(session, AFFINE_IN, AFFINE_OUT, {"x": x}, affine(x), others)


def _texts(*texts):
    array = np.empty(len(texts), object)
    array[:] = texts
    return array


def _openai_case(session):
    texts = _texts("one", "two", "three", "", "é", "five", "six")
    found = {"embedding": np.stack([vector_of(text) for text in texts])}
    others = [{}, {"text": texts, "z": texts}, {"text": np.zeros(7, np.float32)}]
    inputs = (Tensor("text", "string", (-1,)),)
    outputs = (Tensor("embedding", "float32", (-1, 4)),)
    return Case(session, inputs, outputs, {"text": texts}, found, others)


@pytest.fixture(params=["onnx", "openvino", "function", "v2 json", "v2 binary", "openai"])
def case(request, tmp_path):
    if request.param == "onnx":
        made = _affine_case(OnnxSession(REF, affine_model(tmp_path / "m.onnx")))
    elif request.param == "openvino":
        pytest.importorskip("openvino", reason="not proven: the extra [openvino] is not installed")
        from streamapp.models.formats.openvino import OpenvinoSession

        made = _affine_case(OpenvinoSession(REF, affine_model(tmp_path / "m.onnx")))
    elif request.param == "function":
        function = lambda x: affine(x)  # noqa: E731, PLW0108
        made = _affine_case(FunctionSession(REF, function, AFFINE_IN, AFFINE_OUT))
    else:
        server = ModelServer(binary="binary" in request.param)
        request.getfixturevalue("closing").append(server)
        server.__enter__()
        if request.param == "openai":
            made = _openai_case(OpenaiSession(REF, RemoteSpec(url=f"{server.url}/v1"), dim=4))
        else:
            made = _affine_case(V2Session(REF, RemoteSpec(url=server.url)))
    yield made
    made.session.close()


@pytest.fixture
def closing():
    servers: list[Any] = []
    yield servers
    for server in servers:
        server.__exit__()


def _assert_same(got, expected):
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_allclose(got[name], array, rtol=1e-6, atol=1e-6)


def test_it_says_who_it_is_and_what_it_takes(case):
    assert replace(case.session.ref, runtime="") == REF
    assert case.session.inputs == case.inputs
    assert case.session.outputs == case.outputs
    assert case.session.memory_bytes >= 0


def test_who_it_is_says_what_computes_it(tmp_path):
    path = affine_model(tmp_path / "m.onnx")
    assert OnnxSession(REF, path, device="cpu").ref == replace(REF, runtime="onnxruntime")
    pytest.importorskip("openvino", reason="not proven: the extra [openvino] is not installed")
    tuned = Tuned(sha256=REF.sha256, backend="openvino", precision="int8")
    assert open_file(REF, path, tuned).ref == replace(REF, runtime="openvino int8")


def test_all_outputs_by_default(case):
    _assert_same(case.session.run(case.feeds), case.found)


def test_the_outputs_that_are_asked_for(case):
    for name, array in case.found.items():
        _assert_same(case.session.run(case.feeds, [name]), {name: array})


@pytest.mark.parametrize("rows", [slice(0, 1), slice(2, 5), slice(0, 0)])
def test_any_number_of_rows(case, rows):
    feeds, found = case.expect(rows)
    _assert_same(case.session.run(feeds), found)


def test_feeds_are_not_changed_and_outputs_are_the_callers(case):
    before = {name: array.copy() for name, array in case.feeds.items()}
    first = case.session.run(case.feeds)
    kept = {name: array.copy() for name, array in first.items()}
    case.session.run({name: array[:2] for name, array in case.feeds.items()})
    for name, array in case.feeds.items():
        assert (array == before[name]).all()
    _assert_same(first, kept)


def test_rows_that_lie_apart_in_memory(case):
    feeds, found = case.expect(slice(None, None, 2))
    _assert_same(case.session.run(feeds), found)


def test_a_bad_feed_is_a_reject_that_names_it(case):
    for feeds in case.others:
        with pytest.raises(Reject) as caught:
            case.session.run(feeds)
        assert caught.value.fix
        names = {*case.feeds, "z"}
        assert any(f"'{name}'" in caught.value.message for name in names)


def test_an_unknown_output_is_a_reject_that_names_it(case):
    with pytest.raises(Reject, match="'nope'") as caught:
        case.session.run(case.feeds, ["nope"])
    assert case.outputs[0].name in caught.value.fix


def test_it_goes_on_after_a_reject(case):
    with pytest.raises(Reject):
        case.session.run(case.others[0])
    _assert_same(case.session.run(case.feeds), case.found)


def test_calls_from_several_threads_at_once(case):
    results: dict[int, Any] = {}

    def call(place):
        feeds, _ = case.expect(slice(place, None))
        for _ in range(5):
            results[place] = case.session.run(feeds)

    threads = [threading.Thread(target=call, args=(place,)) for place in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place in range(6):
        _assert_same(results[place], case.expect(slice(place, None))[1])


def test_a_closed_one_does_not_run(case):
    case.session.close()
    case.session.close()
    with pytest.raises(Halt, match="closed"):
        case.session.run(case.feeds)


def test_openvino_calls_outputs_as_the_file_does(tmp_path):
    pytest.importorskip("openvino", reason="not proven: the extra [openvino] is not installed")
    from streamapp.models.formats.openvino import OpenvinoSession

    # OpenVINO makes an Identity one with what is before it, and then knows both names.
    session = OpenvinoSession(REF, _ending_in_identities(tmp_path / "m.onnx", count=8))
    assert [one.name for one in session.outputs] == [f"y{place}" for place in range(8)]
    found = session.run({"x": np.ones((2, 3), np.float32)})
    assert [found[f"y{place}"].tolist() for place in range(8)] == [
        [[place + 1.0] * 3] * 2 for place in range(8)
    ]
    session.close()


def test_openvino_has_threads_for_each_of_the_calls_that_run_at_once(tmp_path):
    pytest.importorskip("openvino", reason="not proven: the extra [openvino] is not installed")
    tuned = Tuned(sha256=REF.sha256, backend="openvino", threads=1, calls=2)
    session = open_file(REF, affine_model(tmp_path / "m.onnx"), tuned)
    assert session._model.get_property("NUM_STREAMS") == 2
    assert session._model.get_property("INFERENCE_NUM_THREADS") == 2
    session.close()


def test_openvino_computes_in_what_was_asked_for(tmp_path):
    """Left alone it rounds activations to int8 where weights are stored so."""
    pytest.importorskip("openvino", reason="not proven: the extra [openvino] is not installed")
    from streamapp.models.formats.openvino import PRECISIONS, OpenvinoSession

    path = _stored_as_int8(tmp_path / "m.onnx", size=384)
    feeds = {"x": np.random.default_rng(1).standard_normal((16, 384)).astype(np.float32)}
    exact = OnnxSession(REF, path).run(feeds)["y"]
    off = {}
    for precision in PRECISIONS:
        session = OpenvinoSession(REF, path, precision=precision)
        off[precision] = float(np.abs(session.run(feeds)["y"] - exact).max())
        session.close()
    assert off["f32"] < 1e-4
    assert max(off.values()) < 0.1  # on CPUs that cannot, the others are float32 too


def _stored_as_int8(path, size):
    """y = x W, the weights stored as int8 with a scale, as exporters of int8 models write them."""
    numbers = np.random.default_rng(0).integers(-127, 128, (size, size), np.int8)
    scale = np.float32(1 / (127 * size**0.5))
    nodes = [
        helper.make_node("Cast", ["w8"], ["wf"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wf", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    kind, shape = TensorProto.FLOAT, ["n", size]
    graph = helper.make_graph(
        nodes,
        "stored",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
        [numpy_helper.from_array(numbers, "w8"), numpy_helper.from_array(scale, "scale")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, str(path))
    return path


def _ending_in_identities(path, count):
    """``y0``: x + 0, ``y1``: x + 1, and so on."""
    kind, shape = TensorProto.FLOAT, ["n", 3]
    nodes, numbers = [], []
    for place in range(count):
        numbers.append(numpy_helper.from_array(np.float32(place), f"c{place}"))
        nodes.append(helper.make_node("Add", ["x", f"c{place}"], [f"Add_{place}"]))
        nodes.append(helper.make_node("Identity", [f"Add_{place}"], [f"y{place}"]))
    graph = helper.make_graph(
        nodes,
        "ends",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(f"y{place}", kind, shape) for place in range(count)],
        numbers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, str(path))
    return path
