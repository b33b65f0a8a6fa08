"""From the raw log through a worker to a webhook: each event is posted, whoever was killed."""

import json

import pytest
from exporting import SECRET
from fleet import Fleet
from machine import free_ports, wait_for
from sites import Handler, Site
from standardwebhooks import Webhook

from streamapp.topics.catalogue import RAW
from streamapp.transport import Outgoing, open_producer

EVENTS = 60


@pytest.fixture
def hook():
    """A receiver in a thread; what it took, by message."""
    taken = {}

    class Hook(Handler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            Webhook(SECRET).verify(body, dict(self.headers))
            first = taken.setdefault(self.headers["webhook-id"], body)
            self.send_response(204 if first == body else 400)
            self.end_headers()

    with Site(Hook) as server:
        server.taken = taken
        yield server


@pytest.fixture
def fleet(tmp_path, hook, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    home = tmp_path / "fleet"
    home.mkdir()
    (home / "streamapp.toml").write_text(
        "[exports.default]\n"
        f'webhook_url = "http://127.0.0.1:{hook.server_port}/in"\n'
        'secrets = ["env:HOOK_SECRET"]\nwhere = "actor = \'human\'"\n'
        'begin = "beginning"\nbatch_size = 7\ninterval_ms = 30\n'
    )
    fleet = Fleet(home, f"local://{tmp_path / 'log'}", stage_s=0.01)
    fleet.ports["export"] = free_ports(1)[0]
    yield fleet
    fleet.stop()


async def test_every_event_that_matches_is_posted(fleet, hook):
    fleet.start("worker", "export")
    producer = open_producer(fleet.broker)
    await producer.start()
    for n in range(EVENTS):
        event = {"id": f"e{n}", "message": f"text {n}", "actor": ["human", "agent"][n % 2]}
        await producer.send(RAW, [Outgoing(json.dumps(event).encode(), f"c{n % 5}".encode())])
        if n == EVENTS // 2:
            fleet.kill("worker", "export")
            fleet.start("worker", "export")
    await producer.stop()

    def posted():
        bodies = [json.loads(body) for body in list(hook.taken.values())]
        return [event for body in bodies for event in body["data"]["events"]]

    wait_for(lambda: {one["id"] for one in posted()} >= {f"e{n}" for n in range(0, EVENTS, 2)},
             "all to be posted")  # fmt: skip
    assert len({one["id"] for one in posted()}) == len(posted()) == EVENTS // 2
    assert {one["actor"] for one in posted()} == {"human"}
    assert fleet.metric("export", "streamapp_export_disabled") == 0
    assert fleet.terminate("worker", "export") == {0}
