"""The real default model, as pulled."""

import csv
from pathlib import Path

import numpy as np
import pytest

from streamapp.core.errors import Refuse
from streamapp.models import Registry
from streamapp.models.sample import TEXTS
from streamapp.plugin.testing import batch_of
from streamapp.workflow import PartitionState, Plan, load_workflow

ROOT = Path(__file__).parents[2]
CACHE = Path("~/.cache/streamapp").expanduser()

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def registry():
    registry = Registry(ROOT / "models", CACHE, threads=1)
    if not registry.status().pulled:
        pytest.skip(f"{registry.status().name} is not pulled: streamapp models pull")
    return registry


@pytest.fixture(scope="module")
def plan(registry):
    plan = Plan(load_workflow(ROOT / "topics/workflow.toml"), registry)
    plan.open()
    yield plan
    plan.close()


def enriched(plan, texts):
    batch = batch_of(text=texts, conversation=["c"] * len(texts))
    rows, _ = plan.run(batch, PartitionState(10), {})
    return rows.rows.to_pylist()


def test_vectors_are_unit_long_and_of_their_text_alone(registry):
    embedder = registry.embedder()
    assert embedder.dim == registry.manifest().dim == 384
    together, truncated = embedder.embed(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([embedder.embed([text])[0] for text in TEXTS])
    assert (alone * together).sum(axis=1).min() > 0.99999
    assert not truncated.any()
    assert embedder.measure_invariance(TEXTS) > 0.99999
    assert registry.status().cosine_min > 0.99999


def test_long_texts_are_cut_and_said_to_be(registry):
    _, truncated = registry.embedder().embed(["word " * 600, "word"])
    assert truncated.tolist() == [True, False]


def test_near_meanings_are_near_across_languages(registry):
    vectors, _ = registry.embedder().embed(
        ["I want a refund", "Quero o meu dinheiro de volta", "The weather is nice in Lisbon"]
    )
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.02


def test_the_two_portuguese_sentences(plan):
    rows = enriched(plan, ["Quero cancelar meu plano", "Preciso de ajuda com minha conta"])
    assert [row["intent"] for row in rows] == ["cancel", "account_help"]
    assert [row["language"] for row in rows] == ["pt", "pt"]
    assert all(row["intent_confidence"] > 0.9 for row in rows)
    assert [row["intent_id"] for row in rows] == [0, 1]


#: What a person would say of each line of examples/messages.csv.
EXPECTED = """
greeting account_help account_help praise cancel complaint account_help account_help praise
order_status order_status refund greeting technical_problem technical_problem greeting cancel
billing billing refund complaint order_status technical_problem billing refund complaint cancel
account_help praise order_status cancel account_help praise billing refund order_status
technical_problem praise greeting order_status technical_problem cancel
"""


def test_the_example_messages_are_understood(plan):
    with (ROOT / "examples/messages.csv").open(newline="") as file:
        messages = [row["message"] for row in csv.DictReader(file)]
    rows = enriched(plan, messages)
    right = sum(row["intent"] == label for row, label in zip(rows, EXPECTED.split(), strict=True))
    unknown = sum(row["intent"] == "unknown" for row in rows)
    assert right >= 0.85 * len(rows)
    assert len(rows) - right - unknown <= 2  # doubt is fine, error is not
    assert {row["language"] for row in rows} == {"en", "pt", "es", "de", "fr"}


def test_provenance_names_the_model_in_full(plan, registry):
    ref = registry.embedder().ref
    assert f'"{ref.task}/{ref.name}@{ref.version}+{ref.sha256} {ref.runtime}"' in plan.provenance()
    assert ref.runtime == "onnxruntime"
    assert len(ref.sha256) == 64


def test_a_damaged_weight_file_is_refused(registry, tmp_path):
    folder = registry.folder()
    copy = tmp_path / "models" / folder.relative_to(CACHE / "models")
    copy.mkdir(parents=True)
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    with (copy / "weights.bin").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\xff\x00\xff")
    with pytest.raises(Refuse, match=r"weights\.bin: sha256 is [0-9a-f]{64}, expected"):
        Registry(ROOT / "models", tmp_path).embedder()
