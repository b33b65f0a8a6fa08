"""What direct mode saves: from the log to a reader, beside a mirror's way; and the binding of the model's output.

Processes: a worker that writes the ring itself against a worker and a terminal, in turns; with the default embedder, and with
a table of 30 words instead, so that what is not the model shows.  Events come one by one, then all at once; a reader in this
process waits for frames.  Binding: the default embedder on one thread,
its output bound to a ring's reserved rows against ``run``, NumPy and a copy into them, in CPU time of the thread.
"""

import asyncio
import csv
import statistics
import tempfile
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from report import interleaved, median_ratio, report
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from streamapp import compose
from streamapp.cli.demo import temporary_home
from streamapp.cli.prepare import prepare
from streamapp.cli.up import processes as names_of
from streamapp.cli.up import supervisor
from streamapp.core.config import Settings, load
from streamapp.models.embedder import OnnxEmbedder, Vectors
from streamapp.ring import RingReader, RingSpec, RingWriter, new_records
from streamapp.screen.summary import wait_ready
from streamapp.topics.catalogue import RAW
from streamapp.transport import Outgoing, open_producer

MESSAGES = Path(__file__).parent.parent / "examples" / "messages.csv"
PACED, EVERY_S, BURST = 150, 0.04, 256
TURNS = {"default": ("direct", "mirror"), "table": ("direct", "mirror", "mirror", "direct")}
SIZES = (1, 16, 64)


class Follower(threading.Thread):
    """Waits for frames; when each came, after the time that its event says."""

    def __init__(self, ring: Path) -> None:
        super().__init__(daemon=True)
        self.reader = RingReader.open(ring)
        self.age_ms: list[float] = []
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.is_set():
            frames = self.reader.read(256, timeout=0.05)
            now_us = time.time_ns() // 1000
            self.age_ms += [(now_us - int(then)) / 1000 for then in frames.timestamp_us]

    def wait(self, count: int) -> None:
        deadline = time.monotonic() + 90
        while len(self.age_ms) < count:
            assert time.monotonic() < deadline, f"{len(self.age_ms)} of {count} frames came"
            time.sleep(0.01)


def cpu_s(pids: list[int]) -> float:
    """User and system time so far (proc(5), fields 14 and 15)."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(one[11]) + int(one[12]) for one in fields) / 100


def event(text: str, number: int) -> Outgoing:
    now = datetime.now(UTC).isoformat()
    value = (
        f'{{"message": "{text} {number}", "conversation_id": "c{number % 20}", "time": "{now}"}}'
    )
    return Outgoing(value.encode())


async def run_processes(settings: Settings, texts: list[str]) -> dict[str, float]:
    """Latency (ms) and CPU (ms an event) of all that lies between the log and the ring."""
    watched = supervisor(settings)
    for name in ("gateway", "store"):
        watched.children.pop(name)
    producer = open_producer(settings.broker_url)
    await watched.start()
    try:
        names = set(names_of(settings)) - {"gateway", "store"}
        assert not await wait_ready(settings, names, 90)
        await producer.start()
        await producer.send(RAW, [event(texts[0], -1)])
        follower = Follower(settings.ring_file)
        follower.start()
        await asyncio.to_thread(follower.wait, 1)  # everything was used once
        pids = [child.pid for child in watched.children.values()]
        before = cpu_s(pids)
        for number in range(PACED):
            await producer.send(RAW, [event(texts[number % len(texts)], number)])
            await asyncio.sleep(EVERY_S)
        await asyncio.to_thread(follower.wait, 1 + PACED)
        between = cpu_s(pids)
        await producer.send(RAW, [event(texts[n % len(texts)], n) for n in range(BURST)])
        await asyncio.to_thread(follower.wait, 1 + PACED + BURST)
        after = cpu_s(pids)
        follower.enough.set()
        paced, burst = follower.age_ms[1 : 1 + PACED], follower.age_ms[1 + PACED :]
        return {
            "paced_p50_ms": float(np.percentile(paced, 50)),
            "paced_p99_ms": float(np.percentile(paced, 99)),
            "paced_cpu_ms_per_event": (between - before) * 1000 / PACED,
            "burst_last_ms": max(burst),
            "burst_cpu_ms_per_event": (after - between) * 1000 / BURST,
        }
    finally:
        await producer.stop()
        await watched.stop()


def table_encoder(folder: Path) -> Path:
    """An encoder that costs nothing: a text's vector is its first word's row; tokenizer.json beside it."""
    words = ["<s>", "<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    made.save(str(folder / "tokenizer.json"))
    rows = np.random.default_rng(1).standard_normal((len(words), 384)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["states"]),
            helper.make_node("Gather", ["states", "second"], ["sentence_embedding"], axis=1),
        ],
        "table",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["n", 384])],
        [
            numpy_helper.from_array(rows, "table"),
            helper.make_tensor("second", TensorProto.INT64, [], [1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, str(folder / "table.onnx"))
    return folder / "table.onnx"


def in_turns(
    settings: Settings, texts: list[str], turns: tuple[str, ...]
) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {"direct": [], "mirror": []}
    for who in turns:
        with temporary_home(settings, keep=False) as home:
            own = replace(home, ring="direct" if who == "direct" else "c")
            prepare(own)
            found[who].append(asyncio.run(run_processes(own, texts)))
    return found


def as_before(embedder: OnnxEmbedder, texts: list[str], out: Vectors) -> None:
    """``run`` into onnxruntime's memory, unit vectors into new memory, then the copy to the rows."""
    session, output = embedder._session, embedder._output  # noqa: SLF001  # what it does itself
    tokens, _ = embedder._encode(texts, "query")  # noqa: SLF001
    vectors = np.empty_like(out)
    for rows in embedder._batches(tokens):  # noqa: SLF001
        feed, _ = embedder._feed([tokens[row] for row in rows])  # noqa: SLF001
        (raw,) = session.run([output], feed)
        lengths = np.linalg.norm(raw, axis=1, keepdims=True)
        vectors[rows] = raw / np.maximum(lengths, 1e-12)
    out[:] = vectors


