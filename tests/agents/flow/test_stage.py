"""A stage on a topic is tried, timed, left out and forgiven as its file says, like in a batch."""

import pyarrow as pa
import pytest
from demo_operations import Pairs, Words
from flow_bench import Bench, graph

from streamapp.agents.flow import stage as staging
from streamapp.agents.flow.stage import Stage
from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.plugin import Cancelled
from streamapp.plugin.calling import CallWork, TableSources
from streamapp.workflow.graph.load import graph_of
from streamapp.workflow.run.binding import bind

ROWS = [{"n": n, "text": "a b"} for n in range(3)]
TABLE = pa.Table.from_pylist(ROWS)
OUT = {"all": {"source": "s", "format": "json"}}


def made(tmp_path, operation="words", **keys):
    """A stage of the demo's, opened."""
    step = {"name": "s", "service": "demo", "operation": operation, **keys}
    binding = bind(graph(tmp_path, [step], OUT, ROWS))
    stage = Stage(binding, "s", lambda: CallWork(TableSources({}), lambda: None, tmp_path))
    stage.open()
    return stage


def run(stage, table=TABLE, *, is_end=False, ours=lambda: True):
    return stage.run(table, is_end, ours).to_pylist()


@pytest.fixture
def failing(monkeypatch):
    """``failing(error, 2)``: the next two calls of ``demo.words`` end in the error."""
    calls = []

    def fail(error, times, kind=Words, method="run"):
        works = getattr(kind, method)

        def call(operation, given):
            calls.append(given)
            if len(calls) <= times:
                raise error
            return works(operation, given)

        monkeypatch.setattr(kind, method, call)
        return calls

    return fail


def test_a_stage_is_tried_again_as_often_as_its_retry_says(tmp_path, failing):
    calls = failing(Retry("data.read", "nobody answers"), 2)
    stage = made(tmp_path, retry={"max": 2, "delay_s": 0})
    assert [row["words"] for row in run(stage)] == [2, 2, 2]
    assert (len(calls), stage.asides) == (3, [])


@pytest.mark.parametrize(
    ("retry", "error", "tries"),
    [
        ({"max": 1, "delay_s": 0}, Retry("data.read", "nobody answers"), 2),
        ({"max": 3, "delay_s": 0, "on": ["source"]}, Retry("data.read", "nobody answers"), 1),
        ({"max": 3, "delay_s": 0}, Refuse("operation.rows", "no row"), 1),
        (None, Refuse("operation.rows", "no row"), 1),
        (None, ZeroDivisionError("no row"), 1),
        (None, Retry("interop.crashed", "no row"), 1),
    ],
)
def test_a_failure_for_good_ends_the_run_and_is_named(tmp_path, failing, retry, error, tries):
    calls = failing(error, 9)
    stage = made(tmp_path, **({"retry": retry} if retry else {}))
    with pytest.raises(Refuse, match=r"stage 's': .*(nobody answers|no row)"):
        run(stage)
    assert len(calls) == tries


def test_without_retry_a_stream_waits_for_the_outside(tmp_path, failing):
    failing(Retry("data.read", "nobody answers"), 1)
    stage = made(tmp_path)
    with pytest.raises(Retry, match="nobody answers"):  # its agent tries again and again
        run(stage)
    assert len(run(stage)) == 3


@pytest.mark.parametrize("on_failure", ["skip", "continue"])
def test_what_a_failure_may_cost_is_set_aside_and_the_rest_goes_on(tmp_path, failing, on_failure):
    failing(Retry("data.read", "nobody answers"), 1)
    stage = made(tmp_path, on_failure=on_failure)
    assert run(stage) == []
    ((name, reason, rows),) = stage.asides
    assert (name, reason, rows.to_pylist()) == ("s", "data.read: nobody answers", ROWS)
    assert len(run(stage)) == 3


@pytest.mark.parametrize(("most", "aside"), [(64, [3]), (1, [2, 3])])
def test_rows_that_a_stage_fails_on_are_looked_for_a_while(tmp_path, monkeypatch, most, aside):
    def call(operation, given):
        if 3 in next(iter(given.values()))["n"].to_pylist():
            raise Refuse("operation.rows", "odd")
        return works(operation, given)

    works = Words.run
    monkeypatch.setattr(Words, "run", call)
    monkeypatch.setattr(staging, "HALVINGS_MAX", most)
    stage = made(tmp_path, on_failure="skip")
    for _ in range(2):  # each run looks anew
        found = run(stage, pa.Table.from_pylist([{"n": n, "text": "a"} for n in range(4)]))
        assert [row["n"] for row in found] == [n for n in range(4) if n not in aside]
        assert [row["n"] for each in stage.asides for row in each.rows.to_pylist()] == aside
        stage.asides.clear()


