"""Data that comes into a workflow and leaves it: files, databases, HTTP, a project's sources.

::

    source = open_input(graph.inputs["documents"], graph.folder, name="documents", on_bad=keep)
    source.schema(); source.read()                  # an Arrow schema, a RecordBatchReader
    open_output(graph.outputs["classes"], folder, name="classes").write(reader)   # rows
    declared_sources(graph.folder).source("metadata-db").read()
    declared_models(registry, graph.folder)         # Models that also know [models.NAME]
"""

from streamapp.workflow.data.contract import BadRow, OnBad, Options, Place, Reader, Writer
from streamapp.workflow.data.declared import Declared, declared_sources
from streamapp.workflow.data.formats import format_of, reader_of, readers, writer_of, writers
from streamapp.workflow.data.named_models import declared_models
from streamapp.workflow.data.opening import Opened, open_input, open_output

__all__ = [
    "BadRow",
    "Declared",
    "OnBad",
    "Opened",
    "Options",
    "Place",
    "Reader",
    "Writer",
    "declared_models",
    "declared_sources",
    "format_of",
    "open_input",
    "open_output",
    "reader_of",
    "readers",
    "writer_of",
    "writers",
]
