"""Many texts at once: spread over processes, for the interpreter runs one thread at a time."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context

import pyarrow as pa

from streamapp.plugin import Refuse
from streamapp.services.text.analyzer import Analyzer, Wanted, types_of

#: Texts that are handed over together; fewer are not worth a process.
CHUNK = 128
#: Chunks per process that are on their way.
_AHEAD = 2

_analyzer: Analyzer | None = None


def analyze_texts(
    texts: Sequence[str | None], wanted: Wanted, processes: int = 1
) -> Iterator[pa.Table]:
    """Tables of the columns of ``types_of``, whose rows are those of the texts, in order.

    Args:
        texts: of any length.
        wanted: what to find out.
        processes: at work at once; more than one needs a program that may be imported anew, one
            that begins with ``if __name__ == "__main__"``.

    Raises:
        Refuse: what is wanted is not installed, or not known; or a process ended.
    """
    chunks = (texts[first : first + CHUNK] for first in range(0, len(texts), CHUNK))
    if processes <= 1 or len(texts) <= CHUNK:
        analyzer = Analyzer(wanted)
        yield from (_table(analyzer, chunk) for chunk in chunks)
        return
    Analyzer(wanted)  # a Refuse of one's own, not of a process that does not start
    try:
        yield from _spread(chunks, wanted, processes)
    except BrokenProcessPool:
        raise Refuse(
            "text.processes",
            "a process ended before it was done: it ran out of memory, or could not start",
            'ask for fewer, or begin the program with: if __name__ == "__main__":',
        ) from None


def _spread(
    chunks: Iterator[Sequence[str | None]], wanted: Wanted, processes: int
) -> Iterator[pa.Table]:
    """The chunks' tables, in order; a few are on their way at any time."""
    with ProcessPoolExecutor(
        processes, get_context("forkserver"), initializer=_open, initargs=(wanted,)
    ) as pool:
        waiting = [pool.submit(_work, chunk) for chunk in islice(chunks, processes * _AHEAD)]
        while waiting:
            found = waiting.pop(0).result()
            waiting += [pool.submit(_work, chunk) for chunk in islice(chunks, 1)]
            yield found


def empty(wanted: Wanted) -> pa.Table:
    """No rows of the columns."""
    return pa.schema(types_of(wanted).items()).empty_table()


def _open(wanted: Wanted) -> None:
    global _analyzer  # noqa: PLW0603  # a process of the pool has one
    _analyzer = Analyzer(wanted)


def _work(texts: Sequence[str | None]) -> pa.Table:
    if _analyzer is None:
        raise RuntimeError("the process was not opened")
    return _table(_analyzer, texts)


def _table(analyzer: Analyzer, texts: Sequence[str | None]) -> pa.Table:
    return pa.table(dict(analyzer.columns(texts)))
