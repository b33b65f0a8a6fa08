"""A token for which a graph has no row: refused by the pull, before it becomes a vector."""

import json

import numpy as np
import pytest
from onnx import TensorProto, helper
from tiny_models import save_graph
from tokenizers import Tokenizer, models

from streamapp.core.errors import Refuse
from streamapp.models.tokenizer import open_tokenizer
from streamapp.models.vocabulary import rows_of

IDS = {"input_ids": (TensorProto.INT64, ["n", "t"])}
FLOATS = {"y": (TensorProto.FLOAT, None)}
TABLE = np.zeros((7, 4), np.float32)
node = helper.make_node


def widen(shelf, words):
    """More words than the tiny encoder's table has rows."""
    path = shelf.origin / "tokenizer.json"
    said = json.loads(path.read_text())
    for number in range(words):
        said["model"]["vocab"][f"word{number}"] = len(said["model"]["vocab"])
    path.write_text(json.dumps(said))
    shelf.write()


def test_a_tokenizer_of_another_model_is_refused(stocked):
    rows = rows_of(stocked.origin / "model.onnx")
    widen(stocked, 1)
    with pytest.raises(Refuse, match=f"ids up to {rows}, model.onnx has {rows} rows") as caught:
        stocked.registry().pull()
    assert caught.value.code == "models.vocabulary"
    assert not stocked.registry().status().pulled


def test_one_with_fewer_words_is_taken(stocked):
    path = stocked.origin / "tokenizer.json"
    said = json.loads(path.read_text())
    del said["model"]["vocab"]["z"]
    path.write_text(json.dumps(said))
    stocked.write()
    assert stocked.registry().pull().pulled


@pytest.mark.parametrize(
    ("nodes", "rows"),
    [
        ([node("Gather", ["w", "input_ids"], ["y"])], 7),
        ([node("Gather", ["w", "input_ids"], ["y"], axis=1)], None),
        ([node("Gather", ["w", "zero"], ["y"])], None),
        (
            [
                node("Cast", ["input_ids"], ["i"], to=TensorProto.INT32),
                node("Identity", ["w"], ["v"]),
                node("Gather", ["v", "i"], ["y"]),
            ],
            7,
        ),
        (
            [
                node("Gather", ["w", "input_ids"], ["a"]),
                node("Gather", ["less", "input_ids"], ["b"]),
                node("Add", ["a", "b"], ["y"]),
            ],
            3,
        ),
        (
            [
                node("DequantizeLinear", ["q", "scale"], ["v"]),
                node("Gather", ["v", "input_ids"], ["y"]),
            ],
            5,
        ),
    ],
)
def test_the_table_is_found(tmp_path, nodes, rows):
    constants = {
        "w": TABLE, "less": TABLE[:3], "zero": np.array([0]), "scale": np.float32(1),
        "q": np.zeros((5, 4), np.uint8),
    }  # fmt: skip
    path = save_graph(tmp_path / "m.onnx", nodes, IDS, FLOATS, constants)
    assert rows_of(path) == rows


def test_ids_of_a_tokenizer_with_added_tokens(tmp_path):
    library = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    library.add_special_tokens(["<<ENT>>"])
    library.save(str(tmp_path / "t.json"))
    assert open_tokenizer(tmp_path / "t.json", 8).ids == 3
