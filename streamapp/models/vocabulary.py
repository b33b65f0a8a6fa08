"""Whether a graph has a row for every token that its tokenizer may give.

onnxruntime's ``Gather`` fails on an id beyond its table; ``GatherBlockQuantized``, and OpenVINO,
answer with whatever is there.  So the table is looked up in the file before anything runs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streamapp.core.errors import Refuse
from streamapp.models.manifest import Manifest

_IDS = "input_ids"
_GATHERS = frozenset({"Gather", "GatherBlockQuantized"})
#: What ids go through before they are looked up, and a table before it is looked into.
_SAME_IDS = frozenset({"Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_SAME_ROWS = frozenset({"Cast", "Identity", "DequantizeLinear"})


def prove_vocabulary(manifest: Manifest, folder: Path) -> None:
    """Hold a model's tokenizer against its graph; one without either is left alone.

    Raises:
        Refuse: a token has an id for which the graph has no row.
    """
    from streamapp.models.tokenizer import open_tokenizer  # loads tokenizers

    name: str = getattr(manifest, "tokenizer", "")
    rows = rows_of(folder / manifest.model) if name else None
    if rows is None:
        return
    ids = open_tokenizer(folder / name, manifest.tokens_max).ids
    if ids > rows:
        raise Refuse(
            "models.vocabulary",
            f"{manifest.full_name}: {name} gives token ids up to {ids - 1}, "
            f"{manifest.model} has {rows} rows for them",
            "give the model's own tokenizer.json",
        )


def rows_of(path: Path) -> int | None:
    """How many token ids an ONNX graph knows; None where it cannot be told."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    tables = {table.name: int(table.dims[0]) for table in graph.initializer if table.dims}
    found = [tables[name] for name in _looked_into(graph) if name in tables]
    return min(found, default=None)


def _looked_into(graph: Any) -> Iterator[str]:
    """Names of the tables that the ids are looked up in; nodes come in the order of the flow."""
    ids = {_IDS}
    origin: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in _SAME_IDS and node.input[0] in ids:
            ids.update(node.output)
        elif node.op_type in _SAME_ROWS:
            origin[node.output[0]] = origin.get(node.input[0], node.input[0])
        elif node.op_type in _GATHERS and node.input[1] in ids and _axis(node) == 0:
            yield origin.get(node.input[0], node.input[0])


def _axis(node: Any) -> int:
    named = {"axis", "gather_axis"}
    return next((attribute.i for attribute in node.attribute if attribute.name in named), 0)
