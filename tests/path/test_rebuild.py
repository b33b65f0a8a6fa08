"""The store and the ring are views: a lost view is built again, and a home made anew starts both anew."""

import shutil

import pytest

pytestmark = pytest.mark.models


def test_lost_views_are_built_again_and_those_of_another_log_are_not_kept(machines):
    first = machines("home").start()
    for number in range(5):
        first.post({"message": f"old {number}", "conversation_id": "c"})
    first.wait_rows(5)
    assert first.stop() == 0
    assert not first.ring.exists()
    (first.home / "store.duckdb").unlink()
    first.start()
    first.wait_rows(5)
    first.wait_for(lambda: len(first.frames()[0]) == 5, "all frames again")

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
