"""Tiny text classifiers on this disk: each version says ``good`` or ``bad`` as it was told to."""

import hashlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

LABELS = ["good", "bad"]
WORDS = ["<pad>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]
MANIFEST = """task = "classify"
name = "{name}"
version = {version}
about = "says {says}"
licence = "MIT"
model = "model.onnx"
tokenizer = "tokenizer.json"
labels = {labels}
languages = {languages}
tokens_max = 16
[inputs]
input_ids = "int64[n,t]"
attention_mask = "int64[n,t]"
[outputs]
logits = "float32[n,2]"
[measured]
accuracy = {accuracy}
"""
FILE = """[[files]]
name = "{name}"
sha256 = "{sha256}"
bytes = {bytes}
sources = ["file:{path}"]
"""


class Classifiers:
    """A models folder and a cache; ``add`` declares and pulls, ``route`` writes routes.toml."""

    def __init__(self, folder):
        self.models_dir, self.cache, self.origin = folder / "models", folder / "cache", folder / "o"
        self.models_dir.mkdir(parents=True)

    def add(self, name, version=1, says="good", *, accuracy=0.5, languages=("*",), pull=True):
        origin = self.origin / name / str(version)
        origin.mkdir(parents=True)
        _model(origin / "model.onnx", says)
        _tokenizer(origin / "tokenizer.json")
        text = MANIFEST.format(
            name=name, version=version, says=says, labels=LABELS, languages=list(languages),
            accuracy=accuracy,
        )  # fmt: skip
        for path in sorted(origin.iterdir()):
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            text += FILE.format(name=path.name, path=path, bytes=len(content), sha256=digest)
        manifest = self.models_dir / "classify" / name / str(version) / "manifest.toml"
        manifest.parent.mkdir(parents=True)
        manifest.write_text(text)
        if pull:
            self.registry().pull(f"classify/{name}@{version}")
        return self

    def route(self, text):
        (self.models_dir / "routes.toml").write_text(text)
        return self

    def registry(self):
        from streamapp.models import Registry

        return Registry(self.models_dir, self.cache, threads=1)


def _model(path, says):
    """Every token's row of a table is the same, for the one label; then the mean."""
    table = np.zeros((len(WORDS), 2), np.float32)
    table[:, LABELS.index(says)] = 2
    constants = [numpy_helper.from_array(table, "table")]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "axis"], ["logits"], keepdims=0),
    ]
    constants.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    names = ["input_ids", "attention_mask"]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["n", "t"]) for n in names]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])]
    graph = helper.make_graph(nodes, says, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, str(path))


def _tokenizer(path):
    words = {word: place for place, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
