"""What a ring is doing, as its header says."""

from pathlib import Path
from typing import TypedDict

from streamapp.ring import files
from streamapp.ring.engine import Mapping
from streamapp.ring.layout import Column, State
from streamapp.ring.origin import positions_of
from streamapp.ring.records import SourcePosition


class RingStat(TypedDict):
    """A ring's shape, state, counts and sources; ``base``, ``head`` and ``claim`` are frame ids."""

    path: str
    capacity: int
    dim: int
    dtype: str
    columns: list[Column]
    file_bytes: int
    base: int
    head: int
    claim: int
    epoch: int
    state: str
    frames: int
    void_frames: int
    recoveries: int
    heartbeat_mono_ns: int
    last_commit_unix_us: int
    writer_pid: int
    writer_alive: bool
    sources: list[SourcePosition]


def stat_of(path: Path, mapping: Mapping) -> RingStat:
    """What the ring mapped from ``path`` is doing now."""
    spec, word = mapping.spec, mapping.word
    return {
        "path": str(path),
        "capacity": spec.capacity,
        "dim": spec.dim,
        "dtype": spec.dtype,
        "columns": list(spec.columns),
        "file_bytes": mapping.geometry.file_bytes,
        "base": word("base"),
        "head": word("head"),
        "claim": word("claim"),
        "epoch": word("epoch"),
        "state": _state_name(word("state")),
        "frames": word("frames"),
        "void_frames": word("void_frames"),
        "recoveries": word("recoveries"),
        "heartbeat_mono_ns": word("heartbeat_mono_ns"),
        "last_commit_unix_us": word("last_commit_unix_us"),
        "writer_pid": word("writer_pid"),
        "writer_alive": files.writer_alive(path),
        "sources": positions_of(mapping),
    }


def _state_name(state: int) -> str:
    names = {item.value: item.name.lower() for item in State}
    return names.get(state, f"unknown {state}")
