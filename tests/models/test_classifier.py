"""Classifiers of texts and of vectors: what goes in, what comes out, and what is refused."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from streamapp.core.errors import Refuse, Reject
from streamapp.core.model import ModelRef
from streamapp.models import Registry, Tensor
from streamapp.models.classifier import HeadClassifier, activated, open_classifier
from streamapp.models.manifest import ClassifyManifest, HeadManifest

WORDS = ["[PAD]", "[UNK]", "bad", "good", "so"]
LABELS = ["negative", "positive"]


class Sums:
    """A session that remembers what it was asked, and adds up."""

    memory_bytes = 0

    def __init__(self, dim=4, labels=2, inputs=1):
        self.ref = ModelRef("head", "sums", 1, "0" * 64)
        self.inputs = tuple(Tensor(f"in{n}", "float32", (-1, dim)) for n in range(inputs))
        self.outputs = (Tensor("out", "float32", (-1, labels)),)
        self.asked = []

    def run(self, feeds, outputs=None):
        self.asked.append(feeds)
        (given,) = feeds.values()
        return {"out": np.stack([given.sum(axis=1), -given.sum(axis=1)], axis=1)}

    def close(self):
        pass


def head(session, **fields):
    declared = {"name": "x", "version": 1, "about": "", "licence": "", "embedder": "embed/x@1"}
    return HeadClassifier(session, HeadManifest(**declared | {"dim": 4, "labels": LABELS} | fields))


def test_a_row_without_a_vector_is_not_asked_about():
    session = Sums()
    vectors = np.ones((3, 4), np.float32)
    vectors[1] = np.nan
    found = head(session).classify(vectors)
    assert np.isnan(found[1]).all()
    assert found[0] == pytest.approx([1 / (1 + np.exp(-8)), 1 / (1 + np.exp(8))])
    assert [len(feed["in0"]) for feed in session.asked] == [2]
    assert np.isnan(head(session).classify(np.full((2, 4), np.nan, np.float32))).all()
    assert len(session.asked) == 1


def test_temperature_and_activation_are_the_manifest_s():
    ones = np.ones((1, 4), np.float32)
    assert head(Sums(), temperature=8).classify(ones)[0, 0] == pytest.approx(1 / (1 + np.exp(-1)))
    assert head(Sums(), activation="none").classify(ones).tolist() == [[4, -4]]
    sigmoid = head(Sums(), activation="sigmoid").classify(ones)
    assert sigmoid[0] == pytest.approx([1 / (1 + np.exp(-4)), 1 / (1 + np.exp(4))])


def test_probabilities_of_extreme_scores_are_finite():
    scores = np.array([[1e30, -1e30], [0, 0]], np.float32)
    for activation in ("softmax", "sigmoid"):
        found = activated(scores, activation, np.float32(1))
        assert found[0].tolist() == [1, 0]
        assert found[1].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "inputs", [np.ones((2, 3), np.float32), np.ones((2, 4)), np.ones(4, np.float32), ["a text"]]
)
def test_what_is_no_vector_is_rejected(inputs):
    with pytest.raises(Reject, match="takes vectors of 4 numbers") as caught:
        head(Sums()).classify(inputs)
    assert "embed/x@1" in caught.value.fix


@pytest.mark.parametrize(
    ("session", "fields", "why"),
    [
        (Sums(labels=3), {}, "not one value for each of 2 labels"),
        (Sums(inputs=2), {}, "inputs are in0, in1"),
        (Sums(), {"output": "logits"}, "no output 'logits'"),
    ],
)
def test_a_session_that_is_no_head_is_refused(session, fields, why):
    with pytest.raises(Refuse, match=why):
        head(session, **fields)


def classifier_graph(path, logits=2, names=("input_ids", "attention_mask"), leaky=False):
    """Each token adds its row of a table to the logits; padding adds nothing, unless it leaks."""
    table = np.zeros((len(WORDS), logits), np.float32)
    table[2, 0], table[3, 1] = 2, 2
    table[0, 0] = 1 if leaky else 0
    nodes = [
        helper.make_node("Gather", ["table", names[0]], ["rows"]),
        helper.make_node("Cast", [names[1]], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["as_float", "last"], ["wide"]),
        helper.make_node(
            *(("Identity", ["rows"]) if leaky else ("Mul", ["rows", "wide"])), ["seen"]
        ),
        helper.make_node("ReduceSum", ["seen", "middle"], ["logits"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(n, TensorProto.INT64, ["n", "t"]) for n in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", logits])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(np.array([1]), "middle"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, str(path))


@pytest.fixture
def declared(tmp_path):
    """Write a text classifier as a model of a repository; its registry."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    def declare(extra="", names=("input_ids", "attention_mask"), **graph):
        folder = tmp_path / "models/classify/feel/1"
        folder.mkdir(parents=True)
        classifier_graph(folder / "model.onnx", names=names, **graph)
        vocabulary = {word: place for place, word in enumerate(WORDS)}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(str(folder / "tokenizer.json"))
        files = ""
        for name in ("model.onnx", "tokenizer.json"):
            content = (folder / name).read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            files += f'[[files]]\nname = "{name}"\nsha256 = "{digest}"\nbytes = {len(content)}\n'
            files += f'sources = ["file:./{name}"]\n'
        (folder / "manifest.toml").write_text(
            'task = "classify"\nname = "feel"\nversion = 1\nabout = "a table"\nlicence = "MIT"\n'
            'model = "model.onnx"\ntokenizer = "tokenizer.json"\ntokens_max = 8\n'
            f'labels = ["negative", "positive"]\n{extra}\n{files}'
        )
        registry = Registry(tmp_path / "models", tmp_path / "cache", threads=1)
        registry.pull("classify/feel")
        return registry

    return declare


