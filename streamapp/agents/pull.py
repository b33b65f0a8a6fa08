"""How strongly this host's attractors pull each frame, for its field ``attractor_pull``.

The pull of a frame is gravity times the sum of mass times cosine over the attractors whose cosine
with the frame's vector is above :data:`NEAR_COSINE`.  It belongs to a host: the stored velocity
never has it.
"""

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Refuse, Retry
from streamapp.core.metrics import Metrics
from streamapp.ring import presence
from streamapp.ring.control import Control, ControlPlane, control_path
from streamapp.ring.layout import Array

#: Farther than this an attractor does not reach: the ancestor's threshold, about 37 degrees.
NEAR_COSINE = 0.8
logger = logging.getLogger("streamapp")


class AttractorPull:
    """The attractors that hold now, and their pull.  Use it from one thread.

    The plane is not trusted: others may write it.  What is wrong with it is said once and counted,
    and the last good one holds on; one that is taken away pulls no more.

    Args:
        ring: path of the ring.
        dim: of its vectors.
        metrics: of this process.
    """

    def __init__(self, ring: Path, dim: int, metrics: Metrics) -> None:
        self._path = control_path(ring)
        self._dim = dim
        self._metrics = metrics
        self._plane: ControlPlane | None = None
        self._sequence = -1
        self._refused = ""
        self._units: npt.NDArray[np.float32] | None = None
        self._weights = np.zeros(0, np.float32)
        self.look()

    def look(self) -> None:
        """See whether the plane came, went or was replaced; call it every second or so."""
        try:
            status = self._path.lstat()
        except OSError:
            self._forget()
            return
        if self._plane is not None and self._plane.identity == (status.st_dev, status.st_ino):
            return
        self._forget()
        try:
            self._plane = ControlPlane.open(self._path, dim=self._dim)
        except Refuse as error:
            self._ignore(error)

    def into(self, records: Array, semantic: Array, known: npt.NDArray[np.bool_]) -> None:
        """Fill in ``attractor_pull`` and its presence bit.

        Args:
            records: (n,) of RECORD_DTYPE, changed.
            semantic: (n, dim), the frames' vectors.
            known: (n,), which rows have one.
        """
        self._refresh()
        if self._units is None:
            return
        vectors = semantic.astype(np.float32, copy=False)
        with np.errstate(invalid="ignore", over="ignore"):  # what has no direction is near nothing
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            cosines = (vectors @ self._units.T) / np.where(lengths > 0, lengths, 1)
        pulls = np.where(cosines > NEAR_COSINE, cosines, 0) @ self._weights
        records["attractor_pull"][known] = pulls[known]
        records["presence"][known] |= np.uint32(presence("attractor_pull"))

    def close(self) -> None:
        """Let go of the plane."""
        self._forget()

    def _refresh(self) -> None:
        """Take up what the plane says, when that changed."""
        plane = self._plane
        if plane is None or (sequence := plane.sequence()) == self._sequence:
            return
        try:
            self._take(plane.read())
        except Refuse as error:
            self._ignore(error)
        except Retry:
            return  # written all the time: the last good one holds until the next batch
        self._sequence = sequence

    def _take(self, control: Control) -> None:
        positions = np.zeros((len(control.attractors), self._dim), np.float64)
        for row, attractor in zip(positions, control.attractors, strict=True):
            row[:] = attractor.position
        units = positions / np.linalg.norm(positions, axis=1, keepdims=True)
        self._units = units.astype(np.float32)
        masses = np.array([attractor.mass for attractor in control.attractors], np.float64)
        self._weights = (control.gravity * masses).astype(np.float32)
        self._refused = ""

    def _ignore(self, error: Refuse) -> None:
        """Say it once; a plane that stays wrong is asked again each second."""
        if str(error) != self._refused:
            self._refused = str(error)
            self._metrics.control_ignored.inc()
            logger.warning("attractors are ignored: %s", error)

    def _forget(self) -> None:
        if self._plane is not None:
            self._plane.close()
        self._plane = self._units = None
        self._sequence = -1
