"""An export as it is now: as declared, as clients changed it, or given up by its receiver."""

import asyncio
import logging

from msgspec.structs import asdict
from prometheus_client import Gauge

from streamapp.core.errors import Reject
from streamapp.core.exports import Changes, Export

logger = logging.getLogger("streamapp")


class Target:
    """What the lanes of one export post to.

    Args:
        declared: the export of the project file.
        disabled: is 1 while its receiver wants nothing any more.
    """

    def __init__(self, declared: Export, disabled: Gauge) -> None:
        self.now = declared
        self._declared = declared
        self._disabled = disabled
        self._gone_url = ""
        self._changed = asyncio.Event()
        disabled.set(0)

    @property
    def state(self) -> str:
        """``on``, ``disabled`` (its receiver answered 410) or ``off`` (it has no URL)."""
        if not self.now.webhook_url:
            return "off"
        return "disabled" if self._gone_url == self.now.webhook_url else "on"

    def change(self, changes: Changes) -> None:
        """Take up what clients changed; what is not allowed is said, and all stays as it was."""
        try:
            changed = self._declared.with_changes(changes)
        except Reject as error:
            logger.error("[exports.%s] a change is not taken up: %s", self.now.name, error)  # noqa: TRY400  # no traceback
            return
        if changed != self.now:
            names = [name for name, said in asdict(changes).items() if said is not None]
            told = ", ".join(names) or "nothing"  # no values: an address may have a secret in it
            logger.warning("[exports.%s] clients changed it: %s set", changed.name, told)
            self.now = changed
            if self._gone_url != changed.webhook_url:
                self._gone_url = ""
                self._disabled.set(0)
            self._tell()

    def give_up(self, url: str) -> None:
        """Its receiver answered 410: nothing is posted there any more by this process."""
        self._gone_url = url
        if self.state == "disabled":
            self._disabled.set(1)
            logger.error(
                "[exports.%s] is disabled: its receiver answered 410 Gone.  Its position is kept;"
                " change webhook_url, or start again when it takes deliveries",
                self.now.name,
            )

    def wake(self) -> None:
        """End all waits."""
        self._tell()

    async def news(self, wait_s_max: float | None = None) -> None:
        """Wait until something is changed, or so long."""
        try:
            async with asyncio.timeout(wait_s_max):
                await self._changed.wait()
        except TimeoutError:
            return

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
