"""RFC 3339 times of one length, all at once."""

import numpy as np
import numpy.typing as npt

_SEPARATORS = {4: "-", 7: "-", 10: "T", 13: ":", 16: ":"}
_SECOND_US = 1_000_000
#: 0001-01-01 and 10000-01-01 in UTC.
_FIRST_US, _NEXT_US = -62_135_596_800 * _SECOND_US, 253_402_300_800 * _SECOND_US

Numbers = npt.NDArray[np.int64]


def parse_times(data: bytes, count: int) -> Numbers | None:
    """``count`` times like ``2026-11-22T09:30:00.123Z``, one after the other, Unix microseconds.

    No fraction or one of 3 or 6 digits; ``Z`` or an offset like ``+01:00``.  None when one of them
    is anything else, which may yet be a time.
    """
    length = len(data) // count
    zone = 1 if data.endswith(b"Z") else 6
    fraction = length - 19 - zone
    if len(data) != length * count or fraction not in {0, 4, 7}:
        return None
    chars = np.frombuffer(data, np.uint8).reshape(count, length)
    separators = _SEPARATORS | ({19: "."} if fraction else {})
    zone_at = 19 + fraction
    separators |= {zone_at: "Z"} if zone == 1 else {zone_at + 3: ":"}
    digits = chars - np.uint8(ord("0"))  # wraps below "0", so that one comparison finds all others
    at = [p for p in range(length) if p not in separators and p != zone_at]
    if (digits[:, at] > 9).any() or any(
        (chars[:, p] != ord(s)).any() for p, s in separators.items()
    ):
        return None
    time_us = _local_us(digits, fraction)
    if time_us is not None and zone > 1:
        time_us = _without_zone(time_us, chars[:, zone_at], digits[:, zone_at + 1 :])
    if time_us is None or time_us.min() < _FIRST_US or time_us.max() >= _NEXT_US:
        return None
    return time_us


def _number(digits: npt.NDArray[np.uint8]) -> Numbers:
    value = np.zeros(len(digits), np.int64)
    for place in range(digits.shape[1]):
        value = value * 10 + digits[:, place]
    return value


def _local_us(digits: npt.NDArray[np.uint8], fraction: int) -> Numbers | None:
    year, month, day = (_number(digits[:, a:b]) for a, b in ((0, 4), (5, 7), (8, 10)))
    hour, minute, second = (_number(digits[:, a:b]) for a, b in ((11, 13), (14, 16), (17, 19)))
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    first = months.astype("datetime64[D]").astype(np.int64)
    days = (months + 1).astype("datetime64[D]").astype(np.int64) - first
    good = (year > 0) & (month > 0) & (month < 13) & (day > 0) & (day <= days)
    good &= (hour < 24) & (minute < 60) & (second < 60)
    if not good.all():
        return None
    seconds: Numbers = (((first + day - 1) * 24 + hour) * 60 + minute) * 60 + second
    if not fraction:
        return seconds * _SECOND_US
    unit_us = {4: 1000, 7: 1}[fraction]
    return seconds * _SECOND_US + _number(digits[:, 20 : 19 + fraction]) * unit_us


def _without_zone(
    time_us: Numbers, signs: npt.NDArray[np.uint8], digits: npt.NDArray[np.uint8]
) -> Numbers | None:
    hour, minute = _number(digits[:, 0:2]), _number(digits[:, 3:5])
    east = signs == ord("+")
    if not (east | (signs == ord("-"))).all() or hour.max() > 23 or minute.max() > 59:
        return None
    ahead: Numbers = np.where(east, 1, -1) * (hour * 60 + minute) * 60 * _SECOND_US
    return time_us - ahead
