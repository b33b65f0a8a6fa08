"""onnxruntime writes vectors where we say, and they are the same as those of ``run``, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, load, save

from streamapp.core.errors import Halt
from streamapp.models import Registry
from streamapp.models.tokens import token_feeds

ROOT = Path(__file__).parents[2]
CACHE = Path("~/.cache/streamapp").expanduser()
REAL = ["embed/multilingual-e5-small", "embed/all-minilm-l6-v2"]
SENTINEL = np.float32(7.25)

mixed_texts = st.lists(
    st.none() | st.text("abc ", max_size=9) | st.sampled_from(["a b " * 9, "z"]), max_size=40
)


class Watched:
    """A session that notes what is bound where, and may not be run otherwise."""

    def __init__(self, session):
        self._session = session
        self.outputs = []

    def run_into(self, feeds, output, out):
        self.outputs.append((out.shape, out.ctypes.data))
        self._session.run_into(feeds, output, out)


def pooled_encoder(path, source):
    """The tiny encoder, its output one vector per text: that of the first word."""
    model = load(str(source))
    graph = model.graph
    states, dim = graph.output[0].name, graph.output[0].type.tensor_type.shape.dim[2].dim_value
    graph.node.append(
        helper.make_node("Gather", [states, "second"], ["sentence_embedding"], axis=1)
    )
    graph.initializer.append(helper.make_tensor("second", TensorProto.INT64, [], [1]))
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["n", dim])
    )
    save(model, str(path))
    return path


@pytest.fixture
def bound(stocked, own_files, tmp_path):
    """An embedder whose graph gives vectors."""
    model, tokenizer = own_files()
    pooled = pooled_encoder(tmp_path / "pooled.onnx", model)
    return stocked.registry(embedding_model=pooled, tokenizer_model=tokenizer).embedder()


@pytest.fixture(params=["graph", "mean"])
def tiny(request, stocked):
    """That one, and one whose pooling is ours."""
    if request.param == "graph":
        return request.getfixturevalue("bound")
    stocked.registry().pull()
    return stocked.registry().embedder()


def as_run(embedder, texts, kind="query"):
    """The vectors as ``session.run`` gives them, in memory of onnxruntime's and NumPy's own."""
    vectors = np.full((len(texts), embedder.dim), np.nan, np.float32)
    rows = [row for row, text in enumerate(texts) if text is not None]
    tokens, _ = embedder._encode([texts[row] for row in rows], kind)
    for batch in embedder._batches(tokens) if rows else ():
        of_batch = [tokens[one] for one in batch]
        feed, mask = token_feeds(of_batch, embedder._tokenizer.pad, embedder._inputs)
        [out] = embedder._session.run(feed, [embedder._output]).values()
        if out.ndim == 3:
            out = np.matmul(mask[:, None, :].astype(np.float32), out)[:, 0]
        lengths = np.linalg.norm(out, axis=1, keepdims=True)
        vectors[np.array(rows)[batch]] = out / np.maximum(lengths, 1e-12)
    return vectors


def into_the_middle(embedder, texts):
    """The vectors, made between rows that are another's."""
    memory = np.full((len(texts) + 2, embedder.dim), SENTINEL)
    vectors, truncated = embedder.embed(texts, "query", memory[1:-1])
    assert vectors.base is memory
    assert (memory[[0, -1]] == SENTINEL).all()
    return vectors, truncated


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(texts=mixed_texts)
def test_given_memory_holds_what_run_gives(tiny, texts):
    vectors, truncated = into_the_middle(tiny, texts)
    np.testing.assert_array_equal(vectors, as_run(tiny, texts))
    own, own_truncated = tiny.embed(texts)
    np.testing.assert_array_equal(own, vectors)
    assert own_truncated.tolist() == truncated.tolist()
    missing = [text is None for text in texts]
    assert np.isnan(vectors[:, 0]).tolist() == missing
    assert not truncated[missing].any()


def test_a_batch_of_neighbours_is_bound_to_its_rows(bound):
    bound._session = watched = Watched(bound._session)
    out = np.empty((7, bound.dim), np.float32)
    texts = ["a b c", "a", "b c", "a b c d e", "c", "d d", "e"]
    bound.embed(texts, "query", out)
    assert watched.outputs == [((7, bound.dim), out.ctypes.data)]
    bound.embed([*texts[:3], None, *texts[4:]], "query", out)
    shape, address = watched.outputs[1]
    assert shape == (6, bound.dim)
    assert not out.ctypes.data <= address < out.ctypes.data + out.nbytes  # a copy filled the gap


@pytest.mark.parametrize(
    "out",
    [
        np.empty((2, 8), np.float64),
        np.empty((3, 8), np.float32),
        np.empty((2, 16), np.float32)[:, ::2],
        np.empty((8, 2), np.float32).T,
        np.broadcast_to(np.float32(0), (2, 8)),
    ],
    ids=["doubles", "rows", "strided", "columns first", "read-only"],
)
def test_memory_of_another_kind_is_refused_before_anything_is_written(tiny, out):
    with pytest.raises(Halt, match="cannot go into") as caught:
        tiny.embed(["a", "b"], "query", out)
    assert "C-contiguous" in caught.value.fix


@pytest.fixture(scope="module")
def shelf_of_real_models():
    return Registry(ROOT / "models", CACHE, threads=1)


@pytest.mark.models
@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("count", [1, 7, 32, 64])
def test_real_models_give_the_same_bits_bound_and_run(shelf_of_real_models, name, count):
    registry = shelf_of_real_models
    if not registry.status(name).pulled:
        pytest.skip(f"{name} is not pulled: streamapp models pull {name}")
    text = "Quero cancelar meu plano, where is the order that I sent you on Monday?"
    texts = [text[: 1 + 25 * row % len(text)] for row in range(count)]
    texts[3::9] = [None] * len(texts[3::9])
    embedder = registry.embedder(name)
    vectors, _ = into_the_middle(embedder, texts)
    np.testing.assert_array_equal(vectors, as_run(embedder, texts))
    assert np.isnan(vectors[:, 0]).sum() == len(texts[3::9])
