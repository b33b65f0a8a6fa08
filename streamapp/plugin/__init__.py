"""The one door for stages: everything that adds columns to events, ours and yours, comes in here.

A stage per event, batched for you::

    from streamapp.plugin import stage

    @stage("word_count", version=1, reads=["text"], writes={"words": "int32"})
    def word_count(text: str) -> dict[str, int]:
        return {"words": len(text.split())}

A stage that owns a model is a class with ``open(models)``, ``enrich(batch)`` and ``close()``; one
that keeps state per conversation implements ``enrich(batch, state)`` (:class:`StatefulStage`).
Register either under the entry point group ``streamapp.stages`` and name it in
``topics/workflow.toml``.

Work on whole tables is an operation (:mod:`streamapp.plugin.operation`), registered under
``streamapp.operations`` and named in a workflow's YAML.
"""

from streamapp.core.batch import EVENT_SCHEMA, Batch, vector_column
from streamapp.core.entity import Entity
from streamapp.core.errors import Halt, Refuse, Reject, Retry, StreamappError
from streamapp.core.model import ModelRef
from streamapp.core.route import ROUTE, Answered, Event, Routed
from streamapp.models.session import Session, Tensor
from streamapp.plugin.chat import Chat
from streamapp.plugin.extractor import Extractor
from streamapp.plugin.operation import (
    BEFORE_ALL_US,
    BaseOperation,
    Cancelled,
    Config,
    Keyed,
    KeyedOperation,
    LiveOperation,
    Operation,
    Source,
    Sources,
    Work,
    column,
)
from streamapp.plugin.routing import Beside, Router, labelled, sticky_place
from streamapp.plugin.sparse import SparseEmbedder, as_sparse
from streamapp.plugin.stage import (
    Allocate,
    BaseStage,
    Classifier,
    Columns,
    Embedder,
    Models,
    Stage,
    StageFactory,
    State,
    StatefulStage,
    VectorStage,
    Writes,
    float32,
    float32_vector,
    int32,
    stage,
    string,
)
from streamapp.plugin.turning import Turning

__all__ = [
    "BEFORE_ALL_US",
    "EVENT_SCHEMA",
    "ROUTE",
    "Allocate",
    "Answered",
    "BaseOperation",
    "BaseStage",
    "Batch",
    "Beside",
    "Cancelled",
    "Chat",
    "Classifier",
    "Columns",
    "Config",
    "Embedder",
    "Entity",
    "Event",
    "Extractor",
    "Halt",
    "Keyed",
    "KeyedOperation",
    "LiveOperation",
    "ModelRef",
    "Models",
    "Operation",
    "Refuse",
    "Reject",
    "Retry",
    "Routed",
    "Router",
    "Session",
    "Source",
    "Sources",
    "SparseEmbedder",
    "Stage",
    "StageFactory",
    "State",
    "StatefulStage",
    "StreamappError",
    "Tensor",
    "Turning",
    "VectorStage",
    "Work",
    "Writes",
    "as_sparse",
    "column",
    "float32",
    "float32_vector",
    "int32",
    "labelled",
    "stage",
    "sticky_place",
    "string",
    "vector_column",
]
