"""Confluent's REST protocol, v2 and v3, so that its clients work unmodified.

Formats and error codes are those of kafka-rest 8 (https://github.com/confluentinc/kafka-rest);
where Strimzi's bridge or Karapace differ, docs/gateway.md says which rule is ours.
"""

from aiohttp import web

from streamapp.gateway.confluent import clusters, consumers, metadata, v2, v3
from streamapp.gateway.confluent.directory import Directory
from streamapp.gateway.confluent.produce import Producing
from streamapp.gateway.gateway import Gateway


def routes(gateway: Gateway) -> list[web.RouteDef]:
    """All routes of the protocol."""
    directory = Directory(gateway)
    producing = Producing(gateway, directory)
    return [
        *metadata.routes(gateway, directory),
        *v2.routes(gateway, producing),
        *consumers.routes(gateway, directory),
        *clusters.routes(directory),
        *v3.routes(gateway, directory, producing),
    ]
