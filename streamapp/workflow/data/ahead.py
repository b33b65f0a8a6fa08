"""Work on what comes next while what came before is taken."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
#: So many are worked on at once: a parser of Arrow's holds no lock, and has one thread of its own.
_THREADS = 2


def ahead(items: Iterable[Item], make: Callable[[Item], Made]) -> Iterator[tuple[Item, Made]]:
    """Each item and what is made of it, in order; no more than three are held.

    Args:
        items: taken one by one, in the caller's thread.
        make: called in other threads where there are several items; what it raises is raised here.
    """
    coming = iter(items)
    first = list(islice(coming, 2))
    if len(first) < 2:  # most files have one block, which is not worth a thread
        yield from ((item, make(item)) for item in first)
        return
    waiting: deque[tuple[Item, Future[Made]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for item in chain(first, coming):
            waiting.append((item, pool.submit(make, item)))
            if len(waiting) > _THREADS:
                done, made = waiting.popleft()
                yield done, made.result()
        for done, made in waiting:
            yield done, made.result()
