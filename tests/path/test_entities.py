"""Entities on the path of an event: from the log through GLiNER to SQL, fields and provenance."""

import json
import shutil

import pytest
from gliners import FOLDER, golden, manifest
from shelves import Shelf
from sinks import DuckSink, ParquetSink

from streamapp import compose
from streamapp.agents.publish import Standpoint, enriched_records
from streamapp.agents.twin import json_twin
from streamapp.core.config import load
from streamapp.core.errors import Refuse
from streamapp.sink import StoredRecord
from streamapp.topics import catalogue
from streamapp.topics.catalogue import ENRICHED, RAW
from streamapp.topics.enriched import decode
from streamapp.topics.wire import decode_slice
from streamapp.transport import Outgoing, open_producer, open_reader
from streamapp.workflow import PartitionState

CASE = next(
    case
    for case in golden("span")
    if case["flat_ner"] and not case["multi_label"] and "CNPJ" in case["labels"]
    and len(case["entities"]) > 5 and case["text"].isascii()
)  # fmt: skip


@pytest.fixture
def settings(tmp_path):
    shelf = Shelf(tmp_path)
    files = ("model.onnx", "tokenizer.json", "gliner_config.json")
    shelf.registry(shelf.put(manifest("span"), FOLDER / "span", *files))
    folder = tmp_path / "topics"
    shutil.copytree(catalogue.defaults("topics"), folder)
    labels = ", ".join(f'"{label}"' for label in CASE["labels"])
    (folder / "workflow.toml").write_text(
        '[workflow]\nstages = ["entities"]\n[stages.entities]\nmodel = "entities/tiny"\n'
        f"labels = [{labels}]\nthreshold = {CASE['threshold']}\n"
        '[stages.entities.types.invoice.fields]\nid = "CNPJ"\n'
    )
    given = {
        "home": tmp_path,
        "topics_dir": folder,
        "models_dir": shelf.models_dir,
        "models_cache": shelf.cache,
    }
    return load(given, environ={}, folder=tmp_path)[0]


def record(text, name, kind):
    headers = [("ce_id", name), ("ce_source", b"/ingest"), ("ce_type", kind)]
    return Outgoing(json.dumps({"message": text}).encode(), key=b"c", headers=headers)


async def enriched(settings):
    """Two events through log, plan and enriched topic: the records, and their rows as JSON."""
    await compose.ensure_topics(settings)
    producer, reader = open_producer(settings.broker_url), open_reader(settings.broker_url)
    await producer.start()
    await reader.start()
    events = [record(CASE["text"], b"e1", b"note"), record(CASE["text"], b"e2", b"invoice")]
    [address, _] = await producer.send(RAW, events)
    plan = compose.plan(settings)
    plan.open()
    slice_ = await reader.read(RAW, address.partition, 0)
    raw = {one.offset: one for one in slice_.records}
    batch = decode_slice(slice_, event_bytes_max=settings.event_bytes_max)
    rows, changes = plan.run(batch, PartitionState(settings.conversations_max), raw)
    standpoint = Standpoint(None, plan.provenance())
    records, rejects = enriched_records(rows, changes, standpoint, raw, 8 << 20)
    assert rejects == []
    [at] = await producer.send(ENRICHED, records)
    found = (await reader.read(ENRICHED, at.partition, at.offset)).records
    columns = {field.name: field.type for field in plan.columns()}
    plan.close()
    await reader.stop()
    await producer.stop()
    stored = [StoredRecord(decode(one), ENRICHED, at.partition, one.offset + 1) for one in found]
    return stored, columns, [json.loads(one.value) for one in json_twin(rows, 1 << 20)]


@pytest.mark.parametrize(
    "sink", [DuckSink, lambda folder: ParquetSink(str(folder / "p"))], ids=["duckdb", "parquet"]
)
async def test_entities_from_the_log_to_sql(settings, tmp_path, sink):
    records, columns, twin = await enriched(settings)
    expected = [(e["start"], e["end"], e["text"], e["label"]) for e in CASE["entities"]]
    with sink(tmp_path).open(columns=columns) as store:
        store.write(records)
        with store.reader() as reader:
            found = reader.execute(
                "select e.start, e.end, e.text, e.label from "
                "(select unnest(entities) as e from events where id = 'e1') order by e.start"
            ).fetchall()
            fields = reader.execute("select id, fields->>'id' from events order by id").fetchall()
            [[detail]] = reader.execute("select detail from provenance").fetchall()
    assert found == expected
    numbers = [e for e in twin[1]["entities"] if e["label"] == "CNPJ"]
    best = max(numbers, key=lambda e: e["score"])["text"] if numbers else None
    assert fields == [("e1", None), ("e2", best)]
    [said] = json.loads(detail) if isinstance(detail, str) else detail
    assert said["stage"] == "entities"
    assert said["models"][0].startswith("entities/tiny@1+")
    assert [e["text"] for e in twin[0]["entities"]] == [text for _, _, text, _ in expected]


def test_a_model_that_is_not_here_is_missing(settings, tmp_path):
    assert compose.missing_models(settings) == []
    shutil.rmtree(tmp_path / "cache")
    assert compose.missing_models(settings) == ["entities/tiny@1"]
    with pytest.raises(Refuse, match="streamapp models pull entities/tiny") as refused:
        compose.plan(settings).open()
    assert refused.value.code == "models.not_pulled"
