"""Conversations to arms of an experiment: the same one always to the same, and a check of that."""

import hashlib
import math
from collections.abc import Mapping

#: Below this probability the arms are not what the split says (Fabijan et al., KDD 2019).
SRM_P_MIN = 0.0005


def place_of(key: str, salt: str) -> float:
    """Where a conversation stands, in [0, 1): a hash, so that nobody has to remember it."""
    digest = hashlib.blake2b(f"{salt}\0{key}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def arm_of(place: float, shares: Mapping[str, float]) -> str:
    """The arm whose percents the place falls into, "" for what is left.

    One that grows at the end of the table, as a canary does, keeps the conversations it has.
    """
    reached = 0.0
    for name, percent in shares.items():
        reached += percent
        if place * 100 < reached:
            return name
    return ""


def mismatch(counts: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """How probable counts at least this far from the shares are (chi-square test).

    A small one is a sample ratio mismatch: something loses or moves the conversations of an arm,
    and no comparison of the arms is worth anything.

    Args:
        counts: conversations of each arm.
        shares: what each arm should get, in any unit; arms with a share of 0 are left out.
    """
    arms = [name for name, share in shares.items() if share > 0]
    total, whole = sum(counts.get(name, 0) for name in arms), sum(shares[name] for name in arms)
    if total == 0 or len(arms) < 2:
        return 1.0
    expected = {name: total * shares[name] / whole for name in arms}
    square = sum((counts.get(name, 0) - expected[name]) ** 2 / expected[name] for name in arms)
    return _upper_gamma((len(arms) - 1) / 2, square / 2)


def _upper_gamma(a: float, x: float) -> float:
    """The regularised upper incomplete gamma function Q(a, x).

    By its recurrence from Q(1/2, x) = erfc(sqrt x) or Q(1, x) = exp(-x)
    (https://dlmf.nist.gov/8.8.E6); ``a`` is a whole or half number above 0.
    """
    whole = float(a).is_integer()
    at, value = (1.0, math.exp(-x)) if whole else (0.5, math.erfc(math.sqrt(x)))
    while at < a:
        if x > 0:
            value += math.exp(at * math.log(x) - x - math.lgamma(at + 1))
        at += 1
    return min(1.0, value)
