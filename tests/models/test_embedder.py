"""Embedders: unit vectors that depend on their text alone."""

import functools
import string

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.core.errors import Refuse
from streamapp.core.model import ModelRef
from streamapp.models.embedder import Call, OnnxEmbedder
from streamapp.models.formats.onnx import OnnxSession

texts_of_letters = st.lists(st.text(string.ascii_lowercase + " ", max_size=60), max_size=40)
one_registry = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40
)


@pytest.fixture
def embedder(stocked):
    stocked.registry().pull()
    return stocked.registry().embedder()


@one_registry
@given(texts=texts_of_letters)
def test_vectors_are_unit_long_in_order_and_of_their_text_alone(embedder, texts):
    vectors, truncated = embedder.embed(texts)
    assert vectors.shape == (len(texts), 8)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text, vector, cut in zip(texts, vectors, truncated, strict=True):
        alone, alone_cut = embedder.embed([text])
        np.testing.assert_allclose(alone[0], vector, atol=1e-5)
        assert alone_cut[0] == cut


def test_prefixes_make_kinds_differ(embedder):
    query, passage, other = (embedder.embed(["a b"], kind)[0] for kind in ("query", "passage", "x"))
    assert not np.allclose(query, passage)
    assert not np.allclose(query, other)


@pytest.mark.parametrize(
    ("text", "cut"),
    [("", False), (" ", False), ("a " * 13, False), ("a " * 14, True), ("a" * 2000, True)],
)
def test_what_does_not_fit_is_flagged(embedder, text, cut):
    # 16 tokens: <s>, the prefix, thirteen words, </s>
    assert embedder.embed([text])[1].tolist() == [cut]


@one_registry
@given(texts=st.lists(st.none() | st.text("abc ", max_size=40), max_size=50))
def test_batches_that_run_at_once_give_the_same_vectors(stocked, embedder, texts):
    several = several_callers(stocked)
    vectors, truncated = several.embed(texts)
    expected, cut = embedder.embed(texts)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)  # other batches
    np.testing.assert_array_equal(truncated, cut)
    assert several.call.callers == 3


def test_an_error_of_one_batch_is_the_caller_s(stocked, embedder, monkeypatch):
    several = several_callers(stocked)
    calls = []

    def fails(tokens, vectors, rows):
        calls.append(rows)
        if 0 in rows:
            raise Refuse("x", "cannot", "")

    monkeypatch.setattr(several, "_write", fails)
    with pytest.raises(Refuse, match="cannot"):
        several.embed(["a b c"] * 40)
    assert len(calls) > 1


@functools.cache
def several_callers(shelf):
    """The embedder of a registry that may use three threads."""
    from streamapp.models import Registry

    return Registry(shelf.models_dir, shelf.cache, threads=3).embedder()


def test_no_texts_no_vectors(embedder):
    vectors, truncated = embedder.embed([])
    assert vectors.shape == (0, 8)
    assert truncated.shape == (0,)


def test_batches_keep_both_limits(embedder):
    lengths = [3] * 40 + [700] * 9
    tokens = [[0] * length for length in lengths]
    batches = list(embedder._batches(tokens))
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) <= 16
        assert len(rows) * max(lengths[row] for row in rows) <= 2048


def test_a_model_is_opened_once(stocked):
    stocked.registry().pull()
    registry = stocked.registry()
    assert registry.embedder() is registry.embedder("t")
    assert str(registry.embedder().ref).startswith("embed/tiny@1+")


def test_an_own_model_is_the_default(stocked, own_files):
    model, tokenizer = own_files(extra_input="token_type_ids")
    registry = stocked.registry(embedding_model=model, tokenizer_model=tokenizer)
    assert registry.embedder().ref.name == "own"
    assert registry.embedding_dim() == 8
    assert registry.embedder().embed(["a", "b"])[0].shape == (2, 8)


def test_an_own_model_that_mixes_texts_gets_them_one_by_one(stocked, own_files):
    model, _ = own_files(leaky=True)  # tokenizer.json lies beside it
    embedder = stocked.registry(embedding_model=model).embedder()
    together = embedder.embed(["a", "b c", "d"])[0]
    alone = [embedder.embed([text])[0][0] for text in ("a", "b c", "d")]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize(
    ("flaw", "says"),
    [
        ({"extra_input": "pixels"}, "pixels"),
        ({"broken": True}, "own.onnx"),
        ({"lone": True}, "tokenizer.json"),
    ],
)
def test_an_own_model_that_is_no_encoder_is_refused(stocked, own_files, flaw, says):
    model, tokenizer = own_files(extra_input=flaw.get("extra_input"))
    if "broken" in flaw:
        model.write_bytes(b"not ONNX")
    if "lone" in flaw:
        tokenizer.write_text("{}")
    with pytest.raises(Refuse, match=says) as caught:
        stocked.registry(embedding_model=model).embedder()
    assert caught.value.fix


def test_a_runtime_that_gives_no_vector_for_a_text_is_refused(own_files):
    model, tokenizer = own_files()
    session = OnnxSession(ModelRef("embed", "own", 1, "0" * 64), model)
    session.run = lambda _feeds, names: {name: np.empty((0, 8), np.float32) for name in names}
    with pytest.raises(Refuse, match=r"1 text gave last_hidden_state of shape \(0, 8\)") as caught:
        OnnxEmbedder(session, tokenizer, Call())
    assert "another backend" in caught.value.fix


def test_own_files_must_be_there(stocked, tmp_path):
    with pytest.raises(Refuse, match="no file"):
        stocked.registry(embedding_model=tmp_path / "none.onnx")
    with pytest.raises(Refuse, match="without embedding_model"):
        stocked.registry(tokenizer_model=tmp_path / "tokenizer.json")
