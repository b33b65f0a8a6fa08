import numpy as np
import pytest

from streamapp.plugin import Halt, Refuse, vector_column
from streamapp.plugin.testing import HashModels, batch_of
from streamapp.stages.intent import Intent

LABELS = {"cancel": ["stop my plan", "end it"], "refund": "money back", "greeting": ["hello"]}


def decided(texts, dim=16, **options):
    models = HashModels(dim)
    stage = Intent({"labels": LABELS, **options})
    stage.open(models)
    vectors = models.embedder().embed([text or "" for text in texts])[0]
    vectors[[text is None for text in texts]] = np.nan
    columns = stage.enrich(batch_of(embedding=vector_column(vectors)))
    assert {name: array.type for name, array in columns.items()} == stage.writes
    return {name: array.to_pylist() for name, array in columns.items()}


def test_the_nearest_description_decides():
    found = decided(["end it", "money back", "hello", "stop my plan"])
    assert found["intent"] == ["cancel", "refund", "greeting", "cancel"]
    assert found["intent_id"] == [0, 1, 2, 0]
    assert found["intent_source"] == ["prototype"] * 4
    assert all(0.5 < share <= 1 for share in found["intent_confidence"])


def test_a_small_lead_is_unknown():
    found = decided(["money back"], margin_min=1.99)
    assert found["intent"] == ["unknown"]
    assert found["intent_id"] == [-1]
    assert found["intent_confidence"][0] > 0


def test_little_confidence_is_unknown():
    sure = decided(["money back"])["intent_confidence"][0]
    assert decided(["money back"], confidence_min=sure - 0.01)["intent"] == ["refund"]
    assert decided(["money back"], confidence_min=sure + 0.01)["intent"] == ["unknown"]


def test_no_vector_no_intent():
    found = decided([None, "hello"])
    assert {name: values[0] for name, values in found.items()} == dict.fromkeys(found)
    assert found["intent"][1] == "greeting"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"labels": {}},
        {"labels": {"one": "a"}},
        {"labels": {"one": "a", "two": []}},
        {"labels": {"one": "a", "two": [3]}},
        {"labels": {"one": "a", "unknown": "b"}},
        {"labels": LABELS, "temperature": 0},
        {"labels": LABELS, "margin": 0.1},
        {"labels": LABELS, "margin_min": "much"},
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(Refuse, match="stage 'intent'") as caught:
        Intent(options)
    assert caught.value.fix


def test_vectors_of_another_model_stop_the_process():
    stage = Intent({"labels": LABELS})
    stage.open(HashModels(16))
    with pytest.raises(Halt, match="of 16 numbers"):
        stage.enrich(batch_of(embedding=vector_column(np.ones((1, 8), np.float32))))
