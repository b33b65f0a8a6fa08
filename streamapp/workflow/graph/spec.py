"""A workflow as its file declares it: inputs, stages and outputs, before anything is looked up.

``Graph`` is what all that follows works on: the checks, the engine, the drawing, the topics.  A
file (``load_graph``) and the Python builder make equal ones.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from streamapp.workflow.graph.marks import Marks

#: A name of a workflow, stage, input, output or parameter; it is also a file's name and a topic's.
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,99}$")]
Seconds = Annotated[float, Meta(gt=0, le=604_800)]
Share = Annotated[float, Meta(ge=0, le=1)]


class _Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what a file may hold; an unknown key is an error."""


class Input(_Declared, frozen=True):
    """Rows that come from outside.

    Args:
        type: ``file`` (``path`` or ``pattern``), ``source`` (a declared one, by ``source``),
            ``http`` (``url``), or a database (``sqlite``, ``duckdb``, ``postgres``) with ``path``
            or ``url`` and ``table`` or ``query``.
        pattern: a glob, or several, relative to the workflow's file.
        path: one file, relative to the workflow's file.
        source: the NAME of ``[sources.NAME]`` in ``streamapp.toml``.
        format: of the files; None: by their suffix.
        url: where it is; a reference ``env:NAME`` or ``file:PATH`` where it has a secret in it.
        table: of a database.
        query: instead of ``table``.
        options: of the format's reader.
    """

    type: str = "file"
    pattern: str | tuple[str, ...] | None = None
    path: str | None = None
    source: str | None = None
    format: str | None = None
    url: str | None = None
    table: str | None = None
    query: str | None = None
    options: dict[str, Any] = {}


class RetryPolicy(_Declared, frozen=True):
    """When a stage that failed is tried again.

    Args:
        max: how many times more, at most.
        delay_s: before the first of them.
        backoff: each wait is so many times the one before.
        delay_s_max: the longest wait.
        jitter: the share of a wait that is random, so that many do not come back at once.
        on: codes of errors, whole or up to a dot (``source`` for ``source.died``), or ``timeout``;
            none: every error that says that the outside does not answer, and timeouts.
    """

    max: Annotated[int, Meta(ge=0, le=100)] = 3
    delay_s: Annotated[float, Meta(ge=0, le=86_400)] = 1.0
    backoff: Annotated[float, Meta(ge=1, le=100)] = 2.0
    delay_s_max: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    jitter: Share = 0.1
    on: tuple[str, ...] = ()


class Resources(_Declared, frozen=True):
    """What a stage may take; what is left out is measured or chosen by the size of its input.

    Args:
        cpu: cores.
        memory_mb: of all its processes together; the stage fails when it holds more.
        workers: processes or threads.
        chunk_rows: rows of one call of an operation of scope ``row``.
    """

    cpu: Annotated[float, Meta(gt=0, le=1024)] | None = None
    memory_mb: Annotated[int, Meta(ge=1)] | None = None
    workers: Annotated[int, Meta(ge=1, le=1024)] | None = None
    chunk_rows: Annotated[int, Meta(ge=1)] | None = None


class StepTest(_Declared, frozen=True):
    """A test of one stage, inside the file: rows in, and what is to come out.

    Args:
        name: what it shows.
        rows: of the stage's first input.
        inputs: rows by input, where it takes several.
        sources: rows by declared source, instead of what is there.
        expect: rows that come out, in order; columns that a row does not name are not compared.
        expect_rows: how many come out.
        expect_error: the code of the error that it ends in.
        tolerance: how far a number may be off.
    """

    name: str = ""
    rows: tuple[dict[str, Any], ...] | None = None
    inputs: dict[str, tuple[dict[str, Any], ...]] = {}
    sources: dict[str, tuple[dict[str, Any], ...]] = {}
    expect: tuple[dict[str, Any], ...] | None = None
    expect_rows: Annotated[int, Meta(ge=0)] | None = None
    expect_error: str | None = None
    tolerance: Annotated[float, Meta(ge=0)] = 1e-9


class Step(_Declared, frozen=True):
    """A stage: one operation of a service, on what other stages or inputs give.

    Args:
        name: of the stage; others name it in ``depends_on`` and ``source``.
        service: ``text``, ``integrate``, ``pipeline``, ``infer``, or a name they also go by.
        operation: of the service.
        depends_on: stages whose results it takes, in this order.
        inputs: inputs of the workflow that it takes, after those; a stage that names neither takes
            all of them.
        config: of the operation.
        when: a condition; where it does not hold the stage gives no rows.  See
            ``run/expressions.py``.
        foreach: values by the name of a variable: the stage runs once for each combination, with
            ``${NAME}`` in its config replaced; its results follow each other, each with the
            variables as columns.
        retry: when it failed; None: it is not tried again.
        timeout_s: of one try.
        on_failure: ``fail``: the run ends; ``skip``: what depends on it is left out, the rest runs;
            ``continue``: what depends on it gets no rows.
        scale: on topics, ``own`` makes it a consumer group of its own; others share a process.
        resources: what it may take.
        tests: of this stage.
    """

    name: Name
    service: str
    operation: str
    depends_on: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    config: dict[str, Any] = {}
    description: str = ""
    when: str | None = None
    foreach: dict[Name, tuple[Any, ...]] | None = None
    retry: RetryPolicy | None = None
    timeout_s: Seconds | None = None
    on_failure: Literal["fail", "skip", "continue"] = "fail"
    scale: Literal["fused", "own"] = "fused"
    resources: Resources = Resources()
    tests: tuple[StepTest, ...] = ()


class Output(_Declared, frozen=True):
    """Rows that are written.

    Args:
        source: a stage, or an input.
        format: of the file; None: by the suffix of ``path``.
        path: below the folder of the run's outputs; None: ``NAME.FORMAT``.
        url: of a database, as for an input.
        table: of a database.
        options: of the format's writer.
    """

    source: str
    format: str | None = None
    path: str | None = None
    url: str | None = None
    table: str | None = None
    options: dict[str, Any] = {}


class Document(_Declared, frozen=True):
    """What a workflow's file holds, key by key.  ``Graph`` is one that has its place."""

    name: Name
    version: str = "1"
    description: str = ""
    params: dict[Name, str | int | float | bool | None] = {}
    inputs: dict[Name, Input] = {}
    stages: tuple[Step, ...] = ()
    outputs: dict[Name, Output] = {}


class Graph(Document, frozen=True, eq=False):
    """A declared workflow.  Two are equal that declare the same, wherever they are written.

    Args:
        params: values that ``${params.NAME}`` in a config and ``params.NAME`` in a condition stand
            for; a run may give others.
        stages: in the file's order, which is any.
        folder: where its relative paths begin.
        path: its file; None: it was built in Python.
        marks: where in the file each key stands.
    """

    folder: Path = Path()
    path: Path | None = None
    marks: Marks = Marks()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.declared() == other.declared()

    __hash__ = None  # type: ignore[assignment]  # it holds dictionaries

    def declared(self) -> Document:
        """What it declares, without its place."""
        fields = {name: getattr(self, name) for name in Document.__struct_fields__}
        return Document(**fields)

    def step(self, name: str) -> Step:
        """The stage of that name; KeyError when there is none (a checked graph has it)."""
        return next(step for step in self.stages if step.name == name)

    def takes(self, step: Step) -> tuple[str, ...]:
        """The stages and inputs whose rows it takes, in the order that its operation sees."""
        named = (*step.depends_on, *step.inputs)
        return named or tuple(self.inputs)
