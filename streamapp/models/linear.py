"""A linear layer from a file: ``.safetensors``, ``.npz``, or what ``torch.save`` wrote.

A file of torch is a pickle, and a pickle is a program.  It is read here by an unpickler that knows
the names of a plain state_dict and nothing else, so that nothing in it runs.
"""

import io
import json
import math
import pickle  # read without running anything, see _Tensors
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Refuse

Floats = npt.NDArray[np.float32]

_SAFETENSORS = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
_STORAGES = {"DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16}
_DAMAGED = (pickle.UnpicklingError, zipfile.BadZipFile)
BYTES_MAX = 1 << 28


def read_linear(path: Path) -> tuple[Floats, Floats]:
    """Weight, (outputs, inputs), and bias, (outputs,); zeros where there is no bias.

    Raises:
        Refuse: the file cannot be read, or holds something else.
    """
    try:
        return _linear(_read(path))
    except (OSError, ValueError, LookupError, EOFError, *_DAMAGED) as error:
        raise Refuse(
            "models.linear",
            f"{path}: no linear layer: {error}",
            "give a .safetensors, .npz or .pt file with weight and bias",
        ) from None


def _linear(tensors: dict[str, Floats]) -> tuple[Floats, Floats]:
    weight = _named(tensors, "weight")
    bias = _named(tensors, "bias") if len(tensors) > 1 else np.zeros(len(weight), np.float32)
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise ValueError(f"weight is {weight.shape} and bias {bias.shape}")
    return weight, bias


def _read(path: Path) -> dict[str, Floats]:
    if path.stat().st_size > BYTES_MAX:
        raise ValueError(f"it has more than {BYTES_MAX} bytes")
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name].astype(np.float32) for name in arrays.files}
    if path.suffix == ".safetensors":
        return _read_safetensors(path.read_bytes())
    return _read_torch(path)


def _named(tensors: dict[str, Floats], name: str) -> Floats:
    """The tensor ``weight``, or the one whose name ends so (``sparse_linear.weight``)."""
    found = [key for key in tensors if key.rpartition(".")[2] == name]
    if len(found) != 1:
        raise ValueError(f"it has {', '.join(tensors) or 'nothing'}")
    return np.ascontiguousarray(tensors[found[0]], np.float32)


def _read_safetensors(content: bytes) -> dict[str, Floats]:
    """https://github.com/huggingface/safetensors#format."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__", None)
    data = memoryview(content)[8 + size :]
    return {
        name: np.frombuffer(data[slice(*one["data_offsets"])], _SAFETENSORS[one["dtype"]])
        .reshape(one["shape"])
        .astype(np.float32)
        for name, one in header.items()
    }


def _read_torch(path: Path) -> dict[str, Floats]:
    """What ``torch.save(state_dict)`` writes since 1.6: a zip of a pickle and its storages."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > BYTES_MAX:
            raise ValueError(f"it unpacks to more than {BYTES_MAX} bytes")
        pickles = [one.filename for one in members if one.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"it is a zip with {len(pickles)} files data.pkl")
        found = _Tensors(archive, pickles[0]).load()
    if not isinstance(found, dict) or not all(isinstance(x, np.ndarray) for x in found.values()):
        raise ValueError("it is no state_dict")
    return {str(name): array.astype(np.float32) for name, array in found.items()}


class _Tensors(pickle.Unpickler):
    """A state_dict of plain tensors as arrays; any other name is refused."""

    def __init__(self, archive: zipfile.ZipFile, pickled: str) -> None:
        super().__init__(io.BytesIO(archive.read(pickled)))
        self._archive = archive
        self._folder = pickled.removesuffix("data.pkl") + "data/"

    def find_class(self, module: str, name: str) -> Any:
        """The few names that a state_dict is made of."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _strided
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no state_dict needs")

    def persistent_load(self, pid: Any) -> Any:
        """A storage: ``("storage", type, key, device, count)``."""
        _, kind, key, *_ = pid
        return np.frombuffer(self._archive.read(self._folder + str(key)), kind)


def _strided(
    storage: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> Any:
    """The part of a storage that is a tensor; only one whose values follow each other."""
    size = math.prod(shape)
    plain = tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))
    if tuple(strides) != plain and size > 1:
        raise ValueError(f"a tensor of strides {strides} for shape {shape}")
    return storage[offset : offset + size].reshape(shape)
