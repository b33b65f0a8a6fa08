"""Tiny models of any signature, made in a moment."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Of the affine model: y = x @ weights + 1, total = the sum of y's numbers.
WEIGHTS = np.array([[1, 0, 2], [0, 1, 0], [0.5, 0, -1]], np.float32)


def affine(x):
    """What the affine model gives."""
    y = x @ WEIGHTS + np.float32(1)
    return {"y": y, "total": y.sum(axis=1)}


def lengths(text):
    """What a model of texts may give: y, two numbers for each."""
    return {"y": np.array([[len(one), 1] for one in text], np.float32)}


def save_graph(path, nodes, inputs, outputs, constants=None):
    """An ONNX file; ``inputs`` and ``outputs`` are name to (type, shape)."""
    infos = [
        [helper.make_tensor_value_info(name, *info) for name, info in given.items()]
        for given in (inputs, outputs)
    ]
    weights = [
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in (constants or {}).items()
    ]
    graph = helper.make_graph(nodes, "tiny", *infos, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, str(path))
    return path


def affine_model(path, weights=WEIGHTS):
    """x float32[n,3] to y float32[n,3] and total float32[n]."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"]),
        helper.make_node("Add", ["xw", "one"], ["y"]),
        helper.make_node("ReduceSum", ["y", "axis"], ["total"], keepdims=0),
    ]
    return save_graph(
        path,
        nodes,
        {"x": (TensorProto.FLOAT, ["n", 3])},
        {"y": (TensorProto.FLOAT, ["n", 3]), "total": (TensorProto.FLOAT, ["n"])},
        {"w": np.asarray(weights, np.float32), "one": np.float32(1), "axis": np.array([1])},
    )
