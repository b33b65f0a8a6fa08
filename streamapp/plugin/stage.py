"""Stage, the contract: what it reads, what it writes, and how it is called."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.core.batch import Batch
from streamapp.core.errors import Refuse, Reject
from streamapp.core.model import ModelRef
from streamapp.models.session import Session
from streamapp.plugin.chat import Chat
from streamapp.plugin.extractor import Extractor
from streamapp.plugin.routing import Router

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


class Embedder(Protocol):
    """Texts to unit vectors.  A text's vector does not depend on its neighbours in the call."""

    @property
    def ref(self) -> ModelRef: ...
    @property
    def dim(self) -> int: ...

    def embed(
        self,
        texts: Sequence[str | None],
        kind: str = "query",
        out: npt.NDArray[np.float32] | None = None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Vectors (n, dim), L2-normalised, and whether each text was truncated, (n,).

        ``kind`` is ``query`` or ``passage``; models trained with such prefixes get theirs, others
        ignore it.  A text that is None has a row of NaN.  With ``out``, C-contiguous, the vectors
        are written there.
        """
        ...


class Classifier(Protocol):
    """Texts, or vectors of one embedder, to probabilities of labels."""

    @property
    def ref(self) -> ModelRef: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def embedder(self) -> str:
        """``embed/name@version``, the model whose vectors it takes; empty: it takes texts."""
        ...

    @property
    def threshold(self) -> float:
        """The least probability of an answer; below it is unknown."""
        ...

    @property
    def margin_min(self) -> float:
        """The least lead of the likeliest label over the second; below it is unknown."""
        ...

    def classify(
        self, inputs: Sequence[str | None] | npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Probabilities (n, labels); a row of NaN for a text that is None or a vector of NaN.

        Raises:
            Reject: texts in place of vectors or the other way round, or vectors of another length.
        """
        ...


class Models(Protocol):
    """What the registry offers a stage at ``open``; models are loaded once and shared."""

    def embedder(self, name: str | None = None) -> Embedder:
        """The embedder of a name or an alias, or the routed default.

        ``name`` is like ``embed/multilingual-e5-small``, with or without ``@version``.

        Raises:
            Refuse: unknown, not pulled, or its files do not match the manifest.
        """
        ...

    def embedding_dim(self, name: str | None = None) -> int:
        """How many numbers a vector of that embedder has, without loading its weights.

        Raises:
            Refuse: unknown.
        """
        ...

    def session(self, name: str) -> Session:
        """Any model as arrays to arrays.

        Raises:
            Refuse: as ``embedder``.
        """
        ...

    def classifier(self, name: str | None = None) -> Classifier:
        """The classifier of a name or an alias, or the routed default of ``classify``.

        Raises:
            Refuse: unknown, not pulled, or a model of another kind.
        """
        ...

    def labels(self, name: str | None = None) -> tuple[str, ...]:
        """The labels of that classifier, without loading it.

        Raises:
            Refuse: unknown, or a model of another kind.
        """
        ...

    def router(self, name: str) -> Router:
        """The router of ``[route.NAME]`` of routes.toml, or of a model alone; nothing is opened.

        Raises:
            Refuse: neither, or a declaration that contradicts itself.
        """
        ...

    def extractor(self, name: str | None = None) -> Extractor:
        """The extractor of a name or an alias, or the routed default of ``entities``.

        Raises:
            Refuse: as ``classifier``.
        """
        ...

    def chat(self, name: str | None = None) -> Chat:
        """The language model of a name or an alias, or the routed default; see ``Chat``.

        Raises:
            Refuse: unknown, or a model of another kind.
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

    def declare(self, models: Models) -> None:
        """Make ``writes`` final (a vector's length depends on the model); loads nothing."""
        ...

    def open(self, models: Models) -> None:
        """Load what is needed; called once, before the first batch."""
        ...

    def enrich(self, batch: Batch) -> Columns:
        """Columns for every row.

        Raise Reject to refuse the batch it was called with: it is then called again with halves
        until the bad row is alone.
        """
        ...

    def close(self) -> None: ...


#: Gives memory for the vectors of so many rows: (rows, dim), float32, C-contiguous.
Allocate = Callable[[int, int], npt.NDArray[np.float32]]


@runtime_checkable
class VectorStage(Protocol):
    """A stage that writes ``embedding`` into memory it asks ``allocate`` for, once per batch.

    In direct mode (``ring = "direct"``) that is the ring's own, and the column is a view of it: it
    is good until the batch is published, so a stage that wants vectors later keeps a copy.
    """

    allocate: Allocate


class BaseStage:
    """A convenient base: no models, nothing to open or close.

    ``options`` come from ``[stages.NAME]`` of the workflow.  A class that
    names its options and their types in ``accepts`` gets them checked; one that leaves it None
    takes anything.

    Raises:
        Refuse: an option that ``accepts`` does not name, or of another type.
    """

    name: str
    version: int = 1
    reads: Sequence[str] = ()
    writes: Mapping[str, pa.DataType] = {}
    models: tuple[ModelRef, ...] = ()
    accepts: Mapping[str, type] | None = None

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.options = dict(options or {})
        if self.accepts is not None:
            _check_options(self.name, self.options, self.accepts)

    def declare(self, models: Models) -> None:
        """``writes`` is final as it stands."""

    def open(self, models: Models) -> None:
        """Nothing to load."""

    def enrich(self, batch: Batch) -> Columns:
        """Subclasses must say."""
        raise NotImplementedError(type(self).__name__)

    def close(self) -> None:
        """Nothing to free."""


def _check_options(stage: str, options: Mapping[str, Any], accepts: Mapping[str, type]) -> None:
    for name, value in options.items():
        kind = accepts.get(name)
        if kind is None:
            near = _near(name, accepts)
            fix = f"did you mean {near}?" if near else f"it takes {', '.join(accepts) or 'none'}"
            raise Refuse("stage.option", f"stage {stage!r} has no option {name!r}", fix)
        whole_as_float = kind is float and type(value) is int
        if type(value) is not kind and not whole_as_float:
            raise Refuse(
                "stage.option",
                f"stage {stage!r}: option {name!r} is {value!r}",
                "give a table" if kind is dict else f"give a {kind.__name__}",
            )


def check_columns(stage: str, reads: Any, writes: Any) -> None:
    """Refuse declared columns of another shape; a string would be a column for each letter."""
    if isinstance(reads, str) or not isinstance(reads, Iterable):
        example = reads if isinstance(reads, str) else "text"
        raise Refuse(
            "stage.reads",
            f"stage {stage!r}: reads={reads!r} is no list of columns",
            f"write reads=[{example!r}]",
        )
    if not isinstance(writes, Mapping):
        example = writes if isinstance(writes, str) else "words"
        raise Refuse(
            "stage.writes",
            f"stage {stage!r}: writes={writes!r} does not say the types of its columns",
            f'write writes={{{example!r}: "int32"}}',
        )


def _near(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant, or nothing."""
    from difflib import get_close_matches

    return "".join(get_close_matches(name, known, 1))


class StatefulStage(BaseStage):
    """A stage whose columns depend on earlier events of its partition, in offset order."""

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
        rows = zip(*arguments, strict=True) if arguments else repeat((), len(batch))
        results: list[Mapping[str, Any]] = [
            {} if any(value is None for value in row) else self._checked(self._function(*row))
            for row in rows
        ]
        return {
            name: pa.array([result.get(name) for result in results], kind)
            for name, kind in self.writes.items()
        }

    def _checked(self, result: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the function returned, when it is its columns and no others."""
        if not isinstance(result, Mapping):
            raise self._reject(
                f"returned {type(result).__name__}, not a dict of its columns {self._columns()}",
                "return a dict",
            )
        if result.keys() == self.writes.keys():
            return result
        unknown = [name for name in result if name not in self.writes]
        if unknown:
            near = _near(str(unknown[0]), self.writes)
            raise self._reject(
                f"returned column {unknown[0]!r}, which it does not declare",
                f"did you mean {near!r}?" if near else f"it declares {self._columns()}",
            )
        missing = next(name for name in self.writes if name not in result)
        raise self._reject(f"left out column {missing!r}", "return None for what is null")

    def _columns(self) -> str:
        return ", ".join(self.writes) or "none"

    def _reject(self, why: str, fix: str) -> Reject:
        return Reject("stage.result", f"stage {self.name!r} {why}", fix)


def stage(
    name: str, *, version: int, reads: Iterable[str], writes: Mapping[str, str | pa.DataType]
) -> Callable[[Callable[..., Mapping[str, Any]]], StageFactory]:
    """Make a stage factory out of a function from the ``reads`` of one event to its ``writes``.

    It returns a dict of all those columns, None for what is null; an event for which it returns
    anything else is rejected.

    Args:
        name: ``lower_snake_case``, unique in a workflow.
        version: raise it when the same input gives another output.
        reads: columns passed as positional arguments, in this order; none: it is called without.
        writes: column names with Arrow types, or their names (``int32``, ``string``, ``float``,
        ...).

    Raises:
        Refuse: ``reads`` is no list, ``writes`` no mapping, or a type name that Arrow does not
            know.
    """
    check_columns(name, reads, writes)
    types: dict[str, pa.DataType] = {}
    for column, kind in writes.items():
        try:
            types[column] = kind if isinstance(kind, pa.DataType) else pa.type_for_alias(str(kind))
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
