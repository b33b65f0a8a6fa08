"""The catalogue: one TOML file per topic, one entry per file."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from streamapp.core.config import read_toml
from streamapp.core.errors import Refuse

RAW = "events.raw"
ENRICHED = "events.enriched"
DEAD = "events.dead"
#: Optional: the rows of the enriched topic as JSON records.
TWIN = "events.enriched.json"
#: What gateways learned of each event type.
SCHEMAS = "system.schemas"
#: Optional: what exports are about to post, and what they could not.
PLANS, UNDELIVERED = "system.exports", "exports.dead"
EXPORTS = frozenset({PLANS, UNDELIVERED})
#: Optional: what a language model is asked, and what it answered.
ASK, ANSWERS = "events.ask", "events.answers"
ASKS = frozenset({ASK, ANSWERS})
#: What a record that holds a rejected one adds to it at most: address, stage, code and reason.
CONTEXT_BYTES = 16 << 10
#: What a source checkout and an installed wheel bring along.
_IN_WHEEL = Path(__file__).parent.parent / "_defaults"
_IN_CHECKOUT = Path(__file__).parent.parent.parent


class Topic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One topic as declared.  Retention None: kept for ever.

    An ``optional`` one is there only where a setting asks for it.  ``validate`` says what the
    gateway does with an event that its JSON Schema does not take; None: it does not look.
    """

    name: str
    about: str
    partitions: int
    record_bytes_max: int
    retention_days: float | None = None
    retention_bytes: int | None = None
    compacted: bool = False
    schema: str | None = None
    validate: Literal["reject", "dead-letter", "observe"] | None = None
    dead_letter: str | None = None
    optional: bool = False

    def log_spec(self) -> tuple[str, int, int, int | None, int | None, bool]:
        """What a log must know to create the topic: the fields of ``transport.TopicSpec``."""
        kept_ms = None if self.retention_days is None else round(self.retention_days * 86_400_000)
        return (
            self.name,
            self.partitions,
            self.record_bytes_max,
            kept_ms,
            self.retention_bytes,
            self.compacted,
        )


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All declared topics by name."""

    folder: Path
    topics: dict[str, Topic]

    def __getitem__(self, name: str) -> Topic:
        """The topic, or Refuse with the names there are."""
        if name not in self.topics:
            raise Refuse(
                "topic.unknown",
                f"no topic is called {name!r}",
                f"declared in {self.folder}: {', '.join(sorted(self.topics)) or 'no topics'}",
            )
        return self.topics[name]

    def __iter__(self) -> Any:
        return iter(self.topics.values())


def defaults(kind: str) -> Path:
    """The folder ``topics`` or ``models`` that came with the installation."""
    wheel = _IN_WHEEL / kind
    return wheel if wheel.is_dir() else _IN_CHECKOUT / kind


def load(folder: Path | None = None, wanted: Collection[str] = ()) -> Catalogue:
    """Read ``*.toml`` of a folder (``workflow.toml`` is not a topic).

    Args:
        folder: instead of what came with the installation.
        wanted: the optional topics to keep; the others count as not declared.

    Raises:
        Refuse: a file that is not TOML, a missing or unknown key, a value out of range, a topic
        declared twice, or
            one of the three topics that the path needs is missing.
    """
    folder = folder or defaults("topics")
    topics: dict[str, Topic] = {}
    for path in sorted(folder.glob("*.toml")):
        if path.name == "workflow.toml":
            continue
        topic = _read(path)
        if topic.name in topics:
            raise Refuse(
                "topic.twice", f"{path}: topic {topic.name!r} is declared twice", "remove one"
            )
        topics[topic.name] = topic
    kept = {name: t for name, t in topics.items() if not t.optional or name in wanted}
    return _checked(Catalogue(folder, kept))


def _checked(catalogue: Catalogue) -> Catalogue:
    """The catalogue, when its topics fit together."""
    folder, topics = catalogue.folder, catalogue.topics
    for name in (ENRICHED, TWIN) if TWIN in topics else (ENRICHED,):
        if catalogue[RAW].partitions != catalogue[name].partitions:
            raise Refuse(
                "topic.partitions",
                f"{folder}: {name} has {topics[name].partitions} partitions and {RAW} "
                f"has {topics[RAW].partitions}",
                "give them the same number: enriched partition p holds source partition p",
            )
    for name in (DEAD, ENRICHED):
        least = catalogue[RAW].record_bytes_max + CONTEXT_BYTES
        if catalogue[name].record_bytes_max < least:
            raise Refuse(
                "topic.record_bytes_max",
                f"{folder}: {name} takes {catalogue[name].record_bytes_max} bytes, but a bad record"
                f" of {RAW} with its address and reason may have {least}",
                f"set its record_bytes_max to {least} or more",
            )
    for topic in catalogue:
        if topic.validate is not None:
            _check_validation(topic, catalogue)
    return catalogue


def _check_validation(topic: Topic, catalogue: Catalogue) -> None:
    """A topic that is validated has a schema, and where its bad events go takes them."""
    where = f"{catalogue.folder}: {topic.name}: validate = {topic.validate!r}"
    if topic.schema is None:
        raise Refuse(
            "topic.validate", f"{where} without a schema", 'name one: schema = "event.NAME.v1.json"'
        )
    if topic.validate != "dead-letter":
        return
    dead = catalogue.topics.get(topic.dead_letter or "")
    if dead is None or dead.schema is not None:
        raise Refuse(
            "topic.validate",
            f"{where}, and dead_letter = {topic.dead_letter!r} is no topic for dead letters",
            f'name one: dead_letter = "{DEAD}"',
        )
    if dead.record_bytes_max < topic.record_bytes_max + CONTEXT_BYTES:
        raise Refuse(
            "topic.record_bytes_max",
            f"{where}, but {dead.name} takes {dead.record_bytes_max} bytes",
            f"set its record_bytes_max to {topic.record_bytes_max + CONTEXT_BYTES} or more",
        )


def _read(path: Path) -> Topic:
    try:
        topic = msgspec.convert(read_toml(path), Topic)
    except msgspec.ValidationError as error:
        raise Refuse(
            "topic.declaration", f"{path}: {error}", "see topics/events.raw.toml"
        ) from None
    if not 1 <= topic.partitions <= 1024:
        raise Refuse(
            "topic.partitions", f"{path}: partitions = {topic.partitions}", "give 1 to 1024"
        )
    if not 1024 <= topic.record_bytes_max <= 64 << 20:
        raise Refuse(
            "topic.record_bytes_max",
            f"{path}: record_bytes_max = {topic.record_bytes_max}",
            "give 1 KiB to 64 MiB",
        )
    return topic
