"""What a client may ask of a new consumer instance, in Confluent's words or in Strimzi's."""

from collections.abc import Mapping
from typing import Any

from streamapp.gateway.confluent.errors import BAD_CONFIG, ConfluentError, unprocessable
from streamapp.gateway.confluent.instances import Options
from streamapp.gateway.confluent.media import FORMATS

NAME_CHARS_MAX = 200
#: Only Strimzi's bridge has these.
_STRIMZI = frozenset({"enable.auto.commit", "isolation.level"})
_KNOWN = frozenset(
    {
        "name",
        "id",
        "format",
        "auto.offset.reset",
        "auto.commit.enable",
        "fetch.min.bytes",
        "consumer.request.timeout.ms",
        "consumer.instance.timeout.ms",
        *_STRIMZI,
    }
)
#: The router takes them for a pattern.
NO_PATH = "{}"
_TRUTHS = {"true": True, "false": False}


def name_of(config: Mapping[str, Any]) -> str | None:
    """The name that the client gives its instance (in v1 called id), if it does; id wins.

    Raises:
        ConfluentError: 42204.
    """
    names = [_checked_name(config.get(key)) for key in ("id", "name")]
    return next(filter(None, names), None)


def _checked_name(name: object) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str) or len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise _wrong("name", name)
    if name in {".", ".."} or not set(NO_PATH).isdisjoint(name):  # no URL would lead there
        raise _wrong("name", name)
    return name


def options_of(config: Mapping[str, Any], timeout_s_max: float) -> Options:
    """The instance's options.

    Args:
        config: the request's object.
        timeout_s_max: how long an instance may be unused; a client may ask for less.

    Raises:
        ConfluentError: 42204 for what is not known or not offered.
    """
    unknown = sorted(config.keys() - _KNOWN)
    if unknown:
        raise _invalid(f"{unknown[0][:80]!r} is not known")
    format_ = _given(config, "format", "binary")
    if not isinstance(format_, str):
        raise _wrong("format", format_)
    format_ = format_.lower()
    if format_ not in FORMATS:
        raise _invalid(f"format {format_[:40]!r} is not one of {', '.join(FORMATS)}")
    reset = _given(config, "auto.offset.reset", "latest")
    if reset not in ("earliest", "latest"):  # of any type
        raise _wrong("auto.offset.reset", reset)
    if config.get("isolation.level", "read_uncommitted") != "read_uncommitted":
        raise _invalid("isolation.level: records are read as they are written, uncommitted")
    _number(config, "fetch.min.bytes", -1, -1, 10_000_000)
    wait_ms = _number(config, "consumer.request.timeout.ms", 1000, 0, 1 << 31)
    most_ms = round(timeout_s_max * 1000)
    timeout_ms = _number(config, "consumer.instance.timeout.ms", most_ms, 1, 1 << 31)
    strimzi = not _STRIMZI.isdisjoint(config)
    # Strimzi's bridge has Kafka's default, and so has Confluent's proxy.
    committing = _truth(config, "auto.commit.enable", default=True)
    return Options(
        format=format_,
        reset=reset,
        auto_commit=_truth(config, "enable.auto.commit", default=committing),
        timeout_s=min(timeout_ms, most_ms) / 1000,
        wait_ms=wait_ms,
        strimzi=strimzi,
    )


def _given(config: Mapping[str, Any], name: str, default: str) -> Any:
    """What the client says, unless it is nothing."""
    value = config.get(name)
    return default if value is None or value == "" else value


def _truth(config: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = config.get(name, default)
    if isinstance(value, bool):
        return value
    found = _TRUTHS.get(str(value).lower())
    if found is None:
        raise _wrong(name, value)
    return found


def _number(config: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = config.get(name)
    if value is None:
        return default
    try:
        number = int(value)
        if isinstance(value, bool) or (isinstance(value, float) and number != value):
            raise _wrong(name, value)
    except (TypeError, ValueError, OverflowError):
        raise _wrong(name, value) from None
    if not least <= number <= most:
        raise _wrong(name, value)
    return number


def _wrong(name: str, value: object) -> ConfluentError:
    return _invalid(f"Invalid value {str(value)[:40]!r} for configuration {name}")


def _invalid(what: str) -> ConfluentError:
    return unprocessable(f"Invalid consumer configuration: {what}", BAD_CONFIG)