def test_windows_stand_where_they_stood_before_a_try(tmp_path, monkeypatch):
    def feed(operation, rows):
        found = works(operation, rows)
        if rows["n"].to_pylist() == bad:
            bad.clear()
            raise Refuse("operation.rows", "too late")
        return found

    works, bad = Pairs.feed, [5]
    monkeypatch.setattr(Pairs, "feed", feed)
    stage = made(tmp_path, "pairs", config={"size": 2}, retry={"delay_s": 0, "on": ["operation"]})
    assert run(stage, pa.table({"n": [1]})) == []
    assert run(stage, pa.table({"n": [5]})) == [{"sum": 6, "rows": 2}]
    stage = made(tmp_path, "pairs", config={"size": 9}, on_failure="skip")
    run(stage, pa.table({"n": [1]}))
    bad.append(5)
    assert run(stage, pa.table({"n": [5]}), is_end=True) == [{"sum": 1, "rows": 1}]


def test_a_try_that_takes_too_long_fails_and_the_next_has_an_operation_of_its_own(tmp_path):
    stage = made(tmp_path, "endless", timeout_s=0.02, on_failure="skip")
    assert run(stage) == []
    assert [aside.reason for aside in stage.asides] == [
        "workflow.timeout: it was not done within 0.02 s"
    ]
    assert run(stage) == []  # told to stop once, and not for ever
    assert len(stage.asides) == 2


def test_calls_that_never_end_are_left_behind_up_to_a_number(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "STOP_S_MAX", 0.001)
    monkeypatch.setattr(staging, "LEFT_BEHIND_MAX", 1)
    going = []

    def hang(operation, given):
        going.append(1)
        while going:
            pass

    monkeypatch.setattr(Words, "run", hang)
    stage = made(tmp_path, timeout_s=0.001, retry={"max": 1, "delay_s": 0}, on_failure="skip")
    try:
        assert run(stage) == []
        with pytest.raises(Halt, match="2 calls of stage 's' still hang"):
            run(stage)
    finally:
        going.clear()


def test_a_wait_ends_when_the_partition_is_anothers(tmp_path, failing):
    failing(Retry("data.read", "nobody answers"), 9)
    stage = made(tmp_path, retry={"max": 5, "delay_s": 60})
    asked = iter([True, False])
    with pytest.raises(Cancelled):
        run(stage, ours=lambda: next(asked))


@pytest.mark.parametrize(("least", "rows"), [(0, 0), (1, 3)])
def test_when_is_decided_once_by_parameters(tmp_path, least, rows):
    (tmp_path / "rows.jsonl").write_text('{"n": 1, "text": "a"}\n')
    step = {"name": "s", "service": "demo", "operation": "words", "when": "params.least > 0"}
    document = {
        "name": "t", "params": {"least": least}, "stages": [step], "outputs": OUT,
        "inputs": {"rows": {"path": "rows.jsonl"}},
    }  # fmt: skip
    binding = bind(graph_of(document, tmp_path))
    stage = Stage(binding, "s", lambda: CallWork(TableSources({}), lambda: None, tmp_path))
    stage.open()
    assert len(run(stage, is_end=True)) == rows


def test_foreach_makes_a_call_for_each_value_with_its_columns(tmp_path):
    config = {"least": "${least}"}
    stage = made(tmp_path, config=config, foreach={"least": [0, 2, 3]})
    assert [(row["n"], row["least"]) for row in run(stage)] == [
        (n, least) for least in (0, 2) for n in range(3)
    ]
    summed = made(tmp_path, "pairs", config={"size": "${size}"}, foreach={"size": [1, 2]})
    run(summed, pa.table({"n": [7]}))
    again = made(tmp_path, "pairs", config={"size": "${size}"}, foreach={"size": [1, 2]})
    again.restore(summed.state())
    assert run(again, pa.table({"n": [8]})) == [
        {"sum": 8, "rows": 1, "size": 1},
        {"sum": 15, "rows": 2, "size": 2},
    ]


def test_secrets_are_in_no_error_and_no_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "/home/x/secret.csv")
    stage = made(tmp_path, "fails", config={"how": "${env:PLACE}"}, on_failure="skip")
    run(stage)
    assert {aside.reason for aside in stage.asides} == {"data.read: *** cannot be read"}


async def test_an_agent_sets_aside_what_a_stage_fails_on(tmp_path, failing):
    calls = failing(Retry("data.read", "nobody answers"), 1)
    step = {"name": "s", "service": "demo", "operation": "words", "on_failure": "continue"}
    bench = Bench(graph(tmp_path, [step], OUT, ROWS))
    await bench.feed()
    await bench.work("after-rows")
    rows, asides, _ = await bench.rows("all", tmp_path)
    assert rows == []
    assert asides == [("s", "data.read: nobody answers", ROWS)]
    assert len(calls) == 1
