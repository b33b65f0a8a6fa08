"""Intents by a head or a classifier: its threshold, its swaps, and what does not fit together."""

import numpy as np
import pyarrow as pa
import pytest

from streamapp.core.model import ModelRef
from streamapp.plugin import Halt, Refuse, vector_column
from streamapp.plugin.testing import HashClassifier, HashModels, batch_of
from streamapp.stages.intent import Intent

LABELS = ["cancel my plan", "money back", "hello there"]


class Handle:
    """What a registry hands out: its target may change between two batches."""

    def __init__(self, target):
        self.target = target

    def __getattr__(self, name):
        return getattr(self.target, name)


def opened(classifier, **options):
    way = "head" if classifier.embedder else "classifier"
    models = HashModels(classifiers={"x": classifier})
    stage = Intent({way: "x", **options})
    stage.declare(models)
    stage.open(models)
    return stage


def batch(texts):
    vectors = HashModels().embedder().embed([text or "" for text in texts])[0]
    vectors[[text is None for text in texts]] = np.nan
    return batch_of(text=texts, embedding=vector_column(vectors))


def answers(stage, texts):
    columns = stage.enrich(batch(texts))
    assert {name: array.type for name, array in columns.items()} == stage.writes
    return {name: array.to_pylist() for name, array in columns.items()}


@pytest.mark.parametrize("takes", ["vectors", "texts"])
def test_the_likeliest_label_is_the_intent(takes):
    stage = opened(HashClassifier(LABELS, takes))
    assert stage.labels == tuple(LABELS)
    found = answers(stage, ["money back", None, "hello there"])
    assert found["intent"] == ["money back", None, "hello there"]
    assert found["intent_id"] == [1, None, 2]
    assert found["intent_source"][0] == ("head" if takes == "vectors" else "classifier")
    assert found["intent_confidence"][1] is None
    assert 0.9 < found["intent_confidence"][0] <= 1


def test_blank_text_has_no_intent():
    stage = opened(HashClassifier(LABELS, "texts"))
    assert stage.reads == ("text",)
    assert answers(stage, ["  \n", "money back"])["intent"] == [None, "money back"]


def test_below_the_manifest_s_threshold_is_unknown():
    texts = ["money", "money back"]
    sure = answers(opened(HashClassifier(LABELS)), texts)["intent_confidence"]
    assert sure[0] < sure[1]
    between = sum(sure) / 2
    found = answers(opened(HashClassifier(LABELS, threshold=between)), texts)
    assert found["intent"] == ["unknown", "money back"]
    assert found["intent_id"] == [-1, 1]
    assert found["intent_confidence"] == sure


def test_options_take_the_place_of_the_manifest_s():
    texts = ["money back"]
    strict = HashClassifier(LABELS, threshold=1.1)
    assert answers(opened(strict), texts)["intent"] == ["unknown"]
    assert answers(opened(strict, confidence_min=0.0), texts)["intent"] == ["money back"]
    plain = HashClassifier(LABELS)
    assert answers(opened(plain, confidence_min=1.1), texts)["intent"] == ["unknown"]
    assert answers(opened(plain, margin_min=1.1), texts)["intent"] == ["unknown"]
    assert answers(opened(plain, margin_min=0.1), texts)["intent"] == ["money back"]


def test_another_version_answers_from_the_next_batch_on():
    handle = Handle(HashClassifier(LABELS))
    stage = opened(handle)
    assert answers(stage, ["money back"])["intent_id"] == [1]
    assert stage.models == (handle.ref,)
    handle.target = HashClassifier(["refund", *LABELS], version=2)
    assert answers(stage, ["money back"])["intent_id"] == [2]
    assert [ref.version for ref in stage.models] == [2]


def test_a_head_that_another_model_s_vectors_trained_is_refused():
    stranger = Handle(HashClassifier(LABELS))
    stranger.embedder = "embed/other@3"
    with pytest.raises(Refuse, match="trained on vectors of embed/other@3") as caught:
        opened(stranger)
    assert "embed/hashed-words@1" in caught.value.message
    assert "embed/other@3" in caught.value.fix


def test_a_head_swapped_for_one_that_does_not_fit_stops_the_process():
    handle = Handle(HashClassifier(LABELS))
    stage = opened(handle)
    handle.embedder = "embed/other@3"
    with pytest.raises(Halt, match="trained on vectors of embed/other@3"):
        stage.enrich(batch(["hello there"]))


def test_vectors_of_another_length_stop_the_process():
    with pytest.raises(Halt, match="of 16 numbers, the column embedding of 8"):
        opened(HashClassifier(LABELS)).enrich(
            batch_of(embedding=vector_column(np.ones((1, 8), np.float32)))
        )


@pytest.mark.parametrize(("takes", "way"), [("texts", "head"), ("vectors", "classifier")])
def test_the_other_kind_of_model_is_refused(takes, way):
    models = HashModels(classifiers={"x": HashClassifier(LABELS, takes)})
    stage = Intent({way: "x"})
    with pytest.raises(Refuse, match=f"x takes {takes}"):
        stage.open(models)


@pytest.mark.parametrize(
    "options",
    [{"head": "x", "classifier": "y"}, {"head": "x", "labels": {"a": "b", "c": "d"}}, {"head": 3}],
)
def test_two_ways_to_one_answer_are_refused(options):
    with pytest.raises(Refuse, match="stage 'intent'"):
        Intent(options)


def test_an_unknown_head_is_refused():
    stage = Intent({"head": "head/none"})
    with pytest.raises(Refuse, match="head/none"):
        stage.declare(HashModels())


def test_descriptions_are_placed_anew_when_the_embedder_is_swapped():
    models = HashModels()
    first = models.embedder()
    handle = Handle(first)
    models.embedder = lambda _name=None: handle
    stage = Intent({"labels": {"refund": "money back", "greeting": "hello there"}})
    stage.open(models)
    assert answers(stage, ["money back"])["intent"] == ["refund"]

    class Turned:
        """The same words, other directions."""

        ref = ModelRef("embed", "turned", 2, "1" * 64)
        dim = first.dim

        def embed(self, texts, kind="query", out=None):
            vectors, cut = first.embed(texts, kind)
            return -vectors, cut

    handle.target = Turned()
    turned = batch_of(text=["money back"], embedding=vector_column(handle.embed(["money back"])[0]))
    assert stage.enrich(turned)["intent"].to_pylist() == ["refund"]
    assert stage.models == (Turned.ref,)


def test_it_says_what_may_be_answered():
    stage = Intent({"labels": {"refund": "money back", "greeting": "hello there"}})
    stage.declare(HashModels())
    assert stage.labels == ("refund", "greeting")


def test_an_empty_batch():
    stage = opened(HashClassifier(LABELS))
    rows = batch(["hello there"]).rows.slice(0, 0)
    found = stage.enrich(type(batch(["x"]))(rows, batch(["x"]).range))
    assert all(isinstance(array, pa.Array) and len(array) == 0 for array in found.values())
