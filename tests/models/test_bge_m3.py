"""BGE-M3: vectors and weights of tokens from both exports, equal to NumPy's."""

import collections
import io
import json
import pickle
import re
import sys
import types
import zipfile

import msgspec
import numpy as np
import onnx
import pytest
from shelves import Shelf
from tiny_bge_m3 import DIM, PIECES, reference, weights, write_graph, write_tokenizer

from streamapp.core.errors import Halt, Refuse
from streamapp.core.model import ModelRef
from streamapp.models.adding import Offer, add
from streamapp.models.formats.onnx import OnnxSession
from streamapp.models.hybrid import HybridEmbedder
from streamapp.models.linear import read_linear
from streamapp.models.manifest import EmbedManifest, SparseSpec
from streamapp.models.sample import TEXTS

EXPORTS = {"vecs": SparseSpec(), "states": SparseSpec(head="sparse_linear.npz")}
REF = ModelRef("embed", "bge-m3", 1, "0" * 64)
SENT = ["where is my parcel", "it was sent on monday", "refund", "now now refund now", "", "a b"]


@pytest.fixture(scope="module")
def w():
    return weights()


@pytest.fixture(scope="module", params=EXPORTS)
def export(request):
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory, export, w):
    folder = tmp_path_factory.mktemp(export)
    write_graph(folder / "model.onnx", w, export)
    write_tokenizer(folder / "tokenizer.json")
    np.savez(folder / "sparse_linear.npz", weight=w["sparse"].T, bias=w["sparse_bias"])
    return folder


def opened(folder, export, **changes):
    manifest = EmbedManifest(
        name="bge-m3", version=1, about="", licence="MIT", model="model.onnx",
        tokenizer="tokenizer.json", pooling="cls", dim=DIM, batch_invariant=True, tokens_max=64,
        sparse=EXPORTS[export],
    )  # fmt: skip
    manifest = msgspec.structs.replace(manifest, **changes)
    return HybridEmbedder(OnnxSession(REF, folder / "model.onnx", threads=1), manifest, folder)


@pytest.fixture(scope="module")
def embedder(folder, export):
    return opened(folder, export)


def tokens_of(text):
    ids = [PIECES.index(f"▁{word}") for word in text.split()]
    return [0, *ids, 2]


def test_vectors_are_numpy_s(embedder, w):
    vectors, truncated = embedder.embed(SENT[:4])
    assert vectors.dtype == np.float32
    assert not truncated.any()
    for text, vector in zip(SENT, vectors, strict=False):
        expected = reference(w, tokens_of(text))[0]
        assert expected @ vector / np.linalg.norm(expected) > 0.999999
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_weights_are_numpy_s(embedder, w):
    _, _, found = embedder.embed_sparse(SENT[:4])
    assert any(found)
    for text, said in zip(SENT, found, strict=False):
        ids = tokens_of(text)
        scores = np.maximum(reference(w, ids) @ w["sparse"][:, 0] + w["sparse_bias"][0], 0)
        expected = collections.defaultdict(float)
        for token, score in zip(ids[1:-1], scores[1:-1], strict=True):
            expected[PIECES[token]] = max(expected[PIECES[token]], score)
        assert said == pytest.approx({name: v for name, v in expected.items() if v > 0}, abs=1e-5)


def test_special_tokens_and_unknown_ones_weigh_nothing(embedder):
    _, _, [empty, unknown] = embedder.embed_sparse(["", "🙂 ☃"])
    assert empty == {}
    assert set(unknown) <= set("▁")


def test_neighbours_do_not_matter(embedder):
    assert embedder.measure_invariance(TEXTS[:12]) > 0.999999
    together = embedder.embed_sparse(TEXTS[:12])
    for row, text in enumerate(TEXTS[:12]):
        vectors, _, [said] = embedder.embed_sparse([text])
        np.testing.assert_allclose(vectors[0], together[0][row], atol=1e-6)
        assert said == pytest.approx(together[2][row], abs=1e-5)


