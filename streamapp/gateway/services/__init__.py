"""The services and the project's workflows over HTTP.

``POST /v1/services/{service}/{operation}`` runs one operation on the rows of its body;
``/v1/workflows/{name}/runs`` starts, shows and cancels runs of the files in ``workflows/``.
"""

from aiohttp import web

from streamapp.gateway.body import defer_continue
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.services.calls import Calls
from streamapp.gateway.services.workflows import Workflows

SERVICES = "/v1/services"
RUNS = "/v1/workflows/{workflow}/runs"
RUN = f"{RUNS}/{{run}}"


def routes(gateway: Gateway) -> list[web.RouteDef]:
    """All of them; nothing is loaded before the first request."""
    calls, workflows = Calls(gateway), Workflows(gateway)
    gateway.opening.append(workflows.open)
    gateway.closing.extend((calls.close, workflows.close))
    return [
        web.get(SERVICES, calls.index),
        web.post(
            f"{SERVICES}/{{service}}/{{operation}}", calls.call, expect_handler=defer_continue
        ),
        web.get("/v1/workflows", workflows.index),
        web.post(RUNS, workflows.start, expect_handler=defer_continue),
        web.get(RUNS, workflows.runs),
        web.get(RUN, workflows.run),
        web.delete(RUN, workflows.cancel),
        web.get(f"{RUN}/outputs/{{output}}", workflows.output),
    ]
