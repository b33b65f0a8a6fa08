"""A trained head as a model: an ONNX graph and the manifest beside it."""

import math
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from streamapp.core.errors import Refuse
from streamapp.models.declaration import converted
from streamapp.models.heads.training import Head
from streamapp.models.manifest import FileSpec, HeadManifest, Lineage, Name, Version
from streamapp.models.receipt import sha256_of
from streamapp.models.toml import write_toml

GRAPH = "head.onnx"
INPUT, OUTPUT = "vector", "probabilities"
#: How a version is written, so that its folder is found again.
_NUMBER = re.compile(r"[1-9][0-9]*", re.ASCII)


class Origin(NamedTuple):
    """What a head was made from.

    ``embedder`` is ``embed/name@version`` and ``embedder_sha256`` its file's; ``data`` says what
    the examples are and ``data_sha256`` which; ``created`` is RFC 3339.
    """

    embedder: str
    embedder_sha256: str
    data: str
    data_sha256: str
    created: str
    licence: str = "as its training data"


class _Place(msgspec.Struct):
    name: Name
    version: Version


def placed(folder: Path) -> tuple[str, int]:
    """Name and version of a head that is to lie in ``.../head/NAME/VERSION``.

    Raises:
        Refuse: the folder is not called so, its name cannot be one of a model, or it is there.
    """
    parts = folder.resolve().parts
    if len(parts) < 4 or parts[-3] != "head" or not _NUMBER.fullmatch(parts[-1]):
        raise Refuse(
            "intents.out",
            f"--out {folder}: a head lies in MODELS/head/NAME/VERSION",
            "write it so, for example models/head/support/1",
        )
    if folder.exists():
        raise Refuse(
            "intents.out",
            f"--out {folder} is there, and a version does not change",
            f"train the next one: {folder.parent / str(int(parts[-1]) + 1)}",
        )
    said = {"name": parts[-2], "version": int(parts[-1])}
    found = converted(said, _Place, f"--out {folder}", lambda key, _: f"take another {key}")
    return found.name, found.version


def write_head(folder: Path, head: Head, origin: Origin) -> HeadManifest:
    """Write graph and manifest; the folder appears when both are whole.

    Raises:
        Refuse: as ``placed``; the folder cannot be written.
    """
    name, version = placed(folder)
    models = folder.parents[2]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=models, prefix=".head-") as scratch:
            part = Path(scratch) / folder.name
            part.mkdir()
            (part / GRAPH).write_bytes(graph_of(head))
            manifest = _manifest(part, head, origin, name, version)
            (part / "manifest.toml").write_text(_declared(manifest))
            part.rename(folder)
    except OSError as error:
        raise Refuse(
            "intents.out", f"--out {folder}: {error.strerror}", "name a folder that can be written"
        ) from None
    return manifest


def graph_of(head: Head) -> bytes:
    """The graph: ``vector`` float32[n, dim] to ``probabilities`` float32[n, labels].

    The temperature is in the weights.
    """
    scale = np.float32(1 / head.temperature)
    constants = {"weight": head.linear.weight * scale, "bias": head.linear.bias * scale}
    nodes = [
        helper.make_node("Gemm", [INPUT, "weight", "bias"], ["scores"], transB=1),
        helper.make_node("Softmax", ["scores"], [OUTPUT], axis=1),
    ]
    labels, dim = head.linear.weight.shape
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "head",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", dim])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", labels])],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
        producer_name="streamapp",
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _manifest(folder: Path, head: Head, origin: Origin, name: str, version: int) -> HeadManifest:
    path = folder / GRAPH
    labels, dim = head.linear.weight.shape
    declared = {
        "name": name,
        "version": version,
        "about": f"{labels} labels on vectors of {origin.embedder}",
        "licence": origin.licence,
        "files": [
            FileSpec(
                name=GRAPH,
                sha256=sha256_of(path),
                bytes=path.stat().st_size,
                sources=[f"file:./{GRAPH}"],
            )
        ],
        "model": GRAPH,
        "inputs": {INPUT: f"float32[n,{dim}]"},
        "outputs": {OUTPUT: f"float32[n,{labels}]"},
        "lineage": Lineage(
            parent=f"{origin.embedder}+{origin.embedder_sha256}",
            data=origin.data,
            source_sha256=origin.data_sha256,
            created=origin.created,
        ),
        "measured": measured(head),
        "embedder": origin.embedder,
        "dim": dim,
        "labels": list(head.labels),
        "kind": head.kind,
        "output": OUTPUT,
        "activation": "none",
        "threshold": head.threshold,
    }
    return converted(
        msgspec.to_builtins(declared),
        HeadManifest,
        f"--out {folder}",
        lambda key, _: f"take another {key}",
    )


def measured(head: Head) -> dict[str, Any]:
    """What was found on held-out examples, and how; for the manifest."""
    found = {
        name: value if isinstance(value, int) else round(value, 4)
        for name, value in head.measured._asdict().items()
        if not math.isnan(value)
    }
    return {"by": "folds of the training examples", "temperature": head.temperature} | found


def _declared(manifest: HeadManifest) -> str:
    """The manifest as TOML, without what it leaves at its default."""
    said = msgspec.to_builtins(manifest)
    plain = {field.name: field.default for field in msgspec.structs.fields(HeadManifest)}
    empty: tuple[Any, ...] = ({}, [], None, "")
    shown = {
        name: value
        for name, value in said.items()
        if value not in empty and (name not in plain or value != plain[name])
    }
    return write_toml(shown)
