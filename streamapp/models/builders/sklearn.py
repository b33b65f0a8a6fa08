"""A scikit-learn estimator (joblib or pickle) to ONNX, by skl2onnx.

A pickle is a program that runs when it is loaded.  It is loaded only where the manifest says
``trust = true`` in ``[build]``, and only the file whose sha256 the manifest names; once built, the
ONNX file is all that is run.

The built model takes ``x``, float32[n,features], and gives what the estimator has of ``label``
(int64 or string), ``probabilities`` (float32[n,classes]), ``y`` (of a regressor) and
``transformed``; name those that are wanted in ``[outputs]``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from streamapp.core.errors import Refuse
from streamapp.models.builders import Built
from streamapp.models.builders.comparing import Original, compared, needs
from streamapp.models.manifest import Manifest
from streamapp.models.session import Array

VERSION = 1
INPUT = "x"
OPSET = 21
_PACKAGES = ["scikit-learn", "skl2onnx"]


def build(manifest: Manifest, source: Path, folder: Path) -> Built:
    """Convert, and hold the ONNX file against the estimator itself.

    Raises:
        Refuse: the manifest does not trust the file, it is no estimator that skl2onnx knows, or
            the two differ.
    """
    assert manifest.build is not None  # noqa: S101  # the caller looked
    if not manifest.build.trust:
        raise Refuse(
            "models.trust",
            f"{manifest.full_name}: {source.name} is a pickle, which is a program",
            "if you know who made it, set trust = true in [build]; its sha256 stays proven",
        )
    try:
        import joblib
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType
    except ImportError as error:
        raise needs(manifest, "sklearn", error) from None
    estimator = _loaded(joblib.load, source)
    features = _features(manifest, estimator)
    try:
        model = to_onnx(
            estimator,
            initial_types=[(INPUT, FloatTensorType([None, features]))],
            options={id(estimator): {"zipmap": False}} if _classifies(estimator) else None,
            target_opset={"": OPSET, "ai.onnx.ml": 3},
        )
    except Exception as error:  # noqa: BLE001  # skl2onnx has errors of many bases
        what = f"{manifest.full_name}: skl2onnx cannot convert {type(estimator).__name__}: {error}"
        raise Refuse(
            "models.conversion", what.split("\n", 1)[0], "export it to ONNX yourself"
        ) from None
    names = _outputs(estimator)
    _rename(model, names)
    (folder / manifest.model).write_bytes(model.SerializeToString(deterministic=True))
    return compared(manifest, folder, _original(estimator, names), _PACKAGES)


def _loaded(load: Any, source: Path) -> Any:
    try:
        return load(source)
    except Exception as error:  # noqa: BLE001  # a pickle raises whatever it likes
        raise Refuse(
            "models.format",
            f"{source.name} cannot be loaded: {type(error).__name__}: {error}",
            "save it with joblib.dump, and install what it was made with",
        ) from None


def _features(manifest: Manifest, estimator: Any) -> int:
    count = getattr(estimator, "n_features_in_", None)
    if count is None or not hasattr(estimator, "get_params"):
        raise Refuse(
            "models.format",
            f"{manifest.full_name}: the file holds a {type(estimator).__name__}, not an estimator "
            "that was fitted",
            "save a scikit-learn estimator or pipeline after fit",
        )
    return int(count)


def _classifies(estimator: Any) -> bool:
    from sklearn.base import is_classifier

    return bool(is_classifier(estimator))


def _outputs(estimator: Any) -> list[str]:
    """Our names of what skl2onnx gives, in its order."""
    if _classifies(estimator):
        return ["label", "probabilities"]
    return ["y"] if hasattr(estimator, "predict") else ["transformed"]


def _rename(model: Any, names: list[str]) -> None:
    """Give the graph's outputs our names; skl2onnx's depend on its version."""
    graph = model.graph
    old = [output.name for output in graph.output]
    if len(old) < len(names):
        raise Refuse(
            "models.conversion", f"skl2onnx gave {', '.join(old)}", "export it to ONNX yourself"
        )
    names_now = dict(zip(old, names, strict=False))
    inner = {name: f"{name}_inner" for name in names if name not in old}
    renamed = inner | names_now
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for output in graph.output:
        output.name = renamed.get(output.name, output.name)


def _original(estimator: Any, names: list[str]) -> Original:
    calls = {
        "label": "predict",
        "probabilities": "predict_proba",
        "y": "predict",
        "transformed": "transform",
    }

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        found = {}
        for name in names:
            if call := getattr(estimator, calls[name], None):
                array = np.asarray(call(feeds[INPUT]))
                found[name] = array.reshape(-1, 1) if name == "y" and array.ndim == 1 else array
        return found

    return run