def binding(embedder: OnnxEmbedder, texts: list[str]) -> dict[int, dict[str, list[float]]]:
    """CPU microseconds of a call that leaves n vectors in a ring's rows."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        ring = RingWriter.open(Path(folder) / "bench.ring", RingSpec(embedder.dim, 1024))
        for size in SIZES:
            some = [f"{texts[n % len(texts)]} {n}" for n in range(size)]

            def measured(how: str, some: list[str] = some) -> float:
                with ring.reserve(len(some)) as place:
                    started = time.thread_time()
                    if how == "bound":
                        embedder.embed(some, "query", place.semantic)
                    else:
                        as_before(embedder, some, place.semantic)
                    spent = time.thread_time() - started
                    place.commit(new_records(len(some)))
                return spent * 1e6

            rounds = max(7, 60 // size)
            subjects = {how: (lambda how=how: measured(how)) for how in ("bound", "run and copy")}
            found[size] = interleaved(subjects, rounds)
        ring.close()
    return found


def copy_us(rows: int, dim: int) -> float:
    """What the saved copy takes by itself: the best of many."""
    made, out = np.ones((rows, dim), np.float32), np.empty((rows, dim), np.float32)
    times = []
    for _ in range(1000):
        started = time.perf_counter()
        out[:] = made
        times.append(time.perf_counter() - started)
    return min(times) * 1e6


def main() -> None:
    settings, _ = load()
    with MESSAGES.open(encoding="utf-8") as lines:
        texts = [row["message"].replace('"', "'") for row in csv.DictReader(lines)]
    bound = binding(compose.registry(replace(settings, threads=1)).embedder(), texts)
    table = [["", "direct", "mirror"]]
    ratios: dict[str, float] = {}
    found = {}
    for model, turns in TURNS.items():
        with tempfile.TemporaryDirectory() as folder:
            own = settings
            if model == "table":
                own = replace(settings, embedding_model=table_encoder(Path(folder)))
            found[model] = in_turns(own, texts, turns)
        for name in found[model]["direct"][0]:
            mean = {w: statistics.mean(t[name] for t in found[model][w]) for w in found[model]}
            table.append([f"{model}: {name}", f"{mean['direct']:.1f}", f"{mean['mirror']:.1f}"])
            ratios[f"{model}_direct_vs_mirror_{name}"] = mean["direct"] / mean["mirror"]
    copied_us: dict[int, float] = {}
    for size, ways in bound.items():
        us = [f"{statistics.median(times):,.0f}" for times in ways.values()]
        table.append([f"{size} vectors into rows, CPU us: bound | run and copy", *us])
        ratios[f"bound_vs_run_and_copy_{size}"] = median_ratio(ways["bound"], ways["run and copy"])
        copied_us[size] = copy_us(size, 384)
        ratios[f"copy_ppm_of_call_{size}"] = (
            1e6 * copied_us[size] / statistics.median(ways["bound"])
        )
    figures = {"processes": found, "binding_cpu_us": bound, "copy_us": copied_us}
    report("direct", table, ratios, figures)


if __name__ == "__main__":
    main()
