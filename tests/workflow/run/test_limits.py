"""Memory, in real runs: what a stage took decides when it starts, and limits have names."""

from streamapp.workflow.run.events import PartEnded, PartStarted, Waiting


def two(project, note, **config):
    """Two stages beside each other, of about 240 MB each."""
    config = {"mb": 200, "note": note, **config}
    return project.graph(
        {"name": "a", "operation": "holds", "config": config, "inputs": "rows"},
        {"name": "b", "operation": "holds", "config": config, "inputs": "rows"},
    )


def order(project):
    """The stages' starts and ends, in order."""
    kinds = {PartStarted: "starts", PartEnded: "ends"}
    return [
        kinds[type(event)] for event in project.events
        if type(event) in kinds and event.kind == "stage"
    ]  # fmt: skip


def test_what_asks_for_far_too_much_at_once_gets_none_of_it(project):
    report = project.run(project.graph({"operation": "grabs", "config": {"gb": 5}}), memory_mb=256)
    assert (report.state, report.error.code) == ("failed", "workflow.memory")
    assert "ran out of memory" in report.error.message


def test_stages_start_when_what_they_took_the_last_time_is_free(project):
    report = project.run(two(project, "first"), cpus=2, memory_mb=2_000)
    assert report.state == "done", report.error
    assert order(project) == ["starts", "starts", "ends", "ends"]
    assert all(200 < report.part(name).memory_mb < 300 for name in "ab")
    # Unmeasured they would be thought to go into this together, too.
    report = project.run(two(project, "second"), cpus=2, memory_mb=400)
    assert report.state == "done", report.error
    assert order(project) == ["starts", "ends", "starts", "ends"]


def test_one_that_holds_more_than_was_thought_gives_way_to_the_others(project):
    report = project.run(two(project, "", crowded=True), cpus=2, memory_mb=400)
    assert report.state == "done", report.error
    assert order(project) == ["starts", "starts", "ends", "ends"]
    waits = [event for event in project.events if isinstance(event, Waiting)]
    assert waits
    assert all("others hold the rest" in wait.error for wait in waits)
    assert {report.part(name).attempts for name in "ab"} == {1}
