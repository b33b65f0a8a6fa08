"""Many callers of one model at once: shared calls by the scheduler, beside a call for each."""

import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from report import interleaved

from streamapp.core.model import ModelRef
from streamapp.models import Session
from streamapp.models.formats.onnx import OnnxSession
from streamapp.models.serving.policy import Policy
from streamapp.models.serving.scheduler import Scheduler

#: Classifiers on an embedding, of 1.8 and of 25 million weights: the second is larger than caches.
LAYERS = (768, 1024, 1024, 10)
LARGE = (1024, 4096, 4096, 1024, 10)
CALLERS = 64
MEMBERS = 3
OFFERED_PER_S = 820.0
WAIT_S_MAX = 60.0


class Offered(NamedTuple):
    """What an ensemble did under a load that does not wait for it."""

    per_s: float
    p50_ms: float
    p95_ms: float


def write_model(path: Path, seed: int, layers: Sequence[int] = LAYERS) -> Path:
    """Layers of random weights, then a softmax."""
    chance = np.random.default_rng(seed)
    nodes, weights, last = [], [], "vector"
    for place, (wide, narrow) in enumerate(pairwise(layers)):
        matrix = (chance.standard_normal((wide, narrow)) / np.sqrt(wide)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{place}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{place}"], [f"h{place}"]))
        nodes.append(helper.make_node("Relu", [f"h{place}"], [f"r{place}"]))
        last = f"r{place}"
    nodes.append(helper.make_node("Softmax", [last], ["shares"], axis=1))
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", layers[0]])],
        [helper.make_tensor_value_info("shares", TensorProto.FLOAT, ["n", layers[-1]])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, str(path))
    return path


def closed_loop(
    folder: Path, samples: int, rounds: int, layers: Sequence[int] = LAYERS
) -> dict[str, list[float]]:
    """Samples a second of callers that each wait for an answer before they ask again.

    ``alone``: each calls onnxruntime itself, of one thread a call or of two.  ``one at a time``:
    the scheduler with batches of one.  ``shared``: as it is.
    """
    path = write_model(folder / "layers.onnx", 0, layers)
    inputs = np.random.default_rng(1).standard_normal((256, layers[0])).astype(np.float32)
    alone = {f"alone, {n} threads": _opened(path, n) for n in (1, 2)}
    served = {
        "one at a time": Scheduler(_opened(path, 1), Policy(batch_rows_max=1)),
        "shared": Scheduler(_opened(path, 1), Policy(batch_rows_max=CALLERS)),
    }
    subjects: dict[str, Callable[[], float]] = {
        **{name: partial(_ask_all, one, inputs, samples) for name, one in alone.items()},
        **{name: partial(_submit_all, one, inputs, samples) for name, one in served.items()},
    }
    try:
        return interleaved(subjects, rounds)
    finally:
        for session in (*alone.values(), *served.values()):
            session.close()


def _ask_all(session: Session, inputs: np.ndarray, samples: int) -> float:
    """Answers a second, each caller a thread that waits for its answer."""
    started = threading.Barrier(CALLERS + 1)

    def caller(first: int) -> None:
        started.wait()
        for number in range(first, samples, CALLERS):
            place = number % len(inputs)
            session.run({"vector": inputs[place : place + 1]})

    threads = [threading.Thread(target=caller, args=(n,), daemon=True) for n in range(CALLERS)]
    for thread in threads:
        thread.start()
    started.wait()
    start_s = time.perf_counter()
    for thread in threads:
        thread.join(WAIT_S_MAX)
    return samples / (time.perf_counter() - start_s)


def _submit_all(scheduler: Scheduler, inputs: np.ndarray, samples: int) -> float:
    """Answers a second, so many requests on their way at any time, as an event loop asks."""
    free = threading.Semaphore(CALLERS)

    def done(answer: "Future[dict[str, np.ndarray]]") -> None:
        answer.result()
        free.release()

    start_s = time.perf_counter()
    for number in range(samples):
        if not free.acquire(timeout=WAIT_S_MAX):
            raise TimeoutError("an answer did not come")
        place = number % len(inputs)
        scheduler.submit({"vector": inputs[place : place + 1]}).add_done_callback(done)
    for _ in range(CALLERS):
        if not free.acquire(timeout=WAIT_S_MAX):
            raise TimeoutError("an answer did not come")
    return samples / (time.perf_counter() - start_s)


def ensemble(folder: Path, seconds: float) -> Offered:
    """The mean of three models, asked at random moments so many times a second."""
    members = [
        Scheduler(_opened(write_model(folder / f"member{n}.onnx", n), 1), Policy(batch_rows_max=64))
        for n in range(MEMBERS)
    ]
    chance = random.Random(1)
    inputs = np.random.default_rng(1).standard_normal((256, LAYERS[0])).astype(np.float32)
    try:
        _offer(members, inputs, 1.0, chance)  # warm
        took_s = _offer(members, inputs, seconds, chance)
    finally:
        for member in members:
            member.close()
    return Offered(
        len(took_s) / seconds,
        1e3 * statistics.median(took_s),
        1e3 * float(np.percentile(took_s, 95)),
    )


def _offer(
    members: Sequence[Scheduler], inputs: np.ndarray, seconds: float, chance: random.Random
) -> list[float]:
    """Seconds from the moment a sample was due to the mean of all members' answers."""
    took_s: list[float] = []
    lock, left = threading.Lock(), threading.Semaphore(0)
    due_s, end_s = time.perf_counter(), time.perf_counter() + seconds
    asked = 0
    while (due_s := due_s + chance.expovariate(OFFERED_PER_S)) < end_s:
        time.sleep(max(0.0, due_s - time.perf_counter()))
        answer = _Mean(len(members), due_s, took_s, lock, left)
        place = asked % len(inputs)
        for member in members:
            member.submit({"vector": inputs[place : place + 1]}).add_done_callback(answer.add)
        asked += 1
    for _ in range(asked):
        if not left.acquire(timeout=WAIT_S_MAX):
            raise TimeoutError("an answer did not come")
    return took_s


class _Mean:
    """Members' answers to one sample, until all are there."""

    def __init__(
        self,
        members: int,
        due_s: float,
        took_s: list[float],
        lock: threading.Lock,
        left: threading.Semaphore,
    ) -> None:
        self._members, self._due_s = members, due_s
        self._took_s, self._lock, self._left = took_s, lock, left
        self._answers: list[np.ndarray] = []

    def add(self, answer: "Future[dict[str, np.ndarray]]") -> None:
        with self._lock:
            self._answers.append(answer.result()["shares"])
            if len(self._answers) < self._members:
                return
            np.mean(self._answers, axis=0)
            self._took_s.append(time.perf_counter() - self._due_s)
        self._left.release()


def _opened(path: Path, threads: int) -> OnnxSession:
    return OnnxSession(ModelRef("tensor", path.stem, 1, "0" * 64), path, threads)
