"""Measuring and tuning: what is chosen is the fastest within the limits, and opening follows it."""

import json

import numpy as np
import onnx
import pytest
from model_versions import NAME, Versions
from onnx import TensorProto, helper, numpy_helper

from streamapp.core.errors import Refuse
from streamapp.core.model import ModelRef
from streamapp.models.manifest import TensorManifest
from streamapp.models.serving.server import Server
from streamapp.models.tuned import Tuned, read_tuned, write_tuned
from streamapp.models.tuning import search as search_module
from streamapp.models.tuning.measure import Measured, least_cosine, measure
from streamapp.models.tuning.recording import record
from streamapp.models.tuning.search import Limits, Search
from streamapp.models.tuning.subjects import ROWS_MIN, Subject, drawn
from streamapp.models.tuning.variants import make_int8
from streamapp.models.tuning.waits import WAITS_MS

REF = ModelRef("tensor", "product", 1, "a" * 64)


def product(path, size=64):
    """y = tanh(x W), float32."""
    weights = np.random.default_rng(3).standard_normal((size, size)).astype(np.float32) / 8
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"]),
        helper.make_node("Tanh", ["xw"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", size])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, str(path))


@pytest.fixture
def subject(tmp_path):
    product(tmp_path / "model.onnx")
    manifest = TensorManifest(
        name="product", version=1, about="", licence="MIT", model="model.onnx"
    )
    return Subject(manifest, tmp_path, REF)


@pytest.fixture
def versions(tmp_path):
    return Versions(tmp_path / "shelf").add(1).promote(1)


def ways(**given):
    return Tuned(sha256=REF.sha256, **given)


def test_every_way_gives_the_same_numbers(subject):
    first, numbers = measure(subject, ways(batch=1))
    assert numbers.shape == (ROWS_MIN, 64)
    assert (first.cosine, first.invariance) == (1.0, None)
    for tuned in (ways(batch=16), ways(calls=2, batch=5), ways(threads=2)):
        found, again = measure(subject, tuned, numbers)
        np.testing.assert_allclose(again, numbers, atol=1e-5)
        assert found.cosine > 0.99999
        assert found.rows_s > 0
        assert found.alone_p95_ms > 0


def test_an_embedder_is_measured_on_texts_and_alone_against_together(versions):
    registry = versions.registry()
    folder = registry.files(NAME)
    subject = Subject(registry.manifest(NAME), folder, registry.ref_of(NAME), ["a b", "c", "d e f"])
    found, numbers = measure(subject, ways(calls=2, batch=2))
    assert numbers.shape == (ROWS_MIN, 8)
    assert found.invariance == pytest.approx(1)


def test_calls_that_run_at_once_have_about_the_same_to_do(versions, monkeypatch):
    """Of few texts one call would get the longest, and one call of two threads would look faster."""
    registry = versions.registry()
    texts = ["a b c d e f g h " * 3] * 16 + ["a"] * 16
    subject = Subject(registry.manifest(NAME), registry.files(NAME), registry.ref_of(NAME), texts)
    cores = ROWS_MIN // 64
    ready = subject.open(ways(calls=cores, batch=16))
    tokens = []
    run = ready._embedder._write  # what a caller is given
    monkeypatch.setattr(
        ready._embedder, "_write",
        lambda batch, *rest: (tokens.append(len(batch) * len(batch[-1])), run(batch, *rest)),
    )  # fmt: skip
    assert len(ready.all()) == ROWS_MIN
    ready.close()
    longest_first = [0] * cores  # each batch to the caller that is free first
    for size in tokens:
        longest_first[longest_first.index(min(longest_first))] += size
    assert max(longest_first) < 1.3 * sum(tokens) / cores


def test_the_least_cosine_is_of_the_worst_row():
    one = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    assert least_cosine(one, one) == 1
    assert least_cosine(one, np.array([[1, 0], [1, 1], [0, 0]])) == pytest.approx(0.5**0.5)
    assert least_cosine(one, np.array([[1, 0], [0, 1], [1, 0]])) == 0


def fake(speeds):
    """Measurements from a table: (attribute, value) to rows per second, cosine and latency."""

    def measured(_subject, tuned, _reference, _clock):
        rows_s, cosine, alone = speeds(tuned)
        if rows_s is None:
            raise Refuse("models.openvino", "not for this graph", "")
        return Measured(tuned, rows_s, alone, cosine, None), np.ones((2, 2), np.float32)

    return measured


@pytest.mark.parametrize(
    ("speeds", "limits", "chosen"),
    [
        (lambda t: (100 * t.calls + t.batch, 1.0, 1.0), Limits(), ("onnxruntime", 1, 4, 32)),
        (lambda t: (100 * t.threads - t.batch, 1.0, 1.0), Limits(), ("onnxruntime", 4, 1, 4)),
        (lambda t: (9 if t.backend == "openvino" else 5, 1.0, 1.0), Limits(), ("openvino", 1, 4, 16)),
        (
            lambda t: (9 if t.backend == "openvino" else 5, 1 - (t.backend == "openvino") / 100, 1.0),
            Limits(), ("onnxruntime", 1, 4, 16),
        ),
        (lambda t: (t.batch, 1.0, t.batch), Limits(alone_ms_max=16), ("onnxruntime", 1, 4, 16)),
        (
            lambda t: (None if t.backend == "openvino" else t.batch, 1.0, 1.0),
            Limits(), ("onnxruntime", 1, 4, 32),
        ),
    ],
    ids=["calls", "threads", "runtime", "not exact", "too slow alone", "cannot be run"],
)  # fmt: skip
def test_the_fastest_within_the_limits_is_chosen(subject, monkeypatch, speeds, limits, chosen):
    monkeypatch.setattr(search_module, "measure", fake(speeds))
    monkeypatch.setattr(search_module, "is_installed", lambda: True)
    told = []
    search = Search(subject, 4, limits, lambda *seen: told.append(seen))
    monkeypatch.setattr(search, "_with_wait", lambda best: best)
    best = search.best().tuned
    assert (best.backend, best.threads, best.calls, best.batch) == chosen
    assert len(told) == len({str(tuned) for _, tuned, _ in told})  # each way once


def test_faster_ways_that_break_a_limit_are_told_with_what_allows_them(subject, monkeypatch):
    cosines = {"f32": 1.0, "int8": 0.99811, "bf16": 0.5}
    speeds = {"f32": 10.0, "int8": 20.0, "bf16": 30.0}
    monkeypatch.setattr(
        search_module, "measure", fake(lambda t: (speeds[t.precision], cosines[t.precision], 1.0))
    )
    monkeypatch.setattr(search_module, "is_installed", lambda: True)
    search = Search(subject, 1)
    monkeypatch.setattr(search, "_with_wait", lambda best: best)
    best = search.best()
    assert best.tuned.precision == "f32"
    told = [(found.tuned.precision, why) for found, why in search.passed_over(best)]
    assert told == [
        ("bf16", "cosine 0.50000 is below 0.999"),
        ("int8", "cosine 0.99811 is below 0.999; --cosine-min 0.998 allows it"),
    ]
    allowed = Search(subject, 1, Limits(cosine_min=0.998))
    monkeypatch.setattr(allowed, "_with_wait", lambda best: best)
    assert allowed.best().tuned.precision == "int8"


def test_limits_that_nothing_keeps_are_said(subject, monkeypatch):
    monkeypatch.setattr(search_module, "measure", fake(lambda t: (1.0, 1.0, 50.0)))
    with pytest.raises(Refuse, match="50.0 ms") as caught:
        Search(subject, 2, Limits(alone_ms_max=1)).best()
    assert "--alone-ms-max" in caught.value.fix


def test_a_quantised_variant_is_made_measured_and_kept_when_chosen(subject, monkeypatch):
    scratch = subject.folder / ".tune-1"
    scratch.mkdir()
    variant = make_int8(subject.folder / "model.onnx", scratch)
    assert variant.stat().st_size < (subject.folder / "model.onnx").stat().st_size

    def preferred(_subject, tuned, reference, clock):
        found, numbers = measure(_subject, tuned, reference, clock)
        speed = 1000 + tuned.batch if tuned.variant else tuned.batch
        return Measured(tuned, speed, 1.0, found.cosine, None), numbers

    monkeypatch.setattr(search_module, "measure", preferred)
    search = Search(subject, 1, Limits(cosine_min=0.99))
    best = search.best([variant])
    assert best.tuned.variant == "model.int8.onnx"
    assert 0.99 < best.cosine < 1
    assert set(search.waits) == set(WAITS_MS)
    assert best.tuned.wait_ms in WAITS_MS
    record(subject, best, search.measured)
    opened = read_tuned(subject.folder, REF)
    assert (subject.folder / opened.variant).is_file()
    assert opened.measured["chosen"]["variant"] == "model.int8.onnx"
    subject.variants = subject.folder
    exact = Search(subject, 1, Limits(cosine_min=0.999999))
    record(subject, exact.best([subject.folder / "model.int8.onnx"]), exact.measured)
    assert read_tuned(subject.folder, REF).variant == ""
    assert not (subject.folder / "model.int8.onnx").exists()


def test_what_has_no_float_weights_has_no_variant(versions, tmp_path):
    model = versions.registry().folder(NAME) / "model.onnx"
    assert make_int8(model, tmp_path) is None


def test_opening_follows_what_was_found(versions):
    registry = versions.registry()
    folder, ref = registry.folder(NAME), registry.ref_of(NAME)
    write_tuned(folder, Tuned(sha256=ref.sha256, calls=1, batch=3, wait_ms=0.5))
    assert versions.registry().embedder().call.batch_texts == 3
    server = Server(versions.registry())
    assert server.load(NAME).policy.wait_ms_max == 0.5
    server.close()


def test_what_was_found_for_another_file_is_ignored(versions):
    registry = versions.registry()
    write_tuned(registry.folder(NAME), Tuned(sha256="0" * 64, batch=3))
    assert versions.registry().embedder().call.batch_texts == 16


def test_a_variant_is_another_model_and_must_be_the_one_that_was_measured(subject):
    variant = make_int8(subject.folder / "model.onnx", subject.folder)
    digest = __import__("hashlib").sha256(variant.read_bytes()).hexdigest()
    tuned = ways(variant=variant.name, variant_sha256=digest)
    from streamapp.models.tuned import open_file

    session = open_file(REF, subject.folder / "model.onnx", tuned)
    assert session.ref.sha256 == digest
    variant.write_bytes(b"x")
    with pytest.raises(Refuse, match="not the file that was measured"):
        open_file(REF, subject.folder / "model.onnx", tuned)


@pytest.mark.parametrize("content", ["{", '{"sha256": "x", "backend": "tvm"}'])
def test_a_file_that_cannot_be_read_is_named(versions, content):
    folder = versions.registry().folder(NAME)
    (folder / "tuned.json").write_text(content)
    with pytest.raises(Refuse, match=r"tuned\.json") as caught:
        versions.registry().embedder()
    assert "models tune" in caught.value.fix


def test_a_runtime_that_is_gone_says_how_to_get_it(versions, monkeypatch):
    from streamapp.models import tuned as tuned_module

    monkeypatch.setattr(tuned_module, "is_installed", lambda: False)
    registry = versions.registry()
    ref = registry.ref_of(NAME)
    write_tuned(registry.folder(NAME), Tuned(sha256=ref.sha256, backend="openvino"))
    with pytest.raises(Refuse, match="not installed") as caught:
        versions.registry().embedder()
    assert "streamapp[openvino]" in caught.value.fix


def test_drawn_inputs_fit_their_signature(subject):
    from streamapp.models.session import Tensor, checked_feeds

    inputs = (
        Tensor("a", "float32", (-1, 3)), Tensor("b", "int64", (-1, -1)), Tensor("c", "bool", (2,)),
        Tensor("d", "string", (-1,)), Tensor("e", "float64", ()),
    )  # fmt: skip
    feeds = drawn(inputs, 1)
    assert checked_feeds(REF, inputs, feeds).keys() == feeds.keys()
    assert json.dumps(drawn(inputs, 1)["a"].tolist()) == json.dumps(feeds["a"].tolist())
