"""Confluent REST on Apache Kafka: what the embedded log cannot show."""

import json
from uuid import uuid4

import pytest

from streamapp.transport import TopicSpec

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def rest(serve_rest, kafka):
    return await serve_rest(kafka.url)


@pytest.fixture
async def topic(rest):
    name = f"rest-{uuid4().hex[:8]}"
    await rest.admin.create(TopicSpec(name, 2, 10_000))
    return name


async def test_produce_and_metadata(rest, topic):
    sent = [{"value": n, "partition": n % 2} for n in range(4)]
    sent += [{"value": "x" * 20_000, "partition": 0}, {"value": None, "key": "k", "partition": 2}]
    status, answer = await rest.v2(f"/topics/{topic}", sent)
    assert (status, rest.last["X-Streamapp-Partial"]) == (200, "2")
    assert [(o["partition"], o["offset"], o["error_code"]) for o in answer["offsets"]] == [
        (0, 0, None), (1, 0, None), (0, 1, None), (1, 1, None), (None, None, 50002),
        (None, None, 40402),
    ]  # fmt: skip
    status, answer = await rest.v2(f"/topics/{topic}/partitions/1", [{"value": None, "key": "k"}])
    assert (status, answer["offsets"][0]["offset"]) == (200, 2)
    assert (await rest.records(topic, 1))[2].value is None
    assert (await rest.v2("/topics/nowhere-at-all", [{"value": 1}]))[1]["error_code"] == 40401
    _, brokers = await rest.call("GET", "/brokers")
    _, partitions = await rest.call("GET", f"/topics/{topic}/partitions")
    (broker,) = brokers["brokers"]
    replicas = [{"broker": broker, "leader": True, "in_sync": True}]
    assert partitions == [{"partition": p, "leader": broker, "replicas": replicas} for p in (0, 1)]
    _, offsets = await rest.call("GET", f"/topics/{topic}/partitions/1/offsets")
    assert offsets == {"beginning_offset": 0, "end_offset": 3}


async def test_v3_says_kafkas_own_cluster_id(rest, topic):
    _, clusters = await rest.call("GET", "/v3/clusters")
    cluster = clusters["data"][0]["cluster_id"]
    assert len(cluster) == 22
    body = (
        b'{"value":{"type":"JSON","data":1},"partition_id":1}{"value":{"type":"STRING","data":2}}'
    )
    path = f"{rest.url}/v3/clusters/{cluster}/topics/{topic}/records"
    async with rest.http.post(path, data=body, headers={"Content-Type": "application/json"}) as got:
        first, second = [json.loads(line) for line in (await got.text()).splitlines()]
    assert (first["cluster_id"], first["partition_id"], first["offset"]) == (cluster, 1, 0)
    (record,) = await rest.records(topic, 1)
    assert first["timestamp"].startswith("20")
    assert record.value == b"1"
    assert second["error_code"] == 400
    _, topics = await rest.call("GET", f"/v3/clusters/{cluster}/topics/{topic}")
    assert (topics["partitions_count"], topics["replication_factor"]) == (2, 1)