def test_rows_without_text_and_memory_that_is_given(embedder):
    out = np.zeros((3, DIM), np.float32)
    vectors, truncated, found = embedder.embed_sparse(["refund", None, "now " * 90], out=out)
    assert vectors is out
    assert np.isnan(out[1]).all()
    assert not np.isnan(out[[0, 2]]).any()
    assert truncated.tolist() == [False, False, True]
    assert found[1] is None
    with pytest.raises(Halt, match="cannot go into"):
        embedder.embed(["now"], out=np.zeros((2, DIM), np.float32))


def test_one_by_one_gives_the_same(folder, export, embedder):
    alone = opened(folder, export)
    alone.embed_alone()
    np.testing.assert_allclose(alone.embed(SENT)[0], embedder.embed(SENT)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"dim": 512}, "models.(shape|linear)"),
        ({"sparse": SparseSpec(output="colbert_vecs")}, "models.(shape|signature)"),
        ({"sparse": SparseSpec(output="weights")}, "models.signature"),
        ({"output": "vectors"}, "models.signature"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_opens(folder, export, changes, code):
    with pytest.raises(Refuse) as refused:
        opened(folder, export, **changes)
    assert re.fullmatch(code, refused.value.code)


# By the registry


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


@pytest.mark.parametrize("beside", [False, True])
def test_it_is_added_with_what_its_graph_says(shelf, folder, export, tmp_path, beside):
    """Also with weights in a file beside the graph, as exports of more than 2 GB have them."""
    model = tmp_path / "model.onnx"
    location = {"save_as_external_data": True, "location": "model.onnx_data"} if beside else {}
    onnx.save(onnx.load(folder / "model.onnx"), model, **location)
    files = [tmp_path / "model.onnx_data"] if beside else []
    files += [folder / "sparse_linear.npz"] if export == "states" else []
    offer = Offer(
        "embed", "bge-m3", model, folder / "tokenizer.json", files, values={"tokens_max": 64}
    )
    added = add(shelf.registry(), shelf.models_dir, offer)
    assert (added.dim, added.batch_invariant) == (DIM, True)
    assert added.sparse == {"vecs": SparseSpec(output="sparse_vecs")}.get(export, EXPORTS[export])
    found = shelf.registry().embedder("embed/bge-m3")
    assert isinstance(found, HybridEmbedder)
    expected = opened(folder, export).embed(SENT)[0]
    np.testing.assert_allclose(found.embed(SENT)[0], expected, atol=1e-6)


def test_vectors_alone_need_no_weights_of_tokens(shelf, folder, export):
    """As any encoder: the pooled output, or the first hidden state."""
    pooling = {"vecs": "graph", "states": "cls"}[export]
    manifest = EmbedManifest(
        name="dense", version=1, about="", licence="MIT", model="model.onnx", tokens_max=64,
        tokenizer="tokenizer.json", pooling=pooling, dim=DIM, batch_invariant=True,
    )  # fmt: skip
    name = shelf.put(manifest, folder, "model.onnx", "tokenizer.json")
    found = shelf.registry(name).embedder(name)
    assert not isinstance(found, HybridEmbedder)
    expected = opened(folder, export).embed(SENT)[0]
    np.testing.assert_allclose(found.embed(SENT)[0], expected, atol=1e-6)
    other = msgspec.structs.replace(manifest, name="other", output="nothing")
    with pytest.raises(Refuse, match="outputs are") as refused:
        shelf.registry(shelf.put(other, folder, "model.onnx", "tokenizer.json"))
    assert refused.value.code == "models.signature"


# The linear layer's file


def torch_file(path, tensors, *, evil=None):
    """What torch.save makes of a state_dict, written without torch."""

    class Storage:
        def __init__(self, key, array):
            self.key, self.array = key, array

    class Tensor:
        def __init__(self, storage, shape, strides):
            self.args = (storage, 0, shape, strides, False, collections.OrderedDict())

        def __reduce__(self):
            return sys.modules["torch._utils"]._rebuild_tensor_v2, self.args

    class Pickler(pickle.Pickler):
        def persistent_id(self, one):
            if isinstance(one, Storage):
                kind = sys.modules["torch"].FloatStorage
                return "storage", kind, one.key, "cpu", one.array.size
            return None

    storages, state = [], collections.OrderedDict()
    for name, array in tensors.items():
        storages.append(Storage(str(len(storages)), array))
        strides = tuple(stride // 4 for stride in array.strides)
        state[name] = Tensor(storages[-1], array.shape, strides)
    if evil is not None:
        state["evil"] = evil
    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(state)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sparse_linear/data.pkl", stream.getvalue())
        for storage in storages:
            archive.writestr(f"sparse_linear/data/{storage.key}", storage.array.tobytes())


@pytest.fixture
def torch(monkeypatch):
    """The two names of torch that its files have, so that a pickler finds them."""
    package, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    package.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})

    def _rebuild_tensor_v2(*args):
        raise AssertionError

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = (
        "torch._utils",
        "_rebuild_tensor_v2",
    )
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", package)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


