import numpy as np
import pyarrow as pa
import pytest

from streamapp.plugin import Refuse, VectorStage, float32_vector
from streamapp.plugin.testing import HashModels, batch_of
from streamapp.stages.embed import Embed


def embedded(texts, dim=16):
    stage = Embed({})
    stage.declare(HashModels(dim))
    assert stage.writes == {"embedding": float32_vector(dim), "truncated": pa.bool_()}
    stage.open(HashModels(dim))
    assert [ref.name for ref in stage.models] == ["hashed-words"]
    columns = stage.enrich(batch_of(text=texts))
    assert {name: array.type for name, array in columns.items()} == stage.writes
    return columns


def test_a_vector_for_each_text_and_null_without():
    columns = embedded(["one two", None, "", "  ", "one two"])
    vectors = columns["embedding"].to_pylist()
    assert vectors[1:4] == [None] * 3
    assert vectors[0] == vectors[4]
    assert np.linalg.norm(vectors[0]) == pytest.approx(1)
    assert columns["truncated"].to_pylist() == [False, None, None, None, False]


def test_a_batch_without_any_text():
    assert embedded([None, None])["embedding"].null_count == 2


def test_unknown_options_suggest_the_nearest():
    with pytest.raises(Refuse, match="modle") as caught:
        Embed({"modle": "x"})
    assert caught.value.fix == "did you mean model?"


def test_vectors_go_into_the_memory_that_the_stage_is_given():
    stage = Embed({})
    stage.declare(HashModels(8))
    stage.open(HashModels(8))
    given = []

    def allocate(rows, dim):
        given.append(np.zeros((rows, dim), np.float32))
        return given[-1]

    assert isinstance(stage, VectorStage)
    stage.allocate = allocate
    column = stage.enrich(batch_of(text=["one", None, "two"]))["embedding"]
    [memory] = given
    assert column.values.buffers()[1].address == memory.ctypes.data
    assert column.is_valid().to_pylist() == [True, False, True]
    np.testing.assert_array_equal(memory[2], column[2].as_py())
