"""The ring beside memcpy of the same bytes, and beside what else hands rows from process to process.

python bench/bench_ring.py               everything, about four minutes; 1.5 GB of /dev/shm
python bench/bench_ring.py --quick       does it work? (figures mean little, none are kept)
python bench/bench_ring.py --markdown    bench/results/ring.json into docs/performance.md
"""

import argparse
import shutil
import statistics
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import venvs
from report import interleaved, median_ratio, write
from ring import copies, measured, page, wake
from ring.rows import Shape
from tables import rewrite

#: Who else is measured.
PINNED = {"iceoryx2": "0.10.0", "pyzmq": "27.3.0"}
BATCH = 256
#: Of the default ring, which stays in the last cache, and of the ancestors' kind, which does not.
CACHE, DRAM = Shape(8192, 384), Shape(131_072, 1024)
SHM_BYTES = 1_500_000_000
READERS = (1, 4)
RATE = 1000
#: Who is woken how: futex, polling every 50 us or 1 ms, an event, a socket.
SLEEPERS = ("ours", "iceoryx2", "zmq", "seqlock", "seqlock 1 ms")


class Sizes(NamedTuple):
    """How often and how much."""

    laps: int
    large_laps: int
    lap_rounds: int
    bursts: int
    stream_rounds: int
    stream_s: float
    wake_rounds: int
    wakes: int
    stopped_rounds: int


FULL = Sizes(
    32, 3, 5, 200, stream_rounds=3, stream_s=1.0, wake_rounds=3, wakes=2000, stopped_rounds=11
)
QUICK = Sizes(
    4, 1, 1, 20, stream_rounds=1, stream_s=0.3, wake_rounds=1, wakes=300, stopped_rounds=2
)
#: Rows between turns, of one row and of 256 at a time; writes in a turn of the stopped reader.
CHUNKS = {1: 512, BATCH: 2048}
STOPPED_WRITES = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is kept")
    parser.add_argument("--markdown", action="store_true", help="rewrite the docs page's figures")
    options = parser.parse_args()
    if options.markdown:
        rewrite("ring", page.BEGIN, page.END, page.render)
        return
    figures = measure(QUICK if options.quick else FULL)
    results = {"ratios": ratios_of(figures), "figures": figures}
    if not options.quick:
        results = write("ring", results["ratios"], figures, PINNED)
    print(page.render(results))


def measure(sizes: Sizes) -> dict[str, Any]:
    """Every figure; what is compared is measured in turns, so that drift hits all alike."""
    missing: dict[str, str] = {}
    shapes, names, python = _shapes(missing), ["ours", "seqlock"], sys.executable
    try:
        wanted = [f"{name}=={number}" for name, number in PINNED.items()]
        shared = venvs.as_here("numpy", "python-dotenv")  # what our own side needs there
        python = venvs.python("ring-peers", *wanted, *shared)
        names += ["iceoryx2", "zmq"]
    except venvs.Unavailable as error:
        missing |= dict.fromkeys(("iceoryx2", "zmq"), str(error))
    say("C beside memcpy")
    tasks = {key: _task(key, shape, sizes) for key, shape in shapes.items()}
    with copies.compiled("copies") as binary:
        c = {key: copies.costs(binary, **task) for key, task in tasks.items()}
    say("Python beside memcpy")
    in_python = {key: _middle("laps", task, sizes.lap_rounds) for key, task in tasks.items()}
    say("beside others, in one process")
    alone = {key: _alone(shape, names, sizes, python) for key, shape in shapes.items()}
    say("beside others, with readers")
    streams = {str(n): _streams(n, names, sizes, python) for n in READERS}
    say("wake-up")
    woken = _wake([name for name in SLEEPERS if name not in missing], sizes, python)
    say("a stopped reader")
    task = {"shape": CACHE, "rounds": sizes.stopped_rounds, "writes": STOPPED_WRITES}
    return {
        "sizes": sizes._asdict(),
        "not_measured": missing,
        "c": c,
        "python": in_python,
        "alone": alone,
        "streams": streams,
        "wake": woken,
        "stopped": measured.run("stopped", task),
    }


def _shapes(missing: dict[str, str]) -> dict[str, Shape]:
    shapes = {"cache 1": CACHE, "cache 256": CACHE._replace(batch=BATCH)}
    free = shutil.disk_usage("/dev/shm").free
    if free < SHM_BYTES:
        missing["dram"] = f"/dev/shm has {free >> 20} MB free, not {SHM_BYTES >> 20}"
        return shapes
    return shapes | {"dram 1": DRAM, "dram 256": DRAM._replace(batch=BATCH)}


def _middle(name: str, task: Any, rounds: int) -> dict[str, float]:
    """Medians over processes: the pages that a ring happens to get make a third of a row's cost."""
    found = [measured.run(name, task) for _ in range(rounds)]
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def _task(key: str, shape: Shape, sizes: Sizes) -> dict[str, Any]:
    laps = sizes.large_laps if key.startswith("dram") else sizes.laps
    return {"shape": shape, "chunk": CHUNKS[shape.batch], "laps": laps}


def _alone(shape: Shape, names: list[str], sizes: Sizes, python: str) -> Any:
    return measured.run("alone", {"names": names, "shape": shape, "rounds": sizes.bursts}, python)


def _streams(readers: int, names: list[str], sizes: Sizes, python: str) -> Any:
    task = {"shape": CACHE._replace(batch=BATCH), "readers": readers, "seconds": sizes.stream_s}
    subjects = {n: partial(measured.run, "streams", task | {"name": n}, python) for n in names}
    return interleaved(subjects, sizes.stream_rounds, warm_up=False)


def _wake(names: list[str], sizes: Sizes, python: str) -> Any:
    task = {"shape": CACHE, "rate": RATE, "count": sizes.wakes}
    subjects = {n: partial(measured.run, "wake", task | {"name": n}, python) for n in names}
    for what in ("ring", "word"):
        subjects[f"C {what}"] = partial(wake.in_c, what, RATE, sizes.wakes)
        subjects[f"C {what} apart"] = partial(wake.in_c, what, RATE, sizes.wakes, "apart")
    return interleaved(subjects, sizes.wake_rounds, warm_up=False)


def ratios_of(figures: Mapping[str, Any]) -> dict[str, float]:
    """What has an aim; one that was not measured is not there."""
    c, python, missing = figures["c"], figures["python"], figures["not_measured"]
    stopped = figures["stopped"]
    ratios = {
        "c_write_vs_memcpy": c["cache 256"]["write to memcpy"],
        "py_batch256_vs_memcpy_cache": python["cache 256"]["write to memcpy"],
        "py_single_write_extra_ns": python["cache 1"]["write"] - c["cache 1"]["memcpy in"],
        "futex_p50_us": _p50_us(figures, "C ring"),
        "futex_vs_word_apart": _p50_us(figures, "C ring apart") / _p50_us(figures, "C word apart"),
        "py_futex_p50_us": _p50_us(figures, "ours"),
        "stopped_reader_p50": median_ratio(stopped["stopped"], stopped["nobody"]),
    }
    if "dram" not in missing:
        ratios["py_batch256_vs_memcpy_dram"] = python["dram 256"]["write to memcpy"]
    if "iceoryx2" not in missing:
        ratios["iceoryx2_vs_ours"] = figures["alone"]["cache 1"]["iceoryx2"]["to ours"]
    return {name: ratios[name] for name in page.AIMS if name in ratios}


def _p50_us(figures: Mapping[str, Any], name: str) -> float:
    return statistics.median(found["p50_us"] for found in figures["wake"][name])


def say(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
