"""Builders for PyTorch and Keras; their packages are large, so they are tried where they are."""

import hashlib

import numpy as np
import pytest

from streamapp.core.errors import Refuse
from streamapp.models import Registry
from streamapp.models.receipt import read_receipt

SIGNATURE = '[inputs]\nx = "float32[n,5]"\n[outputs]\ny = "float32[n,2]"\n'
NET = 'options = { module = "tiny_torch:Net", arguments = { hidden = 7 } }'
X = np.random.default_rng(1).standard_normal((20, 5)).astype(np.float32)


@pytest.fixture
def pulled(tmp_path):
    """Declare a file that is built, and pull it; its session, and its receipt."""
    registries = []

    def run(source, builder, options="", signature=SIGNATURE):
        content = source.read_bytes()
        path = tmp_path / "models/tensor/net/1/manifest.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            'task = "tensor"\nname = "net"\nversion = 1\nabout = "x"\nlicence = "MIT"\n'
            f'model = "model.onnx"\n[[files]]\nname = "{source.name}"\nbytes = {len(content)}\n'
            f'sha256 = "{hashlib.sha256(content).hexdigest()}"\nsources = ["file:{source}"]\n'
            f'[build]\nbuilder = "{builder}"\nsource = "{source.name}"\n'
            f'outputs = ["model.onnx"]\n{options}\n{signature}'
        )
        registry = Registry(tmp_path / "models", tmp_path / "cache", threads=1)
        registries.append(registry)
        registry.pull("tensor/net")
        receipt = read_receipt(registry.folder("tensor/net"))
        assert receipt.difference <= 1e-4
        assert receipt.rows == 64
        return registry.session("tensor/net"), receipt

    yield run
    for registry in registries:
        registry.close()


@pytest.fixture
def torch():
    reason = "not proven: the extra [torch-export] is not installed"
    pytest.importorskip("onnxscript", reason=reason)
    return pytest.importorskip("torch", reason=reason)


@pytest.fixture
def net(torch):
    from tiny_torch import Net

    torch.manual_seed(0)
    return Net(7).eval()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_of_a_module(torch, net, pulled, tmp_path, suffix):
    path = tmp_path / f"net{suffix}"
    if suffix == ".pt":
        torch.save(net.state_dict(), path)
    else:
        pytest.importorskip("safetensors", reason="not proven: no safetensors here")
        from safetensors.torch import save_file

        save_file(net.state_dict(), path)
    session, receipt = pulled(path, "torch", NET)
    assert receipt.built_with.startswith("torch 2")
    with torch.no_grad():
        expected = net(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(session.run({"x": X})["y"], expected, rtol=1e-4, atol=1e-5)


def test_a_graph_that_was_exported(torch, net, pulled, tmp_path):
    free = ({0: torch.export.Dim.AUTO},)
    path = tmp_path / "net.pt2"
    graph = torch.export.export(net, (torch.from_numpy(X),), dynamic_shapes=free)
    torch.export.save(graph, path)
    session, _ = pulled(path, "torch", "trust = true")
    with torch.no_grad():
        expected = net(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(session.run({"x": X})["y"], expected, rtol=1e-4, atol=1e-5)


def test_what_torch_cannot_build_is_refused(torch, net, pulled, tmp_path):
    path = tmp_path / "net.pt"
    torch.save(net.state_dict(), path)
    for options, signature, says in [
        ("", SIGNATURE, "options.module"),
        (NET.replace("7", "6"), SIGNATURE, "size mismatch"),
        (NET.replace("Net", "Nut"), SIGNATURE, "Nut"),
        (NET, "", "signature"),
    ]:
        with pytest.raises(Refuse) as caught:
            pulled(path, "torch", options, signature)
        assert says in str(caught.value)
    torch.save(net, path)  # a pickle of the module itself: a program
    with pytest.raises(Refuse, match=r"net\.pt"):
        pulled(path, "torch", NET)
    program = tmp_path / "net.pt2"
    program.write_bytes(b"x")
    with pytest.raises(Refuse, match="may run code"):
        pulled(program, "torch", NET)


@pytest.fixture
def keras():
    pytest.importorskip("tf2onnx", reason="not proven: the extra [keras] is not installed")
    return pytest.importorskip("keras", reason="not proven: the extra [keras] is not installed")


def test_a_keras_model(keras, pulled, tmp_path):
    inputs = keras.Input((5,), name="x")
    hidden = keras.layers.Dense(7, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="y")(hidden))
    path = tmp_path / "net.keras"
    model.save(path)
    session, _ = pulled(path, "keras")
    np.testing.assert_allclose(
        session.run({"x": X})["y"], model.predict(X, verbose=0), rtol=1e-4, atol=1e-5
    )


def test_what_is_no_keras_model_is_refused(keras, pulled, tmp_path):
    path = tmp_path / "net.keras"
    path.write_bytes(b"nothing")
    with pytest.raises(Refuse, match=r"net\.keras"):
        pulled(path, "keras")
