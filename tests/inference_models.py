"""A folder of tiny models for whoever serves tensors: ``double`` in two versions, and ``echo``."""

import hashlib
from pathlib import Path

import onnx
from onnx import TensorProto, helper

TYPES = {
    "string": TensorProto.STRING,
    "int64": TensorProto.INT64,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "bool": TensorProto.BOOL,
}
ECHOED = {"text": "string[n]", "count": "int64[n,2]", "half": "float16[n]", "flag": "bool[n]"}


def write_models(folder):
    """Write manifests and files below the folder; returns where the manifests are."""
    for version, factor in ((1, 2.0), (2, 3.0)):
        constant = helper.make_tensor("f", TensorProto.FLOAT, [1], [factor])
        nodes = [helper.make_node("Mul", ["x", "f"], ["y"])]
        signature = {"x": "float32[n,4]"}, {"y": "float32[n,4]"}
        _write(folder, "double", version, nodes, [constant], signature)
    nodes = [helper.make_node("Identity", [name], [f"{name}_again"]) for name in ECHOED]
    again = {f"{name}_again": kind for name, kind in ECHOED.items()}
    _write(folder, "echo", 1, nodes, [], (ECHOED, again))
    (folder / "models" / "routes.toml").write_text('[aliases]\nd = "tensor/double@1"\n')
    return folder / "models"


def registry_of(folder, pull=("tensor/double@1", "tensor/double@2", "tensor/echo")):
    """A registry of those models, with the named ones pulled."""
    from streamapp.models import Registry

    registry = Registry(write_models(folder), folder / "cache", threads=1)
    for name in pull:
        registry.pull(name)
    return registry


def _write(folder, name, version, nodes, constants, signature):
    inputs, outputs = ([_info(n, k) for n, k in side.items()] for side in signature)
    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    content = model.SerializeToString()
    origin = Path(folder) / f"{name}-{version}.onnx"
    onnx.save(model, str(origin))
    place = Path(folder) / "models" / "tensor" / name / str(version)
    place.mkdir(parents=True)
    sides = (
        f"[{title}]\n" + "".join(f'{n} = "{k}"\n' for n, k in side.items())
        for title, side in zip(("inputs", "outputs"), signature, strict=True)
    )
    (place / "manifest.toml").write_text(
        f'task = "tensor"\nname = "{name}"\nversion = {version}\nabout = "a test\'s"\n'
        f'licence = "MIT"\nmodel = "model.onnx"\n{"".join(sides)}'
        f'[[files]]\nname = "model.onnx"\nsha256 = "{hashlib.sha256(content).hexdigest()}"\n'
        f'bytes = {len(content)}\nsources = ["file:{origin}"]\n'
    )


def _info(name, kind):
    dtype, _, shape = kind.partition("[")
    sizes = [int(s) if s.isdigit() else s for s in shape.rstrip("]").split(",")]
    return helper.make_tensor_value_info(name, TYPES[dtype], sizes)
