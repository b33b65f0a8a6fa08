from streamapp.core.errors import Retry
from streamapp.gateway.delivery import SILENT_S
from streamapp.transport.clients import TopicSpec


class Admin:
    """Answers with topics, or fails."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.asked = 0
        self.failure: Exception | None = None

    async def topics(self):
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return {name: TopicSpec(name, 4, 1 << 20) for name in self.names}


async def test_a_serving_gateway_is_alive_and_ready(start):
    gate = await start(admin=Admin("events.raw"))
    assert await gate.get("/healthz") == (200, {"status": "ok"})
    status, answer = await gate.get("/readyz")
    assert (status, answer["ready"]) == (200, True)
    assert set(answer["checks"].values()) == {"ok"}


async def test_not_ready_while_a_topic_is_missing(start):
    gate = await start(admin=Admin("other"))
    status, answer = await gate.get("/readyz")
    assert (status, answer["ready"]) == (503, False)
    assert answer["checks"]["topics"] == "events.raw missing: run `streamapp topics apply`"


async def test_not_ready_while_the_log_is_silent_and_it_is_asked_seldom(start):
    admin = Admin("events.raw")
    admin.failure = Retry("log.silent", "the log does not answer", "start it")
    gate = await start(admin=admin)
    for _ in range(5):
        status, answer = await gate.get("/readyz")
        assert (status, answer["checks"]["topics"]) == (503, "log.silent")
    assert admin.asked < 5


async def test_not_ready_after_the_log_failed_an_event_until_it_takes_one(gate):
    gate.producer.failures.append(Retry("log.silent", "the log does not answer"))
    await gate.post("/ingest", {"message": "x"})
    status, answer = await gate.get("/readyz")
    assert (status, answer["checks"]["log"]) == (503, "log.silent")
    assert (await gate.get("/healthz"))[0] == 200
    await gate.post("/ingest", {"message": "x"})
    assert (await gate.get("/readyz"))[0] == 200


async def test_an_old_failure_does_not_keep_traffic_away_for_ever(gate):
    gate.producer.failures.append(Retry("log.silent", "the log does not answer"))
    await gate.post("/ingest", {"message": "x"})
    delivery = gate.gateway.delivery
    failed_s, why = delivery._failed
    delivery._failed = failed_s - SILENT_S - 1, why
    assert (await gate.get("/readyz"))[0] == 200


async def test_draining_is_not_ready_but_alive_and_takes_nothing_new(gate):
    gate.gateway.life.stop()
    status, answer = await gate.get("/readyz")
    assert (status, answer["checks"]["serving"]) == (503, "draining")
    assert (await gate.get("/healthz"))[0] == 200
    async with gate.http.post(gate.url + "/ingest", json={"message": "x"}) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert answer.headers["Connection"] == "close"
        assert (await answer.json(content_type=None))["code"] == "gateway.draining"
    assert gate.producer.records == []
