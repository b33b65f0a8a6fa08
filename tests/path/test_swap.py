"""A model is swapped under load: no event lost, none twice, and provenance changes at one offset.

The worker's own agent on a log in memory; the long form is `streamapp up` with real processes and
`streamapp models promote` from another.
"""

import asyncio
import json
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
from enrich_worker import Event, Worker
from model_versions import NAME, Versions, vector

from streamapp.core.config import load
from streamapp.topics.catalogue import ENRICHED
from streamapp.topics.enriched import decode

WORKFLOW = """
[workflow]
stages = ["embed", "intent"]
[stages.intent.labels]
first = "a"
second = "b"
"""


@pytest.fixture
def versions(tmp_path):
    return Versions(tmp_path / "shelf").add(1).add(2).promote(1)


def topics_folder(tmp_path):
    """The declared topics as installed, with a workflow of two stages that use one model."""
    import shutil

    from streamapp.topics import catalogue

    folder = tmp_path / "topics"
    shutil.copytree(catalogue.defaults("topics"), folder)
    (folder / "workflow.toml").write_text(WORKFLOW)
    return folder


def plan_of(tmp_path, versions):
    from streamapp import compose

    given = {
        "home": tmp_path,
        "topics_dir": topics_folder(tmp_path),
        "models_dir": versions.models_dir,
        "models_cache": versions.cache,
    }
    return compose.plan(load(given, environ={}, folder=tmp_path)[0])


def used(provenance):
    """The version of the model in each stage that has one."""
    stages = json.loads(provenance)
    return {int(re.search(r"@(\d+)\+", ref)[1]) for stage in stages for ref in stage["models"]}


def check(records):
    """Every record is of one version, and its vectors are that version's; versions by offset."""
    by_offset = {}
    for record in records:
        [version] = used(record.provenance)
        vectors = record.rows.column("embedding").flatten().to_numpy().reshape(-1, 8)
        for row in vectors:
            np.testing.assert_allclose(row, vector(version, "m"), atol=1e-5)
        for offset in record.rows.column("source_offset").to_pylist():
            assert offset not in by_offset
            by_offset[offset] = version
    return by_offset


async def test_a_swap_under_load_is_at_one_offset(tmp_path, versions):
    plan = plan_of(tmp_path, versions)
    plan._models._look_s = 0.0  # it is looked at before every batch
    at, size = 0, 5
    async with Worker(plan) as worker:
        while not done(worker) and at < 20_000:
            if at == 10 * size:
                promoting = threading.Thread(target=versions.promote, args=(2,))
                promoting.start()
            offsets = list(range(at, at + size))
            await worker.finished(Event(at, offsets))
            at += size
        promoting.join()
        covers = worker.log.covers()
        records = [decode(record) for record in worker.log.records[ENRICHED]]
    assert [(cover.first, cover.next) for cover in covers] == [
        (first, first + size) for first in range(0, at, size)
    ]
    by_offset = check(records)
    assert sorted(by_offset) == list(range(at))  # none lost, none twice
    order = [by_offset[offset] for offset in range(at)]
    assert order == sorted(order)
    swapped = order.index(2)
    assert swapped > 10 * size
    assert swapped in {cover.first for cover in covers}


def done(worker):
    records = worker.log.records[ENRICHED]
    return len(records) > 12 and used(decode(records[-3]).provenance) == {2}


async def test_a_model_that_cannot_take_over_costs_no_event(tmp_path, versions):
    plan = plan_of(tmp_path, versions)
    plan._models._look_s = 0.0
    (versions.cache / "models" / NAME / "2" / "model.onnx").write_bytes(b"damaged")
    async with Worker(plan) as worker:
        for first in range(0, 100, 5):
            if first == 50:
                versions.promote(2)
            await worker.finished(Event(first, list(range(first, first + 5))))
            for _, opened in list(plan._models._opening.values()):
                await asyncio.wait([asyncio.wrap_future(opened)])
        records = [decode(record) for record in worker.log.records[ENRICHED]]
    assert set(check(records).values()) == {1}
    assert sum(len(record.rows) for record in records) == 100


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_machine_under_load_goes_over_at_one_offset_of_each_partition(
    tmp_path, versions, machines
):
    """Real processes, and the promotion from another."""
    machine = machines(
        models_dir=versions.models_dir,
        models_cache=versions.cache,
        topics_dir=topics_folder(tmp_path),
    ).start()
    for number in range(3000):
        if number == 1000:
            promote = ["models", "promote", f"{NAME}@2", "--alias", "champion"]
            command = [sys.executable, "-m", "streamapp.cli", *promote]
            subprocess.run(command, env=machine.env, check=True, timeout=60)
        conversation = f"c{number % 7}"
        event = {"id": f"e{number}", "message": "m", "conversation_id": conversation}
        machine.post_until_taken(event)
    machine.wait_rows(3000)
    rows = machine.rows(
        "select e.source_partition as p, e.source_offset as o, e.id, e.embedding, v.detail "
        "from events e join provenance v on e.provenance = v.id order by 1, 2"
    )
    assert len({row["id"] for row in rows}) == len(rows) == 3000
    order = {}
    for row in rows:
        [version] = used(row["detail"])
        np.testing.assert_allclose(row["embedding"], vector(version, "m"), atol=1e-5)
        order.setdefault(row["p"], []).append(version)
    assert all(seen == sorted(seen) for seen in order.values())
    assert {seen[-1] for seen in order.values()} == {2}
    assert machine.stop() == 0
