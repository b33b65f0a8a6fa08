"""The order of stages: whoever writes a column runs before whoever reads it."""

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

from streamapp.core.errors import Refuse
from streamapp.plugin import EVENT_SCHEMA, Stage

#: What the store writes beside the event: refused here, not when the first batch reaches it.
STORED = frozenset({"source_topic", "source_partition", "provenance"})


def order(stages: Sequence[Stage]) -> list[Stage]:
    """Stages in an order that serves every read; the given order decides where any would do.

    Raises:
        Refuse: two stages write a column, a stage writes a column of the event, nobody writes what
            a stage reads, or stages wait for each other.
    """
    writers = _writers(stages)
    waits: dict[str, set[str]] = {}
    for stage in stages:
        for column in stage.reads:
            if column not in writers and column not in EVENT_SCHEMA.names:
                raise Refuse(
                    "workflow.missing_column",
                    f"stage {stage.name!r} reads {column!r}, which no stage of the workflow writes",
                    _who_could(column),
                )
        waits[stage.name] = {writers[column] for column in stage.reads if column in writers}
    return _sorted(stages, waits)


def _writers(stages: Sequence[Stage]) -> dict[str, str]:
    writers: dict[str, str] = {}
    lower: dict[str, str] = {}
    for stage in stages:
        for column in stage.writes:
            name = column.lower()  # SQL does not tell cases apart
            if name in EVENT_SCHEMA.names or name in STORED:
                whose = "the store has for its own" if name in STORED else "of the event itself"
                raise Refuse(
                    "workflow.event_column",
                    f"stage {stage.name!r} writes {column!r}, a column {whose}",
                    "give the column another name",
                )
            if name in lower:
                raise Refuse(
                    "workflow.two_writers",
                    f"stages {lower[name]!r} and {stage.name!r} both write {column!r}",
                    "run one of them, or rename the column",
                )
            writers[column] = lower[name] = stage.name
    return writers


def _sorted(stages: Sequence[Stage], waits: dict[str, set[str]]) -> list[Stage]:
    sorter = TopologicalSorter(waits)
    try:
        sorter.prepare()
    except CycleError as error:
        chain = " -> ".join(reversed(error.args[1]))
        raise Refuse(
            "workflow.cycle", f"stages wait for each other: {chain}", "break the circle"
        ) from None
    places = {stage.name: place for place, stage in enumerate(stages)}
    ready: list[str] = []
    result: list[Stage] = []
    while sorter.is_active():
        ready.extend(sorter.get_ready())
        name = min(ready, key=places.__getitem__)
        ready.remove(name)
        sorter.done(name)
        result.append(stages[places[name]])
    return result


def _who_could(column: str) -> str:
    """Which built-in stage writes a column, for the message."""
    usual = {"embedding": "embed", "language": "language", "intent": "intent"}
    name = usual.get(column)
    return f"add {name!r} to [workflow] stages" if name else "add the stage that writes it"
