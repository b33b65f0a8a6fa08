import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from streamapp.core.errors import Refuse
from streamapp.ring import RingReader, RingSpec, RingWriter, new_records

VECTOR = np.zeros((1, 1), np.float32)


def test_a_reader_sleeps_until_a_row_comes(shm, engine):
    with RingWriter.open(shm / "ring", RingSpec(1, 4), engine=engine) as writer:
        reader = RingReader.open(shm / "ring", engine=engine)
        frames = []
        thread = threading.Thread(target=lambda: frames.append(reader.read(timeout=60)))
        thread.start()
        writer.write(new_records(1), VECTOR)
        thread.join(60)
    assert len(frames[0]) == 1


def test_a_wait_has_an_end(shm, engine):
    with RingWriter.open(shm / "ring", RingSpec(1, 4), engine=engine):
        assert len(RingReader.open(shm / "ring", engine=engine).read(timeout=0.02)) == 0


def test_a_wait_of_no_length_is_refused(shm, engine):
    with RingWriter.open(shm / "ring", RingSpec(1, 4), engine=engine):
        reader = RingReader.open(shm / "ring", engine=engine)
    with pytest.raises(Refuse) as caught:
        reader.read(timeout=float("nan"))
    assert caught.value.code == "ring.timeout"


@pytest.mark.parametrize("writer_engine", ["c", "twin"])
def test_a_waiting_reader_goes_over_to_a_new_shape(shm, engine, writer_engine):
    writer = RingWriter.open(shm / "ring", RingSpec(1, 4), engine=writer_engine)
    reader = RingReader.open(shm / "ring", engine=engine)
    frames = []
    thread = threading.Thread(target=lambda: frames.append(reader.read(timeout=60)))
    thread.start()
    writer.close()
    with RingWriter.open(shm / "ring", RingSpec(2, 4), engine=writer_engine) as writer:
        writer.write(new_records(1), np.ones((1, 2)))
        thread.join(60)
    assert frames[0].semantic.tolist() == [[1, 1]]


def test_a_new_file_is_noticed_though_nobody_retired_the_old(shm):
    """The writer was killed between the rename and the notice."""
    with RingWriter.open(shm / "ring", RingSpec(1, 4)):
        reader = RingReader.open(shm / "ring")
    (shm / "ring").unlink()
    with RingWriter.open(shm / "ring", RingSpec(1, 4)) as writer:
        writer.write(new_records(1), VECTOR)
        assert len(reader.read(timeout=60)) == 1


@pytest.mark.parametrize("rounds", [2_000, pytest.param(100_000, marks=pytest.mark.soak)])
@pytest.mark.timeout(900)
def test_no_wake_is_missed(shm, start, rounds):
    """Two processes answer each other, at any moment of falling asleep.

    A missed wake costs a slice of waiting (0.1 s).  A loaded machine may be late now and then, so
    five rounds in a thousand may be; where lateness is no matter: test_promises_protocol.py.
    """
    dice, sent, late = random.Random(rounds), 0, 0
    with RingWriter.open(shm / "there", RingSpec(1, 16)) as writer:
        echo = start("echo.py", shm / "there", shm / "back", rounds)
        assert echo.stdout.readline() == "ready\n"
        reader = RingReader.open(shm / "back")
        while sent < rounds:
            for _ in range(min(dice.randint(1, 4), rounds - sent)):
                pause(dice.uniform(0, 60e-6))
                writer.write(new_records(1), VECTOR)
                sent += 1
            begin = time.monotonic()
            while reader.position < sent:
                reader.read(1, timeout=5.0)
            late += time.monotonic() - begin > 0.05
            assert late <= rounds // 200
        assert echo.wait(60) == 0
    assert (reader.position, reader.lost, reader.void) == (rounds, 0, 0)


def pause(seconds):
    """Sleeping takes longer than that."""
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        pass


def test_ctrl_c_ends_a_wait(shm):
    code = """
import sys
from streamapp.ring import RingReader
reader = RingReader.open(sys.argv[1])
try:
    print("ready", flush=True)
    reader.read(timeout=60)
except KeyboardInterrupt:
    sys.exit(7)
"""
    with RingWriter.open(shm / "ring", RingSpec(1, 4)):
        command = [sys.executable, "-c", code, str(shm / "ring")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 7
