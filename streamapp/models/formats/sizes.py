"""What a model's files take."""

import mmap
from pathlib import Path


def size_of(path: Path) -> int:
    """Bytes of a graph and of the files of weights beside it that it names."""
    size = path.stat().st_size
    beside = [file for file in path.parent.iterdir() if file.is_file() and file != path]
    if not size or not beside:
        return size
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as graph:
        named = [file for file in beside if graph.find(file.name.encode()) >= 0]
    return size + sum(file.stat().st_size for file in named)
