"""Stage, the contract: what it reads, what it writes, and how it is called."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.core.batch import Batch
from streamapp.core.errors import Refuse

#: What ``enrich`` returns: one Arrow array per written column, each as long as the batch.
Columns = Mapping[str, pa.Array]
#: What a stage declares that it writes: column name to Arrow type.
Writes = Mapping[str, pa.DataType]

string = pa.string()
float32 = pa.float32()
int32 = pa.int32()


def float32_vector(dim: int) -> pa.DataType:
    """The type of an embedding column: FixedSizeList<float32>[dim]."""
    return pa.list_(pa.float32(), dim)


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model as the registry resolved it; ``sha256`` is that of its main file."""

    task: str
    name: str
    version: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.task}/{self.name}@{self.version}+{self.sha256[:12]}"


class Embedder(Protocol):
    """Texts to unit vectors.  A text's vector does not depend on its neighbours in the call."""

    @property
    def ref(self) -> ModelRef: ...
    @property
    def dim(self) -> int: ...

    def embed(
        self, texts: Sequence[str], kind: str = "query"
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Vectors (n, dim), L2-normalised, and whether each text was truncated, (n,).

        ``kind`` is ``query`` or ``passage``; models trained with such prefixes get theirs, others
        ignore it.
        """
        ...


class Models(Protocol):
    """What the registry offers a stage at ``open``; models are loaded once and shared."""

    def embedder(self, name: str | None = None) -> Embedder:
        """The embedder ``name`` (``embed/multilingual-e5-small``, with or without ``@version``), or the routed default.

        Raises:
            Refuse: unknown, not pulled, or its files do not match the manifest.
        """
        ...


class State(Protocol):
    """What a stateful stage remembers in one source partition, under string keys.

    Values are plain data that msgpack can hold.  A cap evicts the keys that were put longest ago,
    in source order.
    """

    def get(self, kind: str, key: str) -> Any | None: ...
    def put(self, kind: str, key: str, source_offset: int, value: Any) -> None: ...


@runtime_checkable
class Stage(Protocol):
    """Named, versioned work that adds columns: same rows, same order.  It never sees Kafka."""

    name: str
    version: int
    reads: Sequence[str]
    writes: Writes
    models: tuple[ModelRef, ...]

    def open(self, models: Models) -> None:
        """Load what is needed; called once, before the first batch.  ``writes`` is final when it returns."""
        ...

    def enrich(self, batch: Batch) -> Columns:
        """Columns for every row.  Raise Reject to refuse the whole batch it was called with: it is then called again
        with halves until the bad row is alone."""
        ...

    def close(self) -> None: ...


class BaseStage:
    """A convenient base: no models, nothing to open or close.  ``options`` come from ``[stages.NAME]`` of the workflow."""

    name: str
    version: int = 1
    reads: Sequence[str] = ()
    writes: Writes = {}
    models: tuple[ModelRef, ...] = ()

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.options = dict(options or {})

    def open(self, models: Models) -> None:
        """Nothing to load."""

    def enrich(self, batch: Batch) -> Columns:
        """Subclasses must say."""
        raise NotImplementedError(type(self).__name__)

    def close(self) -> None:
        """Nothing to free."""


class StatefulStage(BaseStage):
    """A stage whose columns depend on earlier events of the same source partition, in offset order."""

    def enrich(self, batch: Batch, state: State | None = None) -> Columns:
        """Columns for every row; ``state`` is always given by the Plan."""
        raise NotImplementedError(type(self).__name__)


#: What an entry point of ``streamapp.stages`` is: called with the workflow's options, returns a
#: stage.
StageFactory = Callable[[Mapping[str, Any]], Stage]


class _FunctionStage(BaseStage):
    """A per-event function as a stage: one call per row, a null argument gives null columns."""

    def __init__(
        self,
        function: Callable[..., Mapping[str, Any]],
        declared: tuple[str, int, Sequence[str], Writes],
        options: Mapping[str, Any],
    ) -> None:
        super().__init__(options)
        self.name, self.version, self.reads, self.writes = declared
        self._function = function

    def enrich(self, batch: Batch) -> Columns:
        arguments = [batch.column(name).to_pylist() for name in self.reads]
        results: list[Mapping[str, Any]] = [
            {} if any(value is None for value in row) else self._function(*row)
            for row in zip(*arguments, strict=True)
        ]
        return {
            name: pa.array([result.get(name) for result in results], kind)
            for name, kind in self.writes.items()
        }


def stage(
    name: str, *, version: int, reads: Iterable[str], writes: Mapping[str, str | pa.DataType]
) -> Callable[[Callable[..., Mapping[str, Any]]], StageFactory]:
    """Make a stage factory out of a function that takes the ``reads`` of one event and returns its ``writes``.

    Args:
        name: ``lower_snake_case``, unique in a workflow.
        version: raise it when the same input gives another output.
        reads: columns passed as positional arguments, in this order.
        writes: column names with Arrow types, or their names (``int32``, ``string``, ``float``,
        ...).

    Raises:
        Refuse: a type name that Arrow does not know.
    """
    types: dict[str, pa.DataType] = {}
    for column, kind in writes.items():
        try:
            types[column] = kind if isinstance(kind, pa.DataType) else pa.type_for_alias(kind)
        except ValueError:
            raise Refuse(
                "stage.type",
                f"stage {name!r}: column {column!r} has unknown type {kind!r}",
                "use an Arrow type name such as int32, float, string, bool",
            ) from None
    declared = (name, version, tuple(reads), types)

    def decorate(function: Callable[..., Mapping[str, Any]]) -> StageFactory:
        def make(options: Mapping[str, Any]) -> Stage:
            return _FunctionStage(function, declared, options)

        make.__name__ = function.__name__
        make.__doc__ = function.__doc__
        make.__wrapped__ = function  # type: ignore[attr-defined]  # tests call the plain function
        return make

    return decorate
