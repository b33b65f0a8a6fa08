"""Three sources into one file, by one call of the operation, or by a workflow of that stage.

python integrate_ours.py FOLDER OUT call|workflow
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from streamapp.plugin.calling import CallWork, project_models, run_operation
from streamapp.plugin.registered import operation_class
from streamapp.workflow.data import declared_sources, open_output, reader_of, writer_of
from streamapp.workflow.graph.load import graph_of
from streamapp.workflow.graph.spec import Output
from streamapp.workflow.run.engine import Services, run

SOURCES = """
[sources.crm]
format = "csv"
path = "crm.csv"

[sources.web]
format = "jsonl"
path = "web.jsonl"

[sources.billing]
format = "sqlite"
path = "billing.db"
table = "billing"
"""
TIMES = {
    "dob": {"name": "dob", "type": "date32"},
    "updated_at": {"name": "updated_at", "type": "timestamp[us]"},
}
CONFIG: dict[str, Any] = {
    "secondary_sources": ["web", "billing"],
    "mode": "full_outer_join",
    "key_fields": ["customer_id"],
    "mapping": {
        "crm": TIMES,
        "web": {**TIMES, "id": "customer_id", "given_name": "first", "surname": "last"},
        "billing": {**TIMES, "cust": "customer_id", "tel": "phone"},
    },
    "matching_strategy": {
        "rules": [{"fields": ["first", "last"], "by": "jaro_winkler"}],
        "blocking": [{"on": ["dob"]}],
        "threshold": 0.9,
    },
    "timestamp_field": "updated_at",
    "conflict_strategy": "most_recent",
    "conflicts": {"amount": "sum"},
    "report": ["conflicts"],
}


def called(folder: Path, out: Path) -> None:
    """In this process: nothing is kept between reading and writing."""
    sources = declared_sources(folder)
    work = CallWork(sources, project_models, threads=os.cpu_count() or 1)
    crm = {"crm": sources.source("crm").read().read_all()}
    table = run_operation("integrate.integrate", CONFIG, crm, work)
    output = Output(source="merged", format="parquet", path="customers.parquet")
    open_output(output, out, name="customers").write(table.to_reader())


def flowed(folder: Path, out: Path) -> None:
    """In processes of the engine, which keeps every step's result for a resumption."""
    declared = {
        "name": "customers",
        "inputs": {"crm": {"type": "file", "path": "crm.csv"}},
        "stages": [
            {"name": "merged", "service": "integrate", "operation": "integrate", "config": CONFIG}
        ],
        "outputs": {
            "customers": {"source": "merged", "format": "parquet", "path": "customers.parquet"}
        },
    }
    # Each run has a cache of its own: nothing is taken from the run before.
    services = Services(cache=out.with_name(f"cache-{os.getpid()}"))
    report = run(graph_of(declared, folder), folder_out=out, services=services)
    if report.error is not None:
        raise SystemExit(str(report.error.error()))


def main() -> None:
    folder, out, way = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    (folder / "streamapp.toml").write_text(SOURCES)
    out.mkdir(parents=True, exist_ok=True)
    operation_class("integrate.integrate")  # what is imported late, as theirs was before the clock
    for name in ("csv", "jsonl", "sqlite"):
        reader_of(name)
    writer_of("parquet")
    begun = time.perf_counter()
    {"call": called, "workflow": flowed}[way](folder, out)
    seconds = time.perf_counter() - begun
    table = pq.read_table(out / "customers.parquet")
    names = table.column("_conflicts").combine_chunks().flatten().value_counts().to_pylist()
    conflicts = {name["values"]: name["counts"] for name in names}
    print(json.dumps({"seconds": seconds, "things": table.num_rows, "conflicts": conflicts}))


if __name__ == "__main__":
    main()
