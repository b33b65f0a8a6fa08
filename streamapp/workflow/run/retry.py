"""When a stage that failed is tried again, and after how long."""

import random

from streamapp.core.errors import Retry, StreamappError
from streamapp.workflow.graph.spec import RetryPolicy

TIMEOUT = "workflow.timeout"


def is_tried_again(policy: RetryPolicy | None, error: StreamappError, attempt: int) -> bool:
    """Whether a stage goes on after an error.

    Args:
        policy: of the stage; None: never.
        error: that it ended in.
        attempt: that ended, from 1.
    """
    if policy is None or attempt > policy.max:
        return False
    if not policy.on:
        return isinstance(error, Retry)
    return any(_names(wanted, error.code) for wanted in policy.on)


def _names(wanted: str, code: str) -> bool:
    if wanted == "timeout":
        return code == TIMEOUT
    return code == wanted or code.startswith(f"{wanted}.")


_CHANCE = random.SystemRandom()


def delay_s(policy: RetryPolicy, attempt: int, chance: random.Random = _CHANCE) -> float:
    """Seconds from a failed attempt, from 1, to the next."""
    plain = min(policy.delay_s * policy.backoff ** (attempt - 1), policy.delay_s_max)
    return plain * (1 + policy.jitter * chance.uniform(-1, 1))
