"""The topics that a project declares, made or looked for before anything runs."""

from collections.abc import Collection

from streamapp.core.errors import Refuse
from streamapp.topics.catalogue import ENRICHED, RAW, TWIN, Catalogue
from streamapp.transport.clients import Admin, TopicSpec


async def make(admin: Admin, catalogue: Catalogue) -> list[str]:
    """Create the catalogue's topics; the names of those that were missing.

    Args:
        admin: not started; it is stopped.
        catalogue: what is declared.
    """
    await admin.start()
    try:
        return [
            topic.name for topic in catalogue if await admin.create(TopicSpec(*topic.log_spec()))
        ]
    finally:
        await admin.stop()


async def check(admin: Admin, needed: Collection[str], broker: str) -> None:
    """Look for the topics that a process needs; nothing is created.

    Args:
        admin: not started; it is stopped.
        needed: their names.
        broker: how messages name the log.

    Raises:
        Refuse: a topic is missing, or raw and enriched (or its JSON twin) differ in partitions.
        Retry: the broker does not answer.
    """
    await admin.start()
    try:
        there = await admin.topics()
    finally:
        await admin.stop()
    missing = [name for name in needed if name not in there]
    if missing:
        raise Refuse(
            "topic.missing",
            f"{broker} has no topic {', '.join(missing)}",
            "run `streamapp topics apply` with the same settings (`streamapp up` does it itself)",
        )
    raw = there[RAW].partitions
    for name in (name for name in (ENRICHED, TWIN) if name in needed):
        if raw != there[name].partitions:
            raise Refuse(
                "topic.partitions",
                f"{RAW} has {raw} partitions and {name} has {there[name].partitions}",
                "make both anew with one number: enriched partition p holds source partition p",
            )
