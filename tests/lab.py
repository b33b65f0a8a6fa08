"""A project of its own for the engine's tests: rows in a file, a workflow, a place for outputs."""

import json
import sys

import msgspec
from lab_operations import install

from streamapp.plugin import registered
from streamapp.workflow.graph.load import graph_of
from streamapp.workflow.run.engine import Services, run


class Lab:
    """A folder with ``rows.jsonl`` (``n`` from 0), a cache, and outputs as JSON lines."""

    def __init__(self, folder, rows=10):
        self.folder, self.out, self.cache = folder / "flow", folder / "out", folder / "cache"
        self.folder.mkdir()
        self.write(range(rows))
        self.events = []

    def write(self, numbers, name="rows.jsonl"):
        path = self.folder / name
        path.write_text("".join(f'{{"n": {n}}}\n' for n in numbers))
        return path

    def graph(self, *stages, outputs=None, **keys):
        """Stages as dicts, each after the one before unless it says otherwise."""
        before = None
        for number, stage in enumerate(stages):
            stage.setdefault("name", f"s{number}")
            stage.setdefault("service", "lab")
            if before and "depends_on" not in stage and "inputs" not in stage:
                stage["depends_on"] = before
            before = stage["name"]
        content = {
            "name": "lab",
            "inputs": {"rows": {"path": "rows.jsonl"}},
            "stages": list(stages),
            "outputs": outputs or {"result": {"source": before, "format": "jsonl"}},
            **keys,
        }
        return graph_of(content, self.folder)

    def run(self, graph, *, params=None, write=True, **services):
        """A run; without outputs one that is all in the cache starts no process."""
        self.events.clear()
        if not write:
            graph = msgspec.structs.replace(graph, outputs={})
        services.setdefault("cpus", 1)  # each process more takes a third of a second to start
        return run(
            graph,
            folder_out=self.out,
            services=Services(cache=self.cache, **services),
            params=params,
            progress=self.events.append,
        )

    def result(self, name="result"):
        return [json.loads(line) for line in (self.out / f"{name}.jsonl").read_text().splitlines()]

    def calls(self, log="calls"):
        path = self.folder / log
        return path.read_text().splitlines() if path.exists() else []


def installed(tmp_path_factory, monkeypatch):
    """The lab's operations, as if a package had brought them."""
    folder = tmp_path_factory.mktemp("site")
    install(folder)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    registered._points.cache_clear()
    yield
    registered._points.cache_clear()
