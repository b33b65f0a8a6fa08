"""How a model is served: limits of its batches, of its queue and of its replicas."""

import os
from dataclasses import dataclass, field, replace

from streamapp.models.serving.joining import Pads


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of one served model.

    A replica is a call at a time: of the one open session, unless a scheduler is given others.

    Attributes:
        batch_rows_max: rows in one call.
        wait_ms_max: how long a batch may wait to become as large as the one before it was.
        queue_rows_max: rows that may wait; more are answered Retry.
        queue_s_max: a request that waited longer is answered Retry instead of being run.
        replicas_min: calls that may run at once, whatever the load.
        replicas_max: the same under load; 0: one per core this process may use.
        grow_ms: a request that has waited this long asks for one more replica, and so does a call
            of two parts' rows (see ``waiting``) that took as long.
        idle_s: a replica that nobody needed for this long is closed.
        pads: see ``joining``.
    """

    batch_rows_max: int = 32
    wait_ms_max: float = 2.0
    queue_rows_max: int = 1024
    queue_s_max: float = 10.0
    replicas_min: int = 1
    replicas_max: int = 0
    grow_ms: float = 20.0
    idle_s: float = 30.0
    pads: Pads = field(default_factory=Pads)

    @property
    def replicas_top(self) -> int:
        """The most replicas there may be; never less than the fewest."""
        cores = len(os.sched_getaffinity(0))
        return max(self.replicas_min, self.replicas_max or cores)

    def tuned(self, batch: int, wait_ms: float, calls: int) -> "Policy":
        """The same with what ``models tune`` found; a larger batch is still taken."""
        return replace(
            self,
            batch_rows_max=max(batch, self.batch_rows_max),
            wait_ms_max=wait_ms,
            replicas_max=max(calls, self.replicas_min),
        )
