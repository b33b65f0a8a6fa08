"""Models in your Kafka stream: a plugin for Faust.

``streamapp.install(app, source=..., stages=[...])`` adds the enrich agent to a Faust app of your
own; ``streamapp.CloudEventSchema`` reads topics of CloudEvents; ``streamapp.slice_topic`` and
``streamapp.configure`` give an agent of yours whole fetches; ``streamapp.Workflow`` builds a
workflow.  Importing this package loads none of
it: a name is imported when it is first used.
"""

from typing import TYPE_CHECKING

from streamapp._lazy import lazy

if TYPE_CHECKING:
    from streamapp.agents.codecs import CloudEventSchema
    from streamapp.guest import install
    from streamapp.transport import configure, slice_topic
    from streamapp.workflow.graph.builder import Workflow

__all__ = ["CloudEventSchema", "Workflow", "configure", "install", "slice_topic"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "CloudEventSchema": "streamapp.agents.codecs",
        "Workflow": "streamapp.workflow.graph.builder",
        "configure": "streamapp.transport",
        "install": "streamapp.guest",
        "slice_topic": "streamapp.transport",
    },
)
