"""``POST /api/config`` of a gateway changes where an exporter of another process posts."""

import aiohttp
from exporting import export_of

from streamapp.core.metrics import Metrics
from streamapp.gateway import GatewayConfig, create_app
from streamapp.gateway.listen import listening
from streamapp.topics import catalogue


async def test_a_client_points_the_default_export_elsewhere(source, receiver, exporting, log):
    export = export_of(receiver, webhook_url="", allow=(receiver.url,))
    exporter = await exporting(export)
    sent = await source.send("a", "b")
    config = GatewayConfig(port=0, export=export)
    app = create_app(
        config, log.producer, catalogue.load(), Metrics(), admin=log.admin, reader=log.reader
    )
    async with listening(app, config) as (_, url), aiohttp.ClientSession() as http:
        refused = {"webhook_url": "http://169.254.169.254/"}
        async with http.post(f"{url}/api/config", json=refused) as answer:
            assert (answer.status, (await answer.json())["code"]) == (403, "export.url_not_allowed")
        assert exporter.states == {"default": "off"}
        wanted = {"webhook_url": f"{receiver.url}/new", "batch_size": 1}
        async with http.post(f"{url}/api/config", json=wanted) as answer:
            assert answer.status == 200, await answer.text()
        await receiver.until(lambda: receiver.ids() == sent)
        before = len(receiver.paths)
        sent += await source.send("c", "d")
        await receiver.until(lambda: receiver.ids() == sent)
        assert len(receiver.paths) == before + 2  # one event each
        assert set(receiver.paths) == {"/hook/new"}
