"""Which ways to try, in order, and which of them is best.

One thing after the other, each from the best so far: runtimes and variants, then how the cores are
divided between calls, then the batch.  All of it together would be the same answer for the square
of the time: what is best for one hardly depends on the rest.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import floor
from pathlib import Path

import msgspec
import numpy as np

from streamapp.core.clock import SYSTEM, Clock
from streamapp.core.errors import Refuse, StreamappError
from streamapp.models.embedders import COSINE_MIN
from streamapp.models.formats.openvino import is_installed
from streamapp.models.receipt import sha256_of
from streamapp.models.tuned import Tuned, read_tuned
from streamapp.models.tuning.measure import Measured, measure
from streamapp.models.tuning.subjects import Floats, Subject

#: Called with each way that was measured, or with one that could not be and why.
Seen = Callable[[Measured | None, Tuned, str], None]
BATCHES = (4, 8, 16, 32)
#: From here on numbers are the model's own but for rounding, and a user may want to allow them.
COSINE_NEAR = 0.99


@dataclass(frozen=True, slots=True)
class Limits:
    """What a way must keep to be chosen.

    ``cosine_min``: the least that a row's numbers may agree with the model as it was pulled;
    ``alone_ms_max``: p95 of a row alone, None for any.
    """

    cosine_min: float = 0.999
    alone_ms_max: float | None = None


class Search:
    """A measurement of many ways.

    Args:
        subject: the model.
        cores: threads that all calls may use together.
        limits: what a way must keep.
        seen: is told of each.
        clock: for the tests.
    """

    def __init__(
        self,
        subject: Subject,
        cores: int,
        limits: Limits | None = None,
        seen: Seen = lambda *_: None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.subject = subject
        self.measured: list[Measured] = []
        #: Wait of a served call in ms to rows per second.
        self.waits: dict[float, float] = {}
        self._cores = cores
        self._limits = limits or Limits()
        self._seen = seen
        self._clock = clock
        self._reference: Floats | None = None
        self._tried: set[bytes] = set()

    def backends(self, batches: Sequence[int] = (1, *BATCHES)) -> list[Measured]:
        """Every runtime that is here, at every batch; nothing is chosen."""
        self.own(batches)
        for start in self._runtimes(self._start()):
            for batch in batches:
                self._try(msgspec.structs.replace(start, batch=batch))
        return self.measured

    def own(self, batches: Sequence[int] = (1, *BATCHES)) -> list[Measured]:
        """The model as it is run now, at every batch."""
        start = read_tuned(self.subject.folder, self.subject.ref) or self._start()
        for batch in batches:
            self._try(msgspec.structs.replace(start, batch=batch, measured={}))
        return self.measured

    def best(self, variants: Sequence[Path] = ()) -> Measured:
        """The fastest way within the limits.

        Args:
            variants: other files to run in the model's place.

        Raises:
            Refuse: not even the model as it was pulled keeps the limits.
        """
        if variants:
            self.subject.variants = variants[0].parent
        self._try(self._start())
        for steps in (self._others(variants), self._splits, self._batches):
            for tuned in steps(self._chosen().tuned):
                self._try(tuned)
        return self._with_wait(self._chosen())

    def passed_over(self, best: Measured) -> list[tuple[Measured, str]]:
        """Ways that are faster than the chosen one, and which limit each breaks."""
        faster = [found for found in self.measured if found.rows_s > best.rows_s]
        faster.sort(key=lambda found: -found.rows_s)
        return [(found, why) for found in faster if (why := self._why_not(found))]

    def _start(self) -> Tuned:
        """As it runs without being tuned."""
        return Tuned(sha256=self.subject.ref.sha256, threads=1, calls=self._cores, batch=16)

    def _runtimes(self, start: Tuned) -> Iterator[Tuned]:
        if is_installed():
            for precision in ("f32", "int8", "bf16"):
                yield msgspec.structs.replace(start, backend="openvino", precision=precision)

    def _others(self, variants: Sequence[Path]) -> Callable[[Tuned], Iterator[Tuned]]:
        def others(start: Tuned) -> Iterator[Tuned]:
            yield from self._runtimes(start)
            for path in variants:
                variant = msgspec.structs.replace(
                    start, variant=path.name, variant_sha256=sha256_of(path)
                )
                yield variant
                yield from self._runtimes(variant)

        return others

    def _splits(self, best: Tuned) -> Iterator[Tuned]:
        for threads in range(1, self._cores + 1):
            if self._cores % threads == 0:
                calls = self._cores // threads
                yield msgspec.structs.replace(best, threads=threads, calls=calls)

    def _batches(self, best: Tuned) -> Iterator[Tuned]:
        for batch in BATCHES:
            yield msgspec.structs.replace(best, batch=batch)

    def _with_wait(self, best: Measured) -> Measured:
        """The best way, with how long a served call waits to fill."""
        ready = self.subject.open(best.tuned)
        try:
            self.waits = ready.waits()
        finally:
            ready.close()
        if not self.waits:
            return best
        wait_ms = max(self.waits, key=lambda wait: self.waits[wait])
        return replace(best, tuned=msgspec.structs.replace(best.tuned, wait_ms=wait_ms))

    def _try(self, tuned: Tuned) -> None:
        key = msgspec.json.encode(tuned)
        if key in self._tried:
            return
        self._tried.add(key)
        try:
            found, numbers = measure(self.subject, tuned, self._reference, self._clock)
        except StreamappError as error:
            if self._reference is None:  # the model itself cannot be run
                raise
            self._seen(None, tuned, error.message)
            return
        if self._reference is None:
            self._reference = np.array(numbers)
        self.measured.append(found)
        self._seen(found, tuned, self._why_not(found))

    def _why_not(self, found: Measured) -> str:
        """Which limit a way breaks; empty when none."""
        limits = self._limits
        if found.cosine < limits.cosine_min:
            allowing = floor(found.cosine * 1000) / 1000
            hint = f"; --cosine-min {allowing} allows it" if allowing >= COSINE_NEAR else ""
            return f"cosine {found.cosine:.5f} is below {limits.cosine_min}{hint}"
        if self.subject.is_invariant and (found.invariance or 0) < COSINE_MIN:
            return f"a row depends on its neighbours (cosine {found.invariance:.5f})"
        if limits.alone_ms_max is not None and found.alone_p95_ms > limits.alone_ms_max:
            return f"a row alone takes {found.alone_p95_ms:.1f} ms, of {limits.alone_ms_max:g}"
        return ""

    def _chosen(self) -> Measured:
        within = [found for found in self.measured if not self._why_not(found)]
        if not within:
            raise Refuse(
                "models.tune",
                f"{self.subject.manifest.full_name}: {self._why_not(self.measured[0])}",
                "allow more with --alone-ms-max or --cosine-min",
            )
        return max(within, key=lambda found: found.rows_s)
