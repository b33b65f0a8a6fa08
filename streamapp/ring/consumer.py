"""The zero-shot gateway's consumer, by name: frames one by one from this host's ring.

It has the names of that project's ``scripts/consumer.py``; what differs is that nothing is lost
between two looks, and that a batch is in order, oldest first.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from streamapp.core.errors import Refuse
from streamapp.ring.engine import EngineName
from streamapp.ring.frames import Frame, Frames
from streamapp.ring.reader import RingReader


class PhysicsConsumer:
    """Frames of a ring, one by one.

    As its ancestor is used::

        with PhysicsConsumer() as consumer:
            for frame in consumer.follow():
                print(frame.semantic[:3], frame.sentiment)

    Attributes:
        reader: the reader that does the work; ``reader.lost`` counts what came too fast.
    """

    def __init__(
        self,
        path: Path | str | None = None,
        *,
        engine: EngineName = "c",
        wait: float | None = 0.0,
    ) -> None:
        """Open the ring at ``path``, or the one that this host's settings name.

        Args:
            path: the ring's file (None: what ``streamapp config show`` says of ``ring_path``).
            engine: as for :meth:`RingReader.open`.
            wait: seconds to wait for a ring that is not there yet (None: for ever).

        Raises:
            Refuse: there is no ring, or none to be trusted; the message says how to get one.
        """
        place = ring_of_this_host() if path is None else Path(path)
        self.reader = RingReader.open(place, engine=engine, wait=wait)

    def follow(self, idle_s: float | None = None) -> Iterator[Frame]:
        """The newest frame, then every one that comes; ends when none came for ``idle_s``."""
        self.reader.position += max(0, self.reader.lag - 1)
        for frames in self.reader.follow(idle_s=idle_s):
            yield from frames

    def read_latest(self) -> Frame | None:
        """The newest frame; None when there is none yet."""
        frames = self.reader.latest(1)
        return frames[0] if len(frames) else None

    def read_batch(self, n: int) -> Frames:
        """The newest ``n`` frames, or as many as there are, oldest first."""
        return self.reader.latest(n)

    def read_batch_tensors(self, n: int) -> tuple[Any, Any]:
        """The newest ``n`` frames as torch tensors: semantic (n, dim), and the floats (n, 12).

        Both share their memory with the frames' arrays.

        Raises:
            Refuse: torch is not installed (``ring.torch``).
        """
        torch, frames = import_torch(), self.read_batch(n)
        return torch.from_numpy(frames.semantic), torch.from_numpy(frames.floats)

    def close(self) -> None:
        """Let go of the ring."""
        self.reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ring_of_this_host() -> Path:
    """Where the settings of this folder and this process say that the ring is."""
    from streamapp.core.config import load  # late: other readers need NumPy only

    return load()[0].ring_file


def import_torch() -> Any:
    """The module ``torch``, which streamapp does not need for anything else.

    Raises:
        Refuse: it is not installed (``ring.torch``).
    """
    from importlib import import_module

    try:
        return import_module("torch")
    except ImportError:
        raise Refuse(
            "ring.torch", "torch is not installed", "pip install 'streamapp[torch]'"
        ) from None
