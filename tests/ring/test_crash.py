"""A writer killed at any moment leaves no wrong row; the next one goes on without gap or copy."""

import logging
import os
import random
import signal
import time

import numpy as np
import pytest
import ring_content

from streamapp.ring import RingReader, unpack_source

DIM, CAPACITY = 512, 1024
LOG = logging.getLogger(__name__)


class Follower:
    """Reads on through every restart and checks each row and the order of source offsets."""

    def __init__(self, path):
        self.reader = RingReader.open(path)
        self.rows = self.wrong = self.out_of_order = 0
        self.last_id = self.last_key = -1
        self.lost = 0

    def read(self):
        frames = self.reader.read(512, timeout=0.01)
        if not len(frames):
            return
        ids = frames.frame_id.astype(np.int64)
        keys = unpack_source(frames.source_offset)[1]
        self.rows += len(frames)
        self.wrong += ring_content.wrong_rows(frames)
        self.out_of_order += int((np.diff(ids) <= 0).sum()) + int(ids[0] <= self.last_id)
        # Void rows leave gaps in the ids, never in the source offsets; only lost rows leave those.
        if self.reader.lost == self.lost:
            self.out_of_order += int(keys[0] != self.last_key + 1)
        self.out_of_order += int((np.diff(keys) != 1).sum())
        self.last_id, self.last_key, self.lost = int(ids[-1]), int(keys[-1]), self.reader.lost


@pytest.mark.parametrize("ways", [["write"], ["reserve", "write"]], ids=["write", "reserve"])
@pytest.mark.parametrize(
    "kills", [12, pytest.param(500, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])]
)
def test_killed_writers(shm, start, engine, kills, ways):
    """Batches of 1, 7 and 256 rows, mixed; ids have no gap but rows that are counted as void."""
    path, dice = shm / "ring", random.Random(kills)
    nursery = start("mortal_writers.py", path, DIM, CAPACITY, engine)
    follower, before, unfinished = None, (0, 0, 0), 0
    for kill in range(1, kills + 1):
        nursery.stdin.write(f"{dice.choice((1, 7, 256))} {dice.choice(ways)}\n")
        nursery.stdin.flush()
        pid = int(nursery.stdout.readline())
        follower = follower or Follower(wait_for(path))
        if kill % 4:
            wait_until_live(follower.reader, before[0])
        end_s = time.monotonic() + dice.uniform(0, 0.05)  # else it may die while it recovers
        while time.monotonic() < end_s:
            follower.read()
        os.kill(pid, signal.SIGKILL)
        assert nursery.stdout.readline() == "dead\n"
        stat = follower.reader.stat()
        unfinished += stat["claim"] > stat["head"]
        now = stat["epoch"], stat["head"], stat["claim"]
        assert all(was <= is_ for was, is_ in zip(before, now, strict=True))
        assert not stat["writer_alive"]
        before = now
        whole = follower.reader.latest(CAPACITY)
        assert ring_content.wrong_rows(whole) == 0
    while follower.reader.lag:
        follower.read()
    reader = follower.reader
    assert (follower.wrong, follower.out_of_order) == (0, 0)
    assert follower.rows + reader.lost + reader.void == reader.position
    assert follower.rows > 0
    LOG.info("%d of %d kills in a commit; %d rows read", unfinished, kills, follower.rows)


def wait_until_live(reader, epoch):
    while reader.stat()["epoch"] <= epoch or reader.stat()["state"] != "live":
        time.sleep(0.001)


def wait_for(path):
    while not path.exists():
        time.sleep(0.001)
    return path
