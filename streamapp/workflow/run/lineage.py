"""Lineage of a run as OpenLineage tells it (https://openlineage.io, spec 2-0-2).

A run of a workflow is a run of the job WORKFLOW, and each of its stages one of WORKFLOW.STAGE whose
parent it is.  Both begin with a START and end with a COMPLETE, FAIL or ABORT.
"""

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from streamapp.workflow.graph.names import plain_service
from streamapp.workflow.graph.spec import Graph
from streamapp.workflow.run.datasets import Dataset, of_input, of_output, of_source
from streamapp.workflow.run.events import Event, PartEnded, PartStarted, RunEnded, RunStarted
from streamapp.workflow.run.facets import PRODUCER, facet
from streamapp.workflow.run.lineage_sinks import Sink, sink_of
from streamapp.workflow.run.report import Problem, Report, StageReport

SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
#: How a stage may end, in the words of OpenLineage.
_ENDS = {"failed": "FAIL", "cancelled": "ABORT", "skipped": "ABORT"}


class Lineage:
    """An observer of a run that tells it as OpenLineage's events.

    Args:
        graph: that runs.
        target: a file that events are appended to, one on each line, or a URL that they are
            posted to.
        folder: where the file's path begins.
        token: ``env:NAME`` or ``file:PATH`` of what a server wants as its bearer token.
        namespace: of the jobs.
        schemas: columns of what inputs and stages give, by name, over those that the run says.

    Raises:
        Refuse: the file cannot be written, or the URL is none.
    """

    def __init__(
        self,
        graph: Graph,
        target: str,
        folder: Path,
        *,
        token: str = "",
        namespace: str = "streamapp",
        schemas: Mapping[str, pa.Schema] | None = None,
    ) -> None:
        self._graph, self._namespace = graph, namespace
        self._schemas = dict(schemas or {})
        self._sink: Sink = sink_of(target, folder, token)
        self._run = ""

    def __call__(self, event: Event) -> None:
        """Take an event of the run; see ``Observer``."""
        if isinstance(event, RunStarted):
            self._run = event.run
            self._schemas = {**event.schemas, **self._schemas}
            self._tell("START", event.at_us, self._graph.name, self._run_facets())
        elif isinstance(event, PartStarted) and event.kind == "stage":
            self._tell("START", event.at_us, self._job(event.name), self._stage_facets())
        elif isinstance(event, PartEnded) and event.kind == "stage":
            self._stage_ended(event.report, event.at_us)
        elif isinstance(event, RunEnded):
            self._run_ended(event.report, event.at_us)

    def close(self) -> int:
        """Deliver what is left; how many events could not be, which is also logged."""
        return self._sink.close()

    def _stage_ended(self, report: StageReport, at_us: int) -> None:
        state = _ENDS.get(report.state, "COMPLETE")
        taken = report.inputs or dict.fromkeys(self._graph.takes(self._graph.step(report.name)))
        inputs = [self._dataset(name).told() for name in taken]
        made = self._own(report.name).told(output_rows=report.rows_out)
        facets = self._stage_facets() | _error(report.error)
        self._tell(
            state, at_us, self._job(report.name), facets, inputs, [made] if state[0] == "C" else []
        )

    def _run_ended(self, report: Report, at_us: int) -> None:
        state = {"done": "COMPLETE", "failed": "FAIL", "cancelled": "ABORT"}[report.state]
        inputs = [
            self._dataset(part.name).told(input_rows=part.rows_out)
            for part in report.parts
            if part.kind in ("input", "source")
        ]
        outputs = []
        for written in report.outputs:
            declared = self._graph.outputs[written.name]
            made = of_output(declared, written.path, self._schemas.get(declared.source))
            outputs.append(made.told(output_rows=written.rows))
        facets = self._run_facets() | _error(report.error)
        self._tell(state, at_us, self._graph.name, facets, inputs, outputs)

    def _dataset(self, name: str) -> Dataset:
        """What a stage takes: an input, what a stage gives, or a declared source."""
        if name in self._graph.inputs:
            declared = self._graph.inputs[name]
            return of_input(declared, self._graph.folder, self._schemas.get(name))
        if any(step.name == name for step in self._graph.stages):
            return self._own(name)
        return of_source(name, self._graph.folder, self._schemas.get(name))

    def _own(self, stage: str) -> Dataset:
        """A stage's result, which only the run has."""
        return Dataset(self._namespace, self._job(stage), self._schemas.get(stage))

    def _job(self, stage: str) -> str:
        return f"{self._graph.name}.{stage}"

    def _id(self, job: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PRODUCER}:{self._run}:{job}"))

    def _run_facets(self) -> dict[str, Any]:
        from importlib.metadata import version

        release = version("streamapp")
        return {
            "processing_engine": facet(
                "ProcessingEngineRunFacet", version=release, name="streamapp"
            )
        }

    def _stage_facets(self) -> dict[str, Any]:
        job = self._graph.name
        return self._run_facets() | {
            "parent": facet(
                "ParentRunFacet",
                run={"runId": self._id(job)},
                job={"namespace": self._namespace, "name": job},
            )
        }

    def _tell(
        self,
        state: str,
        at_us: int,
        job: str,
        facets: dict[str, Any],
        inputs: Iterable[dict[str, Any]] = (),
        outputs: Iterable[dict[str, Any]] = (),
    ) -> None:
        is_run = job == self._graph.name
        kind = "WORKFLOW" if is_run else self._kind(job)
        job_type = facet(
            "JobTypeJobFacet", processingType="BATCH", integration="STREAMAPP", jobType=kind
        )
        self._sink.take(
            {
                "eventType": state,
                "eventTime": datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(),
                "run": {"runId": self._id(job), "facets": facets},
                "job": {"namespace": self._namespace, "name": job, "facets": {"jobType": job_type}},
                "inputs": list(inputs),
                "outputs": list(outputs),
                "producer": PRODUCER,
                "schemaURL": SPEC,
            }
        )

    def _kind(self, job: str) -> str:
        step = self._graph.step(job.removeprefix(f"{self._graph.name}."))
        return f"{plain_service(step.service)}.{step.operation}"


def _error(problem: Problem | None) -> dict[str, Any]:
    if problem is None:
        return {}
    message = f"{problem.code}: {problem.message}"
    return {
        "errorMessage": facet("ErrorMessageRunFacet", message=message, programmingLanguage="PYTHON")
    }
