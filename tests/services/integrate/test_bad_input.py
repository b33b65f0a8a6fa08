"""What is wrong says what, where and what to do; what does not fit is set aside."""

import asyncio
from threading import Barrier

import pyarrow as pa
import pytest
from table_work import TableSource, TableWork, made, result

from streamapp import services
from streamapp.core.errors import Refuse, Retry
from streamapp.services.integrate.match import Match
from streamapp.services.integrate.operation import Integrate

A = pa.table({"id": ["1"], "n": [1]})
B = pa.table({"id": ["1"], "n": ["x"], "day": ["2026-13-01"]})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"key_fields": ["idd"]}, ["key_fields: 'a' has no 'idd'", "it has id, n"]),
        ({"key_fields": ["id"]}, ["'n' is string in 'b' and int64 in 'a'", "config.mapping.b.n"]),
        ({}, ["nothing says which records are of one thing"]),
        ({"primary_source": "c"}, ["config.primary_source: there is no source 'c'", "a, b"]),
        ({"mapping": {"c": {}}}, ["config.mapping: there is no source 'c'"]),
        ({"mapping": {"b": {"m": "n"}}}, ["config.mapping.b", "'b' has no 'm' column"]),
        ({"mapping": {"b": {"day": "n"}}}, ["'b' gives two columns the name 'n'"]),
        ({"mapping": {"b": {"day": "_row"}}}, ["'_row'", "this service's own"]),
        ({"mapping": {"b": {"n": {"name": "n", "type": "int65"}}}}, ["'int65' is no type"]),
        ({"secondary_sources": ["a"]}, ["'a' is an input of the stage already"]),
        ({"secondary_sources": ["z"]}, ["no source is called 'z'"]),
        ({"source_order": ["z"]}, ["config.source_order: there is no source 'z'"]),
        ({"timestamp_field": "at"}, ["config.timestamp_field: no source has 'at'"]),
        ({"conflicts": {"m": "sum"}}, ["config.conflicts: no source has 'm'"]),
        ({"conflicts": {"id": "max"}}, ["'id' is a key"]),
        ({"mode": "union", "conflicts": {"n": "sum"}}, ["a union keeps every record"]),
    ],
)
def test_a_config_that_does_not_fit(config, words):
    known = {"key_fields": ["id"], "mapping": {"b": {"n": None}}}
    mended = config if "key_fields" in config or not config else known | config
    work = TableWork(sources={"a": A})
    with pytest.raises(Refuse) as refused:
        made(Integrate, mended, work, a=A, b=B if config else B.drop_columns("n"))
    for word in words:
        assert word in str(refused.value)


def test_one_source_alone_is_not_joined():
    with pytest.raises(Refuse, match="only one source"):
        made(Integrate, {"mode": "intersection", "key_fields": ["id"]}, a=A)
    assert result(Integrate, {"key_fields": ["id"]}, a=pa.concat_tables([A, A])).equals(A)


def test_a_value_that_does_not_fit_sets_its_row_aside():
    work = TableWork()
    b = pa.table({"id": ["1", "2", "3"], "n": ["7", "x", None]})
    mapping = {"b": {"n": {"name": "n", "type": "int64"}}}
    config = {"key_fields": ["id"], "mapping": mapping, "conflict_strategy": "prefer_secondary"}
    found = result(Integrate, config, work, a=A, b=b)
    assert found.to_pylist() == [{"id": "1", "n": 7}, {"id": "3", "n": None}]
    [(row, reason)] = work.bad_rows
    assert row == {"id": "2", "n": "x"}
    assert "'b'" in reason
    assert "config.mapping.b" in reason


def test_texts_become_dates():
    b = pa.table({"id": ["1"], "day": ["31.12.2025"]})
    mapping = {"b": {"day": {"name": "day", "type": "date32", "format": "%d.%m.%Y"}}}
    found = result(Integrate, {"key_fields": ["id"], "mapping": mapping}, a=A, b=b)
    assert str(found.column("day").to_pylist()) == "[datetime.date(2025, 12, 31)]"


def test_it_ends_in_time():
    slow = TableWork()
    slow.advance = lambda rows: asyncio.run(asyncio.sleep(0.01))
    config = {"key_fields": ["id"], "timeout_ms": 1}
    with pytest.raises(Refuse, match=r"config.timeout_ms \(1\)"):
        result(Integrate, config, slow, a=A, b=A)


async def test_the_service_says_what_is_not_registered_and_what_was_set_aside():
    service = services.create_data_integration_service()
    await service.register_source("a", A)
    config = services.IntegrationConfig(
        primary_source="a", secondary_sources=["b"], key_fields=["id"],
        options={"conflicts": {"n": "quarantine"}},
    )  # fmt: skip
    with pytest.raises(Refuse, match="no source 'b' is registered"):
        await service.integrate(config)
    await service.register_source("b", [{"id": "1", "n": 2}])
    with pytest.raises(Refuse, match=r"rows are set aside \(2\): records of one thing disagree"):
        await service.integrate(config)
    aside = []
    assert (await service.integrate(config, aside)).num_rows == 0
    assert [rows.num_rows for rows, _ in aside] == [2]


class Waiting(TableSource):
    """A source that is read only when another one is, too."""

    both = Barrier(2, timeout=10)

    def read(self):
        self.both.wait()
        return super().read()


class Dying(TableSource):
    def read(self):
        def batches():
            yield from self.table.to_batches()
            raise Retry("source.away", f"{self.name} went away", "try again")

        return pa.RecordBatchReader.from_batches(self.table.schema, batches())


@pytest.mark.parametrize("kind", [Integrate, Match])
def test_declared_sources_are_read_at_once_and_stay_in_order(kind):
    config = {"secondary_sources": ["b", "c"], "key_fields": ["id"]}
    work = TableWork(threads=2)
    work.sources = {name: Waiting(name, pa.table({"id": [name]})) for name in "bc"}
    found = result(kind, config, work, a=pa.table({"id": ["a"]}))
    assert found["id"].to_pylist() == ["a", "b", "c"]


def test_a_declared_source_that_dies_while_it_is_read():
    work = TableWork(threads=2)
    work.sources = {"b": TableSource("b", A), "c": Dying("c", A)}
    config = {"secondary_sources": ["b", "c"], "key_fields": ["id"]}
    with pytest.raises(Retry, match="c went away"):
        result(Integrate, config, work, a=A)


def test_a_time_that_its_unit_cannot_hold_sets_its_row_aside():
    work = TableWork()
    texts = ["1500-01-01 00:00:00", "2024-01-01 00:00:00.000000001", "2300-01-01 00:00:00"]
    b = pa.table({"id": ["1", "2", "3"], "at": texts})
    mapping = {"b": {"at": {"name": "at", "type": "timestamp[ns]"}}}
    found = result(Integrate, {"key_fields": ["id"], "mapping": mapping}, work, a=A, b=b)
    at = {str(row["id"]): row["at"] for row in found.select(["id", "at"]).to_pylist()}
    assert [row["id"] for row, _ in work.bad_rows] == ["1", "3"]
    assert at["1"] is None
    assert at["2"].value == 1_704_067_200_000_000_001
