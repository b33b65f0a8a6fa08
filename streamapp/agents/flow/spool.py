"""A folder for a run's rows that one process has to itself."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from streamapp.workflow.run.parts import disk


@contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """The first numbered folder below ``parent`` that no living process has, empty.

    What processes left there that were killed is removed.

    Raises:
        Refuse: ``workflow.disk``: it cannot be made.
    """
    with ExitStack() as stack:
        with disk(parent):
            parent.mkdir(parents=True, exist_ok=True)
            folder = _taken(parent, stack)
            folder.mkdir()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def _taken(parent: Path, stack: ExitStack) -> Path:
    """The name of a folder whose lock is held until the stack is left; no other is of the dead.

    Locks stay: one that is removed may be held by somebody who does not know.
    """
    taken: Path | None = None
    for number in count():
        lock, folder = parent / f"{number}.lock", parent / str(number)
        if taken is not None and not lock.exists():
            return taken
        with ExitStack() as held:
            file = held.enter_context(lock.open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(folder, ignore_errors=True)
            if taken is None:
                taken = folder
                stack.push(held.pop_all())
    raise AssertionError  # count has no end
