"""Pairs that are alike: exact, by MinHash, by a model's vectors."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_work import TableWork, made, result

from streamapp.plugin import Refuse
from streamapp.services.text import similarity
from streamapp.services.text.minhash import FOUND_LEAST, HASHES, bands, candidates
from streamapp.services.text.sets import exact_pairs, sets_of
from streamapp.services.text.similarity import Similarity

WORDS = [f"w{number}" for number in range(12)]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=10).map(" ".join), max_size=40)


def table(*texts, **columns):
    keys = [f"d{number}" for number in range(len(texts))]
    return pa.table({"document_id": keys, "text": pa.array(texts, pa.string()), **columns})


def pairs(config, *texts, work=None):
    rows = result(Similarity, config, work, documents=table(*texts)).to_pylist()
    return {
        (row["document_id"], row["similar_document_id"]): pytest.approx(row["similarity"], abs=1e-6)
        for row in rows
    }


def by_hand(texts, threshold):
    """Every pair, compared as sets."""
    sets = [set(text.split()) for text in texts]
    return {
        (i, j): len(one & other) / len(one | other)
        for i, one in enumerate(sets)
        for j, other in enumerate(sets[i + 1 :], i + 1)
        if one & other and np.float32(len(one & other) / len(one | other)) >= np.float32(threshold)
    }


@settings(deadline=None, max_examples=50)
@given(TEXTS, st.sampled_from([0.01, 0.3, 0.5, 1.0]))
def test_exact_pairs_are_those_of_sets(texts, threshold):
    found = list(exact_pairs(sets_of(texts, 1), threshold, lambda _: None))
    pairs = {
        (int(i), int(j)): float(alike) for part in found for i, j, alike in zip(*part, strict=True)
    }
    assert pairs == pytest.approx(by_hand(texts, threshold), abs=1e-6)


def test_blocks_and_frequent_words_change_nothing(monkeypatch):
    """Few rows a block, and words on both sides of what is counted by matrices."""
    monkeypatch.setattr("streamapp.services.text.sets._BLOCK", 7)
    random = np.random.default_rng(3)
    texts = [
        " ".join(f"w{n}" for n in random.zipf(1.4, 12) if n < 200) for _ in range(90)
    ]  # fmt: skip
    found = list(exact_pairs(sets_of(texts, 1), 0.4, lambda _: None))
    count = sum(len(part.left) for part in found)
    assert count == len(by_hand(texts, 0.4)) > 50


@settings(deadline=None, max_examples=50)
@given(TEXTS)
def test_what_minhash_finds_is_exact(texts):
    found = pairs({"method": "minhash", "threshold": 0.5}, *texts)
    hand = {(f"d{i}", f"d{j}"): alike for (i, j), alike in by_hand(texts, 0.5).items()}
    assert found == {pair: hand[pair] for pair in found}
    assert {pair for pair, alike in hand.items() if alike == 1} <= set(found)


def test_minhash_finds_nearly_all():
    random = np.random.default_rng(5)
    words = np.array([f"w{n}" for n in range(5000)])
    texts = []
    for _ in range(100):
        text = random.choice(words, 60, replace=False)
        other = text.copy()
        other[:11] = random.choice(words, 11)
        texts += [" ".join(text), " ".join(other)]
    sets = sets_of(texts, 1)
    hand = by_hand(texts, 0.6)
    left, right = candidates(sets, 0.6, 10**6)
    found = set(zip(left.tolist(), right.tolist(), strict=True)) & set(hand)
    assert len(hand) > 80
    assert len(found) / len(hand) >= FOUND_LEAST


@pytest.mark.parametrize("threshold", [0.01, 0.1, 0.5, 0.8, 0.99, 1.0])
def test_bands_find_what_they_are_to(threshold):
    count, rows = bands(threshold)
    assert count * rows <= HASHES
    assert 1 - (1 - threshold**rows) ** count >= FOUND_LEAST or rows == 1


def test_shingles_are_runs_of_words():
    texts = ["a b c d", "d c b a", "a b c x"]
    assert pairs({"threshold": 0.5}, *texts) == {
        ("d0", "d1"): 1.0, ("d0", "d2"): 0.6, ("d1", "d2"): 0.6
    }  # fmt: skip
    assert pairs({"threshold": 0.3, "shingle": 2}, *texts) == {("d0", "d2"): 0.5}


def test_nothing_is_like_nothing():
    for method in ("jaccard", "minhash", "cosine"):
        assert pairs({"method": method}, None, "", "...", None) == {}
    assert pairs({}) == {}


def test_the_nearest_are_given_from_both_sides():
    texts = ["a b c d", "a b c e", "a b c d"]
    found = result(Similarity, {"nearest_max": 1}, documents=table(*texts)).to_pylist()
    assert [(row["document_id"], row["similar_document_id"]) for row in found] == [
        ("d0", "d2"), ("d1", "d0"), ("d2", "d0")
    ]  # fmt: skip


def test_cosine_is_of_the_model_s_vectors():
    work = TableWork()
    texts = ["red apples", None, "blue sky", "apples red"]
    found = pairs({"method": "cosine", "threshold": 0.99}, *texts, work=work)
    assert found == {("d0", "d3"): 1.0}
    assert work.done == 4


def test_many_documents_are_compared_by_minhash(monkeypatch):
    monkeypatch.setattr(similarity, "EXACT_MAX", 2)
    monkeypatch.setattr(similarity, "exact_pairs", None)
    assert pairs({}, "a b", "c d", "a b") == {("d0", "d2"): 1.0}


def test_too_many_pairs_are_refused(monkeypatch):
    monkeypatch.setattr(similarity, "PAIRS_MAX", 5)
    for method in ("jaccard", "minhash"):
        with pytest.raises(Refuse, match=r"more than 5 pairs .*raise config.threshold"):
            pairs({"method": method}, *["same text"] * 5)


def test_a_document_without_its_key_column_is_refused():
    with pytest.raises(Refuse, match=r"config.key: 'documents' has no 'document_id' column"):
        made(Similarity, {}, documents=pa.table({"text": ["a"]}))
