"""Facets of OpenLineage: who says them, and where each is defined."""

from typing import Any

#: Who says all this; a name, not an address.
PRODUCER = "urn:streamapp"
_FACETS = "https://openlineage.io/spec/facets"
_VERSIONS = {
    "ErrorMessageRunFacet": "1-0-1",
    "InputStatisticsInputDatasetFacet": "1-0-0",
    "JobTypeJobFacet": "2-0-4",
    "OutputStatisticsOutputDatasetFacet": "1-0-2",
    "ParentRunFacet": "1-2-0",
    "ProcessingEngineRunFacet": "1-1-1",
    "SchemaDatasetFacet": "1-2-0",
}


def facet(kind: str, **fields: Any) -> dict[str, Any]:
    """A facet of a kind, like ``SchemaDatasetFacet``."""
    where = f"{_FACETS}/{_VERSIONS[kind]}/{kind}.json#/$defs/{kind}"
    return {"_producer": PRODUCER, "_schemaURL": where, **fields}