def test_texts_get_probabilities_whatever_their_neighbours(declared):
    found = declared().classifier("classify/feel")
    assert (found.embedder, found.labels) == ("", tuple(LABELS))
    texts = ["good", "so so good bad", None, "bad bad", "so", "good " * 500]
    given = found.classify(texts)
    assert np.isnan(given[2]).all()
    sigmoid = 1 / (1 + np.exp(-2))
    assert given[0] == pytest.approx([1 - sigmoid, sigmoid])
    assert given[1] == pytest.approx([0.5, 0.5])
    assert given[3, 0] == pytest.approx(1 / (1 + np.exp(-4)))
    alone = np.concatenate([found.classify([text]) for text in texts])
    assert np.allclose(given, alone, equal_nan=True, atol=1e-6)
    assert found.classify([]).shape == (0, 2)
    assert np.isnan(found.classify([None])).all()


def test_sigmoid_and_threshold_are_the_manifest_s(declared):
    found = declared('activation = "sigmoid"\nthreshold = 0.75').classifier("classify/feel")
    assert found.threshold == 0.75
    assert found.classify(["so"]).tolist() == [[0.5, 0.5]]


def test_vectors_are_not_texts(declared):
    with pytest.raises(Reject, match="takes texts"):
        declared().classifier("classify/feel").classify(np.ones((1, 4), np.float32))


def test_a_graph_with_other_inputs_is_refused(declared):
    with pytest.raises(Refuse, match="inputs are ids, mask"):
        declared(names=("ids", "mask"))


def test_a_graph_with_more_labels_than_are_named_is_refused(declared):
    with pytest.raises(Refuse, match="not one value for each of 2 labels"):
        declared(logits=3)


def test_a_promise_about_neighbours_is_tested_when_it_is_pulled(declared):
    with pytest.raises(Refuse, match="depend on its batch") as caught:
        declared(leaky=True)
    assert "batch_invariant = false" in caught.value.fix


def test_without_the_promise_texts_go_one_by_one(declared):
    found = declared("batch_invariant = false", leaky=True).classifier("classify/feel")
    texts = ["good", "so so so bad", "bad bad"]
    alone = np.concatenate([found.classify([text]) for text in texts])
    assert np.array_equal(found.classify(texts), alone)


class Words:
    """A session that takes texts: bad and good."""

    memory_bytes = 0

    def __init__(self, shape=(-1,), dtype="string"):
        self.ref = ModelRef("classify", "words", 1, "0" * 64)
        self.inputs = (Tensor("texts", dtype, shape),)
        self.outputs = (Tensor("logits", "float32", (-1, 2)),)
        self.asked = []

    def run(self, feeds, outputs=None):
        given = feeds["texts"]
        assert given.shape[1:] == self.inputs[0].shape[1:]
        self.asked.append(len(given))
        texts = given.ravel().tolist()
        return {"logits": np.array([[t.count("bad"), t.count("good")] for t in texts], np.float32)}

    def close(self):
        pass


def worded(session, **fields):
    declared = {"name": "x", "version": 1, "about": "", "licence": "", "labels": LABELS}
    manifest = ClassifyManifest(**declared | {"activation": "none"} | fields)
    return open_classifier(session, manifest, Path())


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_a_session_may_take_the_texts_themselves(shape):
    session = Words(shape)
    found = worded(session, batch_texts=2).classify(["bad", None, "good good", "so"])
    assert found[[0, 2, 3]].tolist() == [[1, 0], [0, 2], [0, 0]]
    assert np.isnan(found[1]).all()
    assert session.asked == [2, 1]
    worded(session, batch_invariant=False).classify(["a", "b"])
    assert session.asked == [2, 1, 1, 1]


def test_a_python_callable_is_a_classifier(tmp_path):
    place = tmp_path / "models/classify/counts/1"
    place.mkdir(parents=True)
    (place / "manifest.toml").write_text(
        'task = "classify"\nname = "counts"\nversion = 1\nabout = "x"\nlicence = "MIT"\n'
        'format = "function"\nfunction = "word_vectors:feelings"\n'
        'labels = ["negative", "positive"]\n'
        '[inputs]\ntexts = "string[n]"\n[outputs]\nlogits = "float32[n,2]"\n'
    )
    registry = Registry(tmp_path / "models", tmp_path / "cache", threads=1)
    found = registry.classifier("classify/counts").classify(["good good", None, "bad", "so"])
    assert found[[0, 2, 3]].argmax(axis=1).tolist() == [1, 0, 0]
    assert found[3].tolist() == [0.5, 0.5]


def test_without_a_tokenizer_a_session_must_take_texts():
    with pytest.raises(Refuse, match="is int64") as caught:
        worded(Words(dtype="int64"))
    assert "tokenizer" in caught.value.fix


def test_an_embedder_is_no_classifier(stocked):
    registry = stocked.registry()
    registry.pull("embed/tiny")
    with pytest.raises(Refuse, match="a model for embed"):
        registry.classifier("embed/tiny")
    with pytest.raises(Refuse, match="gives no labels"):
        registry.labels("embed/tiny")
    with pytest.raises(Refuse, match="no default for classify"):
        registry.classifier()
