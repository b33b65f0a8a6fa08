"""A BGE-M3 of one layer with random weights, made in a moment: both exports, and NumPy's answer.

XLM-R as in BAAI/bge-m3 (1024 numbers, positions counted from the padding's id, post-norm), the
vector is the first hidden state, a linear layer weighs tokens, another makes ColBERT's vectors.
"""

import json
import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DIM, HEADS, INNER, POSITIONS = 1024, 4, 64, 66
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
WORDS = ["where", "is", "my", "parcel", "it", "was", "sent", "on", "monday", "refund", "now"]
PIECES = [*SPECIAL, *(f"▁{word}" for word in WORDS), *"▁abcdefghijklmnopqrstuvwxyz"]


def weights(seed=0):
    rng = np.random.default_rng(seed)

    def some(*shape):
        return (rng.standard_normal(shape) * 0.05).astype(np.float32)

    square = {name: some(DIM, DIM) for name in ("query", "key", "value", "attended", "colbert")}
    return square | {
        "words": some(len(PIECES), DIM),
        "positions": some(POSITIONS, DIM),
        "types": some(DIM),
        "up": some(DIM, INNER),
        "down": some(INNER, DIM),
        "sparse": some(DIM, 1),
        "sparse_bias": some(1),
        "scale": np.ones(DIM, np.float32),
        "shift": np.zeros(DIM, np.float32),
    }


def reference(w, ids):
    """Hidden states (tokens, dim) of one text by NumPy in float64, nothing padded."""

    def norm(x):
        apart = x - x.mean(-1, keepdims=True)
        return apart / np.sqrt((apart**2).mean(-1, keepdims=True) + 1e-5)

    def heads(name):
        return (x @ w[name]).reshape(len(ids), HEADS, -1).transpose(1, 0, 2)

    w = {name: value.astype(np.float64) for name, value in w.items()}
    x = norm(w["words"][ids] + w["positions"][np.arange(len(ids)) + 2] + w["types"])
    scores = heads("query") @ heads("key").transpose(0, 2, 1) / math.sqrt(DIM // HEADS)
    share = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (share / share.sum(-1, keepdims=True)) @ heads("value")
    x = norm(x + mixed.transpose(1, 0, 2).reshape(len(ids), DIM) @ w["attended"])
    up = x @ w["up"]
    gelu = up * 0.5 * (1 + np.vectorize(math.erf)(up / math.sqrt(2)))
    return norm(x + gelu @ w["down"])


class _Graph:
    def __init__(self, w):
        self.nodes, self.made = [], 0
        self.constants = [numpy_helper.from_array(value, name) for name, value in w.items()]

    def __call__(self, kind, *inputs, **how):
        self.made += 1
        inputs = [self._constant(one) if isinstance(one, np.ndarray) else one for one in inputs]
        self.nodes.append(helper.make_node(kind, inputs, [f"n{self.made}"], **how))
        return f"n{self.made}"

    def _constant(self, value):
        self.constants.append(numpy_helper.from_array(value, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def output(self, made, name, shape):
        self.nodes.append(helper.make_node("Identity", [made], [name]))
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _states(g):
    """The nodes of the encoder; (n, t, dim)."""
    sizes = np.array([0, 0, HEADS, DIM // HEADS])

    def norm(x):
        return g("LayerNormalization", x, "scale", "shift", axis=-1, epsilon=1e-5)

    def heads(x, name, perm):
        return g("Transpose", g("Reshape", g("MatMul", x, name), sizes), perm=perm)

    counted = g("Mul", g("CumSum", "attention_mask", np.array(1)), "attention_mask")
    places = g("Gather", "positions", g("Add", counted, np.array(1)))
    x = norm(g("Add", g("Add", g("Gather", "words", "input_ids"), places), "types"))
    hidden = g("Sub", np.array(1, np.float32), g("Cast", "attention_mask", to=TensorProto.FLOAT))
    bias = g("Mul", g("Unsqueeze", hidden, np.array([1, 2])), np.array(-1e9, np.float32))
    scores = g("MatMul", heads(x, "query", [0, 2, 1, 3]), heads(x, "key", [0, 2, 3, 1]))
    scores = g("Mul", scores, np.array((DIM // HEADS) ** -0.5, np.float32))
    share = g("Softmax", g("Add", scores, bias), axis=-1)
    mixed = g("Transpose", g("MatMul", share, heads(x, "value", [0, 2, 1, 3])), perm=[0, 2, 1, 3])
    mixed = g("Reshape", mixed, np.array([0, 0, DIM]))
    x = norm(g("Add", x, g("MatMul", mixed, "attended")))
    inner = g("MatMul", g("Gelu", g("MatMul", x, "up")), "down")
    return norm(g("Add", x, inner))


def write_graph(path, w, export):
    """``export``: ``vecs`` (dense, sparse and ColBERT vectors) or ``states`` (hidden states)."""
    g = _Graph(w)
    x = _states(g)
    if export == "states":
        outputs = [g.output(x, "last_hidden_state", ["n", "t", DIM])]
    else:
        first = g("Gather", x, np.array(0), axis=1)
        dense = g("LpNormalization", first, axis=-1, p=2)
        sparse = g("Relu", g("Add", g("MatMul", x, "sparse"), "sparse_bias"))
        rest = g("Slice", x, np.array([1]), np.array([2**31]), np.array([1]))
        colbert = g("LpNormalization", g("MatMul", rest, "colbert"), axis=-1, p=2)
        outputs = [
            g.output(dense, "dense_vecs", ["n", DIM]),
            g.output(sparse, "sparse_vecs", ["n", "t", 1]),
            g.output(colbert, "colbert_vecs", ["n", "t1", DIM]),
        ]
    names = ("input_ids", "attention_mask")
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["n", "t"]) for n in names]
    graph = helper.make_graph(g.nodes, "tiny-bge-m3", inputs, outputs, g.constants)
    opset = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), str(path))


def write_tokenizer(path):
    """An XLM-R tokenizer: Unigram pieces, a space before every word."""
    added = [
        {"id": place, "content": name, "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False, "special": True}
        for place, name in enumerate(SPECIAL)
    ]
    scores = [0.0] * len(SPECIAL) + [-2.0 if len(piece) > 1 else -9.0 for piece in PIECES[4:]]
    ends = {name: {"id": name, "ids": [PIECES.index(name)], "tokens": [name]} for name in SPECIAL}
    content = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "NFKC"},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "</s>", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": ends,
        },
        "decoder": None,
        "model": {
            "type": "Unigram", "unk_id": 3, "byte_fallback": False,
            "vocab": list(map(list, zip(PIECES, scores, strict=True))),
        },
    }  # fmt: skip
    path.write_text(json.dumps(content))
