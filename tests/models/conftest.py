"""Tiny models that are built in a moment: a table of vectors, with and without a flaw."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ["<s>", "<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]
DIM = 8


def tiny_tokenizer(path):
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(path))
    return path


def tiny_encoder(path, *, leaky=False, output="last_hidden_state", extra_input=None):
    """Each token's row of a table; a leaky one adds what the batch's other texts say."""
    table = np.random.default_rng(1).standard_normal((len(WORDS), DIM)).astype(np.float32)
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows"])]
    if leaky:
        nodes.append(helper.make_node("ReduceMean", ["rows"], ["mean"], keepdims=1))
        nodes.append(helper.make_node("Add", ["rows", "mean"], [output]))
    else:
        nodes.append(helper.make_node("Identity", ["rows"], [output]))
    names = ["input_ids", "attention_mask", *([extra_input] if extra_input else [])]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["n", "t"]) for n in names]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", "t", DIM])]
    graph = helper.make_graph(
        nodes, "tiny", inputs, outputs, [numpy_helper.from_array(table, "table")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, str(path))
    return path


class Shelf:
    """A models folder with one model whose files lie on this disk, and a cache."""

    def __init__(self, folder: Path) -> None:
        self.models_dir = folder / "models"
        self.cache = folder / "cache"
        self.origin = folder / "origin"
        self.origin.mkdir()
        self.manifest_path = self.models_dir / "embed/tiny/1/manifest.toml"
        self.manifest_path.parent.mkdir(parents=True)
        (self.models_dir / "routes.toml").write_text(
            '[defaults]\nembed = "embed/tiny@1"\n[aliases]\nt = "embed/tiny"\n'
        )

    def stock(self, *, leaky=False, invariant=True, dim=DIM):
        """Write the files and their manifest."""
        tiny_encoder(self.origin / "model.onnx", leaky=leaky)
        tiny_tokenizer(self.origin / "tokenizer.json")
        self.write(invariant=invariant, dim=dim)

    def write(self, *, invariant=True, dim=DIM, source="file:{path}", sha256=None):
        files = ""
        for name in ("model.onnx", "tokenizer.json"):
            path = self.origin / name
            content = path.read_bytes()
            digest = sha256 or hashlib.sha256(content).hexdigest()
            files += (
                f'[[files]]\nname = "{name}"\nsha256 = "{digest}"\nbytes = {len(content)}\n'
                f'sources = ["{source.format(path=path, name=name)}"]\n'
            )
        self.manifest_path.write_text(
            'task = "embed"\nname = "tiny"\nversion = 1\nabout = "a table"\nlicence = "MIT"\n'
            'upstream = "https://example.org"\nmodel = "model.onnx"\n'
            'tokenizer = "tokenizer.json"\npooling = "mean"\ntokens_max = 16\n'
            f"dim = {dim}\nbatch_invariant = {str(invariant).lower()}\n"
            '[inputs]\ninput_ids = "int64[n,t]"\nattention_mask = "int64[n,t]"\n[outputs]\nlast_hidden_state = "f32[n,t,8]"\n'
            '[prefixes]\nquery = "q "\npassage = "p "\n' + files
        )

    def registry(self, **options):
        from streamapp.models import Registry

        return Registry(self.models_dir, self.cache, threads=1, **options)

    @property
    def folder(self):
        return self.cache / "models/embed/tiny/1"


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


@pytest.fixture
def stocked(shelf):
    shelf.stock()
    return shelf


@pytest.fixture
def own_files(tmp_path):
    """Write a model of the user's own, flaws as asked for, and its tokenizer."""

    def write(**flaws):
        folder = tmp_path / "own"
        folder.mkdir()
        tokenizer = tiny_tokenizer(folder / "tokenizer.json")
        return tiny_encoder(folder / "own.onnx", **flaws), tokenizer

    return write
