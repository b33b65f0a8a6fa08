"""The store and the ring are views: a home made anew starts both anew, and a lost view is built again."""

import shutil

import pytest

pytestmark = pytest.mark.models


def test_a_ring_that_outlived_its_log_is_started_anew(machines):
    first = machines("home").start()
    for number in range(5):
        first.post({"message": f"old {number}", "conversation_id": "c"})
    first.wait_rows(5)
    first.wait_for(lambda: len(first.frames()[0]) == 5, "old frames")
    ring = first.ring
    first.stop(keep_ring=True)
    shutil.rmtree(first.home)

    second = machines("home", ring_path=ring)
    second.ring = ring
    second.start()
    taken = [second.post({"message": f"new {n}", "conversation_id": "c"}) for n in range(7)]
    second.wait_rows(7)
    second.wait_for(lambda: len(second.frames()[0]) == 7, "new frames, and only those")
    assert sorted(second.frames()[0]) == sorted((a["partition"], a["offset"]) for a in taken)
    assert "holds the frames of another log" in second.output()


def test_a_store_and_a_ring_that_were_removed_are_built_again(machines):
    machine = machines("home").start()
    for number in range(5):
        machine.post({"message": f"message {number}"})
    machine.wait_rows(5)
    machine.stop()
    (machine.home / "store.duckdb").unlink()
    machine.start()
    machine.wait_rows(5)
    machine.wait_for(lambda: len(machine.frames()[0]) == 5, "all frames again")
