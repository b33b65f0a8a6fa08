"""Session: the one way to run a model, whatever it is made of and wherever it runs.

Tensors are NumPy arrays by name, as in ONNX.  Types have NumPy's names, text is ``string`` (an
array of ``str`` objects).  A session may be called from several threads at once.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Halt, Refuse, Reject, Retry, StreamappError
from streamapp.core.model import ModelRef

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

STRING = "string"
#: Types of tensors, by name.
DTYPES: dict[str, npt.DTypeLike] = {
    "bool": np.bool_,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "float16": np.float16,
    "float32": np.float32,
    "float64": np.float64,
    STRING: np.object_,
}
_SHORT = {"f16": "float16", "f32": "float32", "f64": "float64", "str": STRING, "double": "float64"}
_DECLARED = re.compile(r"^(?P<dtype>[a-z0-9]+)\[(?P<shape>[^\[\]]*)\]$")


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output.  ``dtype`` is a name of ``DTYPES``; in ``shape`` -1 is any size."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        sizes = ",".join("?" if size < 0 else str(size) for size in self.shape)
        return f"{self.dtype}[{sizes}]"


class Session(Protocol):
    """An opened model.  ``memory_bytes`` is what it is charged for, measured or estimated."""

    @property
    def ref(self) -> ModelRef: ...
    @property
    def inputs(self) -> tuple[Tensor, ...]: ...
    @property
    def outputs(self) -> tuple[Tensor, ...]: ...
    @property
    def memory_bytes(self) -> int: ...

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """The named outputs, all of them by default.

        Raises:
            Reject: a feed is missing, unknown, or of another type or shape; an unknown output.
            Retry: a remote model is away, or a queue is full.
            Halt: the model gave what it does not declare.
        """
        ...

    def close(self) -> None:
        """Free what it holds; it is not run again."""
        ...


@runtime_checkable
class Remote(Protocol):
    """A Session on a server."""

    def garbled(self, why: str) -> Retry:
        """The error for an answer that is none."""
        ...


def unfit(session: Session, why: str, fix: str) -> StreamappError:
    """The error for outputs that are not those of what was given.

    Of a server it is a bad answer, and the next may be better; a model that is here will always
    give it.
    """
    if isinstance(session, Remote):
        return session.garbled(why)
    return Halt("models.output", f"{session.ref} gave {why}", fix)


#: Opens a model; called at most once per version.
Open = Callable[[], Session]


def parse_tensor(name: str, declared: str) -> Tensor:
    """A manifest's ``float32[batch,384]``; a size that is a name, ``?`` or -1 is any.

    Raises:
        Refuse: it is not written like that.
    """
    match = _DECLARED.match(declared.replace(" ", ""))
    dtype = _SHORT.get(match["dtype"], match["dtype"]) if match else ""
    if match is None or dtype not in DTYPES:
        raise Refuse(
            "models.signature",
            f"{name} = {declared!r} is no tensor",
            f"write TYPE[SIZE,...], such as float32[batch,384]; types are {', '.join(DTYPES)}",
        )
    sizes = [size for size in match["shape"].split(",") if size]
    return Tensor(name, dtype, tuple(int(s) if s.isdigit() else -1 for s in sizes))


def parse_signature(declared: Mapping[str, str]) -> tuple[Tensor, ...]:
    """The tensors of a manifest's ``[inputs]`` or ``[outputs]``, in order."""
    return tuple(parse_tensor(name, kind) for name, kind in declared.items())


def dtype_name(array: Array) -> str:
    """The name in ``DTYPES`` of an array's type; NumPy's own for others."""
    return _name_of(array.dtype)


@lru_cache(256)  # NumPy makes the name anew each time, in 10 us
def _name_of(dtype: np.dtype[Any]) -> str:
    return STRING if dtype.kind in "OUST" else str(dtype)


def checked_feeds(ref: ModelRef, inputs: Sequence[Tensor], feeds: Feeds) -> dict[str, Array]:
    """The feeds by name, proven to be what the inputs declare.

    Raises:
        Reject: one is missing, unknown, or of another type or shape.
    """
    model = f"{ref.task}/{ref.name}@{ref.version}"
    declared = {tensor.name: tensor for tensor in inputs}
    for name in feeds:
        if name not in declared:
            raise Reject(
                "models.feed",
                f"{model} has no input {name[:80]!r}",
                f"it takes {', '.join(declared) or 'nothing'}",
            )
    for name, tensor in declared.items():
        if name not in feeds:
            raise Reject("models.feed", f"{model}: no input {name!r}", f"give {name} = {tensor}")
        if not fits(tensor, feeds[name]):
            got = Tensor(name, dtype_name(feeds[name]), feeds[name].shape)
            raise Reject("models.feed", f"{model}: input {name!r} is {got}", f"give {tensor}")
    return dict(feeds)


def chosen_outputs(
    ref: ModelRef, declared: Sequence[Tensor], wanted: Sequence[str] | None
) -> list[str]:
    """The names of the outputs to give.

    Raises:
        Reject: one that the model does not have.
    """
    names = [tensor.name for tensor in declared]
    for name in wanted or ():
        if name not in names:
            raise Reject(
                "models.output",
                f"{ref.task}/{ref.name}@{ref.version} has no output {name[:80]!r}",
                f"it gives {', '.join(names)}",
            )
    return list(wanted) if wanted is not None else names


def fits(tensor: Tensor, array: Array) -> bool:
    """Whether an array is of the tensor's type and shape."""
    return dtype_name(array) == tensor.dtype and same_shape(tensor.shape, array.shape)


def same_shape(declared: Iterable[int], shape: Iterable[int]) -> bool:
    """Whether two shapes agree where both say a size."""
    one, other = tuple(declared), tuple(shape)
    return len(one) == len(other) and all(
        a == b or a < 0 or b < 0 for a, b in zip(one, other, strict=True)
    )


def check_signature(
    model: str, kind: str, declared: Sequence[Tensor], found: Sequence[Tensor]
) -> None:
    """Refuse a model whose inputs or outputs are not what its manifest says.

    An output that the manifest leaves out is allowed: nobody asks for it.

    Args:
        model: whose, for the message.
        kind: ``input`` or ``output``.
        declared: by the manifest; nothing was promised when empty.
        found: in the model.
    """
    there = {tensor.name: tensor for tensor in found}
    said = {tensor.name: tensor for tensor in declared}
    extra = [name for name in there if name not in said] if kind == "input" and said else []
    for name in extra:
        why = f"has the input {name} = {there[name]}, which its manifest does not declare"
        raise Refuse("models.signature", f"{model} {why}", "correct [inputs] in the manifest")
    for name, tensor in said.items():
        if (got := there.get(name)) is None:
            why = f"has no {kind} {name!r}; it has {', '.join(there)}"
        elif got.dtype != tensor.dtype or not same_shape(tensor.shape, got.shape):
            why = f"has the {kind} {name} = {got}, its manifest says {tensor}"
        else:
            continue
        raise Refuse("models.signature", f"{model} {why}", f"correct [{kind}s] in the manifest")
