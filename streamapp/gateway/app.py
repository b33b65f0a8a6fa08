"""The aiohttp application, put together from the gateway's parts and its protocols."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from aiohttp import web

from streamapp.core.clock import SYSTEM, Clock
from streamapp.core.metrics import Metrics
from streamapp.gateway import (
    chat,
    confluent,
    inference,
    native,
    openapi,
    operations,
    services,
    uploads,
    webhooks,
)
from streamapp.gateway.config import GatewayConfig
from streamapp.gateway.edge import EDGE, Edge
from streamapp.gateway.gateway import Gateway, build
from streamapp.gateway.life import LIFE
from streamapp.gateway.schemas import api as schemas
from streamapp.topics.catalogue import Catalogue
from streamapp.transport.clients import Admin, Members, Producer, Reader

if TYPE_CHECKING:
    from streamapp.models import Registry

#: Every module here has ``routes(gateway)``; a new protocol is a new module and a word here.
PROTOCOLS = (
    native,
    uploads,
    webhooks,
    confluent,
    schemas,
    chat,
    inference,
    services,
    operations,
    openapi,
)
GATEWAY = web.AppKey("gateway", Gateway)


def create_app(
    config: GatewayConfig,
    producer: Producer,
    catalogue: Catalogue,
    metrics: Metrics,
    *,
    admin: Admin | None = None,
    reader: Reader | None = None,
    members: Members | None = None,
    clock: Clock = SYSTEM,
    models: "Callable[[], Registry] | None" = None,
) -> web.Application:
    """The application; serve it by ``listening``: its edge and aiohttp's limits are set there.

    Args:
        config: limits and token.
        producer: started, and stopped later, by the caller.
        catalogue: which topics there are; those with an event schema take events.
        metrics: of this process, one application each.
        admin: started; lets ``/readyz`` and Confluent's clients see which topics there are.
        reader: started; for Confluent's consumers.
        members: started; for Confluent's consumers.
        clock: for tests.
        models: makes the registry of models that ``/v2`` serves, when it is first asked for one.
    """
    gateway = build(
        config,
        producer,
        catalogue,
        metrics,
        admin=admin,
        reader=reader,
        members=members,
        clock=clock,
        models=models,
    )
    app = web.Application()
    app[GATEWAY] = gateway
    app[LIFE] = gateway.life
    for protocol in PROTOCOLS:
        app.router.add_routes(protocol.routes(gateway))
    app[EDGE] = Edge(gateway, app)

    async def open_(_: web.Application) -> None:
        for begin in gateway.opening:
            await begin()

    async def close(_: web.Application) -> None:
        for end in gateway.closing:
            await end()

    app.on_startup.append(open_)
    app.on_cleanup.append(close)
    return app
