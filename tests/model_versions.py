"""Versions of a tiny embedder on this disk: each has vectors of its own, and an alias points to one."""

import hashlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ["<pad>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]
NAME = "embed/tiny"
MANIFEST = """
task = "embed"
name = "tiny"
version = {version}
about = "a table"
licence = "MIT"
upstream = "https://example.org"
model = "model.onnx"
tokenizer = "tokenizer.json"
pooling = "graph"
tokens_max = 16
dim = {dim}
batch_invariant = true
[inputs]
input_ids = "int64[n,t]"
attention_mask = "int64[n,t]"
[outputs]
sentence_embedding = "float32[n,{dim}]"
"""
FILE = """
[[files]]
name = "{name}"
sha256 = "{sha256}"
bytes = {bytes}
sources = ["file:{path}"]
"""


def table(version, dim=8):
    """What version ``version`` gives for each word, (words, dim)."""
    return np.random.default_rng(version).standard_normal((len(WORDS), dim)).astype(np.float32)


class Versions:
    """A models folder, a cache, and what changes them."""

    def __init__(self, folder):
        self.models_dir, self.cache, self.origin = folder / "models", folder / "cache", folder / "o"
        self.models_dir.mkdir(parents=True)
        (self.models_dir / "routes.toml").write_text(f'[defaults]\nembed = "{NAME}@champion"\n')

    def add(self, version, dim=8, pull=True):
        """Declare and pull one more version."""
        origin = self.origin / str(version)
        origin.mkdir(parents=True)
        _encoder(origin / "model.onnx", table(version, dim))
        _tokenizer(origin / "tokenizer.json")
        text = MANIFEST.format(version=version, dim=dim)
        for path in sorted(origin.iterdir()):
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            text += FILE.format(name=path.name, path=path, bytes=len(content), sha256=digest)
        manifest = self.models_dir / NAME / str(version) / "manifest.toml"
        manifest.parent.mkdir(parents=True)
        manifest.write_text(text)
        if pull:
            self.registry().pull(f"{NAME}@{version}")
        return self

    def promote(self, version, alias="champion"):
        from streamapp.models.aliases import promote

        promote(self.models_dir / NAME, alias, version)
        return self

    def registry(self):
        from streamapp.models import Registry

        return Registry(self.models_dir, self.cache, threads=1)


def vector(version, letter, dim=8):
    """The unit vector of a text of one letter."""
    row = table(version, dim)[WORDS.index(letter)]
    return row / np.linalg.norm(row)


def _encoder(path, rows):
    dim = rows.shape[1]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "two"], ["weights"]),
        helper.make_node("Mul", ["words", "weights"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["sentence_embedding"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["n", dim])]
    constants = [
        numpy_helper.from_array(rows, "table"),
        numpy_helper.from_array(np.array([1]), "one"),
        numpy_helper.from_array(np.array([2]), "two"),
    ]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, str(path))


def _tokenizer(path):
    words = {word: place for place, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
