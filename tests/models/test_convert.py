"""Builders: what is built does what its original does, or there is nothing."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

from streamapp.core.errors import Refuse
from streamapp.models import Registry
from streamapp.models.builders.comparing import distance
from streamapp.models.receipt import read_receipt

#: Looked for and not imported: that would take every process that collects tests two seconds.
pytestmark = pytest.mark.skipif(
    find_spec("skl2onnx") is None, reason="not proven: the extra [sklearn] is not installed"
)

FEATURES = 5


@pytest.fixture(scope="module")
def estimators():
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(0)
    x = random.standard_normal((90, FEATURES)) * 3 + 1
    kinds = np.array(["refund", "cancel", "other"])[(x[:, 0] > 0).astype(int) + (x[:, 1] > 2)]
    return {
        "texts": make_pipeline(StandardScaler(), LogisticRegression()).fit(x, kinds),
        "numbers": RandomForestClassifier(5, random_state=0).fit(x, x[:, 2] > 0),
        "regressor": LinearRegression().fit(x, x @ np.arange(FEATURES)),
        "scaler": StandardScaler().fit(x),
    }


class Workshop:
    """A models folder with one model that is built from a pickle."""

    def __init__(self, folder: Path) -> None:
        self.models_dir, self.cache = folder / "models", folder / "cache"
        self.source = folder / "model.joblib"
        self.manifest_path = self.models_dir / "tensor/built/1/manifest.toml"
        self.manifest_path.parent.mkdir(parents=True)
        self.folder = self.cache / "models/tensor/built/1"

    def stock(self, estimator, extra="", build="trust = true", builder="sklearn"):
        import joblib

        joblib.dump(estimator, self.source)
        self.declare(extra, build, builder)

    def declare(self, extra="", build="trust = true", builder="sklearn"):
        content = self.source.read_bytes()
        self.manifest_path.write_text(
            'task = "tensor"\nname = "built"\nversion = 1\nabout = "built"\nlicence = "MIT"\n'
            f'model = "model.onnx"\n{extra}\n'
            f'[[files]]\nname = "{self.source.name}"\nbytes = {len(content)}\n'
            f'sha256 = "{hashlib.sha256(content).hexdigest()}"\nsources = ["file:{self.source}"]\n'
            f'[build]\nbuilder = "{builder}"\nsource = "{self.source.name}"\n'
            f'outputs = ["model.onnx"]\n{build}\n'
        )

    def registry(self):
        return Registry(self.models_dir, self.cache, threads=1)

    def refusal(self):
        """Why a pull is refused; nothing may be left under a real name."""
        with pytest.raises(Refuse) as caught:
            self.registry().pull("tensor/built")
        assert not [path for path in self.folder.iterdir() if not path.name.startswith(".")]
        assert not self.registry().status("tensor/built").pulled
        assert caught.value.fix
        return caught.value


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


@pytest.mark.parametrize("kind", ["texts", "numbers", "regressor", "scaler"])
def test_an_estimator_is_built_compared_and_run(workshop, estimators, kind):
    estimator = estimators[kind]
    workshop.stock(estimator)
    registry = workshop.registry()
    assert registry.pull("tensor/built").pulled
    receipt = read_receipt(workshop.folder)
    assert receipt.difference <= 1e-4
    assert receipt.rows == 64
    assert "skl2onnx 1." in receipt.built_with
    assert {path.name for path in workshop.folder.iterdir()} == {
        "model.onnx",
        "built.json",
        ".lock",
    }

    x = np.random.default_rng(1).standard_normal((20, FEATURES)).astype(np.float32)
    found = registry.session("tensor/built").run({"x": x})
    if kind in ("texts", "numbers"):
        assert list(found) == ["label", "probabilities"]
        assert found["label"].astype(str).tolist() == [
            str(int(one) if isinstance(one, np.bool_) else one) for one in estimator.predict(x)
        ]
        np.testing.assert_allclose(
            found["probabilities"], estimator.predict_proba(x), rtol=1e-4, atol=1e-5
        )
    else:
        call = estimator.predict if kind == "regressor" else estimator.transform
        (output,) = found.values()
        np.testing.assert_allclose(output.reshape(call(x).shape), call(x), rtol=1e-4, atol=1e-4)


def test_a_pickle_is_not_loaded_without_trust(workshop, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "it ran",))

    workshop.stock(Bomb(), build="")
    assert workshop.refusal().code == "models.trust"
    assert not (tmp_path / "it ran").exists()


def test_a_trusted_pickle_of_another_sha256_is_not_loaded(workshop, estimators):
    workshop.stock(estimators["scaler"])
    size = workshop.source.stat().st_size
    workshop.source.write_bytes(b"x" * size)
    assert workshop.refusal().code == "models.sha256"


def test_what_is_no_estimator_is_refused(workshop):
    workshop.stock({"weights": [1, 2]})
    assert "holds a dict" in workshop.refusal().message


def test_what_is_no_pickle_is_refused(workshop):
    workshop.source.write_bytes(b"not a pickle")
    workshop.declare()
    assert "cannot be loaded" in workshop.refusal().message


def test_an_estimator_that_was_not_fitted_is_refused(workshop):
    from sklearn.preprocessing import StandardScaler

    workshop.stock(StandardScaler())
    assert "not an estimator that was fitted" in workshop.refusal().message


def test_a_conversion_that_differs_is_refused(workshop, estimators, monkeypatch):
    import skl2onnx

    convert = skl2onnx.to_onnx

    def wrong(*arguments, **options):
        model = convert(*arguments, **options)
        for constant in model.graph.initializer:
            if constant.data_type == onnx.TensorProto.FLOAT:
                array = onnx.numpy_helper.to_array(constant) * np.float32(1.001)
                constant.CopyFrom(onnx.numpy_helper.from_array(array, constant.name))
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.floats:
                    attribute.floats[:] = [1.001 * one for one in attribute.floats]
        return model

    monkeypatch.setattr(skl2onnx, "to_onnx", wrong)
    workshop.stock(estimators["scaler"])
    error = workshop.refusal()
    assert error.code == "models.conversion"
    assert "0.0001 is allowed" in error.message
    workshop.stock(estimators["scaler"], build="trust = true\ntolerance = 0.1")
    assert workshop.registry().pull("tensor/built").pulled
    assert 1e-4 < read_receipt(workshop.folder).difference < 0.1


def test_the_manifests_example_is_what_it_is_compared_on(workshop, estimators):
    example = f"[example]\nx = [{[0.5] * FEATURES}, {[-1.0] * FEATURES}]\n"
    workshop.stock(estimators["texts"], example)
    workshop.registry().pull("tensor/built")
    assert read_receipt(workshop.folder).rows == 2


def test_an_example_of_another_shape_is_refused(workshop, estimators):
    workshop.stock(estimators["scaler"], f"[example]\nx = {[0.5] * FEATURES}\n")
    assert "input 'x'" in workshop.refusal().message


def test_a_signature_that_is_not_the_built_models_is_refused(workshop, estimators):
    workshop.stock(estimators["scaler"], '[inputs]\nx = "float32[n,7]"')
    error = workshop.refusal()
    assert error.code == "models.signature"
    assert "float32[?,5]" in error.message


@pytest.mark.parametrize(("builder", "package"), [("torch", "onnxscript"), ("keras", "tf2onnx")])
def test_a_builder_whose_packages_are_missing_says_so(workshop, estimators, builder, package):
    try:
        __import__(package)
    except ImportError:
        workshop.stock(estimators["scaler"], builder=builder, build="")
        assert f"streamapp[{builder}" in workshop.refusal().fix
    else:
        pytest.skip(f"{package} is installed here")


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.25),
        ([0.5], [0.75], 0.25),
        ([np.nan], [np.nan], 0),
        ([np.nan], [1.0], np.inf),
        ([1.0], [1.0, 1.0], np.inf),
        (["a"], ["a"], 0),
        (["a"], ["b"], np.inf),
        ([True], [1], 0),
    ],
)
def test_distance(one, other, apart):
    assert distance(np.array(one), np.array(other)) == pytest.approx(apart)
