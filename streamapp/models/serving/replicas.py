"""How many calls of one model may run at once: more while requests wait, fewer when none do.

A pure account of what was seen; the scheduler asks it what to do and does it.
"""

from dataclasses import dataclass

from streamapp.models.serving.policy import Policy


@dataclass(slots=True)
class Scaling:
    """When to open a replica and when to close one; ``count`` includes one that is being opened."""

    policy: Policy
    count: int
    grown_s: float
    needed_s: float

    def wants_more(self, now_s: float, waited_s: float) -> bool:
        """Whether to open one: a request has waited for ``grow_ms``, and so has the last growth.

        A call that could have been divided counts as a wait.
        """
        if waited_s > 0:
            self.needed_s = now_s
        grow_s = self.policy.grow_ms / 1000
        return (
            waited_s >= grow_s
            and now_s - self.grown_s >= grow_s
            and self.count < self.policy.replicas_top
        )

    def grew(self, now_s: float) -> None:
        """One is being opened."""
        self.count += 1
        self.grown_s = self.needed_s = now_s

    def busy(self, now_s: float) -> None:
        """All of them run."""
        self.needed_s = now_s

    def wants_fewer(self, now_s: float) -> bool:
        """Whether to close one: for ``idle_s`` never were all of them needed."""
        return self.count > self.policy.replicas_min and now_s - self.needed_s >= self.policy.idle_s

    def shrank(self, now_s: float) -> None:
        """One is closed; the next stays for ``idle_s`` more."""
        self.count -= 1
        self.needed_s = now_s
