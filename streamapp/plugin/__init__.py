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
"""

from streamapp.core.batch import EVENT_SCHEMA, Batch, vector_column
from streamapp.core.errors import Halt, Refuse, Reject, Retry, StreamappError
from streamapp.core.model import ModelRef
from streamapp.plugin.stage import (
    Allocate,
    BaseStage,
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

__all__ = [
    "EVENT_SCHEMA",
    "Allocate",
    "BaseStage",
    "Batch",
    "Columns",
    "Embedder",
    "Halt",
    "ModelRef",
    "Models",
    "Refuse",
    "Reject",
    "Retry",
    "Stage",
    "StageFactory",
    "State",
    "StatefulStage",
    "StreamappError",
    "VectorStage",
    "Writes",
    "float32",
    "float32_vector",
    "int32",
    "stage",
    "string",
    "vector_column",
]
