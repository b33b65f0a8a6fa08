"""The same ONNX files by OpenVINO's runtime: faster than onnxruntime on some CPUs.

An extra: ``pip install 'streamapp[openvino]'``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from streamapp.core.errors import Halt, Refuse, Reject
from streamapp.core.model import ModelRef
from streamapp.models.formats.sizes import size_of
from streamapp.models.session import (
    DTYPES,
    STRING,
    Array,
    Feeds,
    Tensor,
    checked_feeds,
    chosen_outputs,
)

#: How OpenVINO is told to compute.  Left alone it multiplies weights that are stored as int8 by
#: activations that it rounds to int8, a group of so many numbers with a scale of its own.
PRECISIONS = {
    "f32": {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0},
    "int8": {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 32},
    "bf16": {"INFERENCE_PRECISION_HINT": "bf16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 32},
}
_TYPES = {"f16": "float16", "f32": "float32", "f64": "float64", "boolean": "bool"} | {
    f"{sign}{bits}": f"{'u' * (sign == 'u')}int{bits}" for sign in "iu" for bits in (8, 16, 32, 64)
}


class OpenvinoSession:
    """A Session on an ONNX file, compiled by OpenVINO.

    Args:
        ref: who it is; ``ref`` of what is opened says what computes it, too.
        path: the graph.
        threads: of one call.
        calls: how many run at once; further ones wait for them.
        precision: what is computed in: ``f32``; ``int8`` where weights are stored so, which is
            faster and gives about three digits; or that with ``bf16`` for the rest, which is faster
            still on CPUs that have it.

    Raises:
        Refuse: OpenVINO is not installed, or cannot compile the file.
    """

    def __init__(
        self,
        ref: ModelRef,
        path: Path,
        threads: int = 1,
        calls: int = 1,
        precision: str = "f32",
    ) -> None:
        self.ref = replace(ref, runtime=f"openvino {precision}")
        self._model: Any = _compile(path, threads, calls, precision)
        self.inputs = tuple(_tensor(port, path) for port in self._model.inputs)
        self.outputs = tuple(_tensor(port, path) for port in self._model.outputs)
        self.memory_bytes = size_of(path)
        # A request holds the memory of one call at a time; as many are made as calls overlap.
        self._requests: SimpleQueue[Any] = SimpleQueue()

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """As ``Session.run``; what OpenVINO cannot compute is a Reject with its own words."""
        given = checked_feeds(self.ref, self.inputs, feeds)
        names = chosen_outputs(self.ref, self.outputs, outputs)
        arrays = {name: np.ascontiguousarray(values) for name, values in given.items()}
        with self._request() as request:
            try:
                request.infer(arrays, share_inputs=True)
            except Exception as error:  # noqa: BLE001  # OpenVINO raises RuntimeError and worse
                words = " ".join(str(error).split())[:500]
                why = f"{self.ref} cannot run on this input: {words}"
                raise Reject("models.run", why, "check the values") from None
            return {name: request.get_tensor(name).data.copy() for name in names}

    def close(self) -> None:
        """Let the compiled model go; calls under way end well."""
        self._model = None
        self._requests = SimpleQueue()

    @contextmanager
    def _request(self) -> Iterator[Any]:
        model, requests = self._model, self._requests
        if model is None:
            raise Halt("models.closed", f"{self.ref} was closed", "open it again")
        try:
            request = requests.get_nowait()
        except Empty:
            request = model.create_infer_request()
        try:
            yield request
        finally:
            requests.put(request)


def is_installed() -> bool:
    """Whether OpenVINO's runtime is here."""
    from importlib.util import find_spec

    return find_spec("openvino") is not None


def _compile(path: Path, threads: int, calls: int, precision: str) -> Any:
    try:
        import openvino
    except ImportError:
        raise Refuse(
            "models.openvino",
            f"{path} is to be run by OpenVINO, which is not installed",
            "pip install 'streamapp[openvino]', or run it with backend = onnxruntime",
        ) from None
    # The threads are of all streams together, and a stream runs a call at a time.
    streams = {"INFERENCE_NUM_THREADS": threads * calls, "NUM_STREAMS": calls}
    try:
        return openvino.Core().compile_model(path, "CPU", streams | PRECISIONS[precision])
    except Exception as error:  # noqa: BLE001  # OpenVINO raises RuntimeError and worse
        words = " ".join(str(error).split())[:500]
        raise Refuse(
            "models.openvino", f"{path}: {words}", "run it with backend = onnxruntime"
        ) from None


def _tensor(port: Any, path: Path) -> Tensor:
    """What OpenVINO says of an input or output."""
    name = _name(port)
    kind = port.element_type.get_type_name()
    dtype = STRING if kind == "string" else _TYPES.get(kind, "")
    if dtype not in DTYPES:
        raise Refuse(
            "models.signature", f"{path}: {name} is {kind}", "export it with NumPy's types"
        )
    dims = port.partial_shape
    shape = tuple(dim.get_length() if dim.is_static else -1 for dim in dims)
    return Tensor(name, dtype, shape)


def _name(port: Any) -> str:
    """The file's name of an input or output.

    Nodes that OpenVINO makes one leave several names to a port, of which ``any_name`` is any.
    """
    name: str = port.get_node().get_friendly_name().partition("/sink_port_")[0]
    return name if name in port.get_names() else port.any_name