WEIGHT, BIAS = np.arange(6, dtype=np.float32).reshape(1, 6), np.array([0.5], np.float32)


def safetensors(path, **tensors):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in tensors.items():
        place = [len(data), len(data) + array.nbytes]
        kind = {"float32": "F32", "float16": "F16"}[str(array.dtype)]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": place}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pt"])
def test_a_layer_from_a_file(tmp_path, torch, suffix):
    path = tmp_path / f"layer.{suffix}"
    if suffix == "npz":
        np.savez(path, weight=WEIGHT, bias=BIAS)
    elif suffix == "pt":
        torch_file(path, {"weight": WEIGHT, "bias": BIAS})
    else:
        safetensors(path, **{"sparse.weight": WEIGHT.astype(np.float16), "sparse.bias": BIAS})
    weight, bias = read_linear(path)
    assert weight.tolist() == WEIGHT.tolist()
    assert bias.tolist() == BIAS.tolist()


def test_a_layer_without_a_bias(tmp_path):
    np.savez(tmp_path / "layer.npz", weight=WEIGHT)
    assert read_linear(tmp_path / "layer.npz")[1].tolist() == [0]


class Evil:
    def __reduce__(self):
        return exec, ("import test_evil_ran",)


def test_a_pickle_that_is_a_program_does_not_run(tmp_path, torch):
    torch_file(tmp_path / "layer.pt", {"weight": WEIGHT}, evil=Evil())
    with pytest.raises(Refuse, match=r"it names \w+.exec"):
        read_linear(tmp_path / "layer.pt")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"no file of ours"),
        lambda path: torch_file(path, {"weight": np.asfortranarray(np.ones((2, 3), np.float32))}),
        lambda path: torch_file(path, {"other": WEIGHT, "bias": BIAS}),
        lambda path: torch_file(path, {"weight": WEIGHT, "bias": WEIGHT}),
        lambda path: path.with_suffix(".pt").unlink(missing_ok=True),
    ],
    ids=["noise", "transposed", "another name", "another shape", "no file"],
)
def test_a_file_that_is_no_layer_is_refused(tmp_path, torch, spoil):
    spoil(tmp_path / "layer.pt")
    with pytest.raises(Refuse, match="no linear layer") as refused:
        read_linear(tmp_path / "layer.pt")
    assert refused.value.code == "models.linear"


def test_a_cut_safetensors_file_is_refused(tmp_path):
    safetensors(tmp_path / "layer.safetensors", weight=WEIGHT, bias=BIAS)
    content = (tmp_path / "layer.safetensors").read_bytes()
    (tmp_path / "layer.safetensors").write_bytes(content[:-5])
    with pytest.raises(Refuse, match="no linear layer"):
        read_linear(tmp_path / "layer.safetensors")
