"""ONNX files by onnxruntime, on the CPU or on CUDA where the installed onnxruntime has it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Halt, Refuse, Reject
from streamapp.core.model import ModelRef
from streamapp.models.formats.sizes import size_of
from streamapp.models.runtime import onnxruntime
from streamapp.models.session import (
    DTYPES,
    Array,
    Feeds,
    Tensor,
    checked_feeds,
    chosen_outputs,
)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
#: onnxruntime's names of types; its other types have no NumPy twin.
_TYPES = {name: name for name in DTYPES} | {"float": "float32", "double": "float64"}


class OnnxSession:
    """A Session on an ONNX file.

    Args:
        ref: who it is; ``ref`` of what is opened says what computes it, too.
        path: the graph; weights that it keeps in files lie beside it.
        threads: of one call; calls that overlap run on threads of their own where it is 1.
        device: ``cpu``, ``cuda``, or ``auto``: CUDA where the installed onnxruntime has it.

    Raises:
        Refuse: the file cannot be loaded, the device is not there, or an input or output is no
            tensor.
    """

    def __init__(self, ref: ModelRef, path: Path, threads: int = 1, device: str = "auto") -> None:
        self._session: onnxruntime.InferenceSession | None = _open(path, threads, device)
        self.inputs = tuple(_tensor(given, path) for given in self._session.get_inputs())
        self.outputs = tuple(_tensor(given, path) for given in self._session.get_outputs())
        self.memory_bytes = size_of(path)
        self.device: str = self._session.get_providers()[0]
        self.ref = replace(ref, runtime="onnxruntime" + " cuda" * (self.device == CUDA))

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """As ``Session.run``; what onnxruntime cannot compute is a Reject with its own words."""
        given = checked_feeds(self.ref, self.inputs, feeds)
        names = chosen_outputs(self.ref, self.outputs, outputs)
        session = self._opened()
        try:
            found = session.run(names, given)
        except Exception as error:  # noqa: BLE001  # onnxruntime's errors share no narrower base
            raise _reject(self.ref, error) from None
        return dict(zip(names, found, strict=True))

    def run_into(self, feeds: Feeds, output: str, out: npt.NDArray[np.float32]) -> None:
        """Run with ``out``, C-contiguous, as the memory of one output.

        The binding is made anew: inputs have another shape each time, keeping it would save 2 of
        the call's 4,000 us or more, and it would go on pointing to memory that is not ours.

        Raises:
            Reject: as ``run``; also for another shape than the graph gives.
        """
        binding = self._opened().io_binding()
        try:
            for name, values in feeds.items():
                binding.bind_cpu_input(name, values)
            binding.bind_output(output, "cpu", 0, np.float32, out.shape, out.ctypes.data)
            self._opened().run_with_iobinding(binding)
        except Exception as error:  # noqa: BLE001  # onnxruntime's errors share no narrower base
            raise _reject(self.ref, error) from None

    def close(self) -> None:
        """Let the graph go; calls under way end well."""
        self._session = None

    def _opened(self) -> "onnxruntime.InferenceSession":
        session = self._session
        if session is None:
            raise Halt("models.closed", f"{self.ref} was closed", "open it again")
        return session


def _open(path: Path, threads: int, device: str) -> "onnxruntime.InferenceSession":
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Every batch has its own shape: a memory pattern would not be reused, and an arena would keep
    # what the longest texts needed (200 MB more) for no gain in speed.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = _providers(device)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # noqa: BLE001  # onnxruntime's errors share no narrower base
        raise Refuse(
            "models.onnx", f"{path}: {error}", "give an ONNX file that onnxruntime can run"
        ) from None


def _providers(device: str) -> list[str]:
    """Execution providers, the preferred one first; the CPU takes what the other cannot."""
    has_cuda = CUDA in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise Refuse(
            "models.device",
            "device is cuda, and the installed onnxruntime has no CUDA",
            "install onnxruntime-gpu instead of onnxruntime, or set device = cpu",
        )
    return [CUDA, CPU] if has_cuda and device != "cpu" else [CPU]


def _tensor(given: Any, path: Path) -> Tensor:
    """What onnxruntime says of an input or output; names and None are any size."""
    kind = given.type.removeprefix("tensor(").removesuffix(")")
    if not given.type.startswith("tensor(") or kind not in _TYPES:
        raise Refuse(
            "models.signature",
            f"{path}: {given.name} is {given.type}",
            "export it with tensors of NumPy's types (of scikit-learn: zipmap=False)",
        )
    shape = tuple(size if isinstance(size, int) else -1 for size in given.shape)
    return Tensor(given.name, _TYPES[kind], shape)


def _reject(ref: ModelRef, error: Exception) -> Reject:
    words = " ".join(str(error).split())[:500]
    return Reject("models.run", f"{ref} cannot run on this input: {words}", "check the values")
