"""The services: operations on tables, by workflow, by topic, over HTTP, and from Python.

``streamapp.services.call("text.analyze", table)`` runs one of them.  Importing this package loads
none of them: a name is imported when it is first used.
"""

from typing import TYPE_CHECKING

from streamapp._lazy import lazy

if TYPE_CHECKING:
    from streamapp.services.calling import call
    from streamapp.services.integrate.service import (
        DataIntegrationService,
        IntegrationConfig,
        create_data_integration_service,
    )
    from streamapp.services.text.service import Document, NlpService

__all__ = [
    "DataIntegrationService",
    "Document",
    "FilterOperator",
    "FilterTransform",
    "IntegrationConfig",
    "NlpService",
    "Pipeline",
    "PipelineService",
    "call",
    "create_data_integration_service",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "DataIntegrationService": "streamapp.services.integrate.service",
        "IntegrationConfig": "streamapp.services.integrate.service",
        "create_data_integration_service": "streamapp.services.integrate.service",
        "Document": "streamapp.services.text.service",
        "NlpService": "streamapp.services.text.service",
        "FilterOperator": "streamapp.workflow.pipelines",
        "FilterTransform": "streamapp.workflow.pipelines",
        "Pipeline": "streamapp.workflow.pipelines",
        "PipelineService": "streamapp.workflow.pipelines",
        "call": "streamapp.services.calling",
    },
)
