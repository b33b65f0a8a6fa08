"""The smallest workflow that the tests of several rooms run: one stage over the rows of one file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def words_flow(
    folder: Path, stage: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], **keys: Any
) -> Path:
    """Write ``words.yaml`` and its ``rows.jsonl`` into a folder; returns the workflow's path.

    Args:
        folder: is made when it is not there.
        stage: service, operation and config of its one stage, ``counted``, which is its output.
        rows: its input.
        keys: of the workflow, such as ``params``.
    """
    flow = {
        "name": "words",
        **keys,
        "inputs": {"rows": {"type": "file", "path": "rows.jsonl"}},
        "stages": [{"name": "counted", **stage}],
        "outputs": {"counted": {"source": "counted", "format": "jsonl"}},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    path = folder / "words.yaml"
    path.write_text(json.dumps(flow))  # which is YAML
    return path
