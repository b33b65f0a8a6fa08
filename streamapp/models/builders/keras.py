"""A Keras model (``.keras`` or ``.h5``) to ONNX, by tf2onnx; the extra ``[keras]`` has both.

``safe_mode`` stays on: a file that brings code of its own (a Lambda layer) is refused by Keras.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from streamapp.core.errors import Refuse
from streamapp.models.builders import Built
from streamapp.models.builders.comparing import Original, compared, needs
from streamapp.models.manifest import Manifest
from streamapp.models.session import Array, parse_signature

VERSION = 1
OPSET = 18
_PACKAGES = ["tensorflow", "tf2onnx"]


def build(manifest: Manifest, source: Path, folder: Path) -> Built:
    """Convert, and hold the ONNX file against the model itself.

    Raises:
        Refuse: the file is no Keras model, tf2onnx cannot convert it, a package is missing, or the
            two differ.
    """
    try:
        import keras
        import tf2onnx
    except ImportError as error:
        raise needs(manifest, "keras", error) from None
    names = [tensor.name for tensor in parse_signature(manifest.outputs)]
    try:
        model = keras.models.load_model(str(source), compile=False, safe_mode=True)
        model.output_names = names or list(model.output_names)
        converted, _ = tf2onnx.convert.from_keras(model, opset=OPSET)
    except Exception as error:  # noqa: BLE001  # both have errors of many bases
        why = str(error).split("\n", 1)[0]
        raise Refuse(
            "models.conversion",
            f"{manifest.full_name}: {source.name}: {why}",
            "export it to ONNX yourself",
        ) from None
    (folder / manifest.model).write_bytes(converted.SerializeToString(deterministic=True))
    inputs = [given.name for given in converted.graph.input]
    outputs = [given.name for given in converted.graph.output]
    return compared(manifest, folder, _original(model, inputs, outputs), _PACKAGES)


def _original(model: Any, inputs: list[str], outputs: list[str]) -> Original:
    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = [feeds[name] for name in inputs]
        found = model.predict(given[0] if len(given) == 1 else given, verbose=0)
        some = found if isinstance(found, tuple | list) else [found]
        return {name: np.asarray(value) for name, value in zip(outputs, some, strict=True)}

    return run
