"""What clients changed of the export ``default``: one record of a compacted topic says it all."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from streamapp.core.errors import Reject
from streamapp.core.exports import (
    CONFIG_KEY,
    CONFIG_TOPIC,
    DEFAULT,
    Changes,
    Export,
    checked_changes,
    declared_exports,
)
from streamapp.core.project import project_table
from streamapp.core.slice import RecordLike
from streamapp.gateway.problem import ProblemError
from streamapp.gateway.schemas.shared import Followed, Log
from streamapp.gateway.stamp import CONTENT_TYPE
from streamapp.transport.clients import Address, Outgoing

_HEADERS = [("ce_type", b"SystemConfig"), CONTENT_TYPE]


#: Stands for secrets that a gateway need not know: it posts nothing.
_NO_SECRET = "whsec_" + "A" * 32


def changeable_export(folder: Path | None = None) -> Export | None:
    """The export whose values clients may change, without its secrets; None: there is none.

    Args:
        folder: instead of the working directory.

    Raises:
        Refuse: what the nearest ``streamapp.toml`` declares is wrong.
    """
    tables, _ = project_table("exports", folder)
    return declared_exports(tables, lambda _: _NO_SECRET).get(DEFAULT)


class Configured:
    """The newest record, and the way to write a newer one.

    Args:
        log: None: nothing can be changed.
        export: the one that is changed; None: there is none.
    """

    def __init__(self, log: Log | None, export: Export | None) -> None:
        self._log = log
        self._export = export
        self._changing = asyncio.Lock()
        self.topic = Followed(CONFIG_TOPIC, self._take)
        self.changes = Changes()

    @property
    def export(self) -> Export:
        """The export as the project file declares it.

        Raises:
            ProblemError: 404 ``config.none``.
        """
        if self._export is None:
            raise ProblemError(
                404,
                "config.none",
                "this project exports nothing that could be configured",
                "declare [exports.default] in streamapp.toml",
            )
        return self._export

    @property
    def effective(self) -> Export:
        """The export with what clients changed; what it does not allow any more is as declared."""
        try:
            return self.export.with_changes(self.changes)
        except Reject:
            return self.export

    async def read(self) -> None:
        """Read what others changed.

        Raises:
            Refuse, Retry: the log has no such topic, or does not answer.
        """
        if self._log is not None:
            await self.topic.follow(self._log.reader)

    async def change(self, values: Mapping[str, Any]) -> Address:
        """Change some values; None is as declared.

        Raises:
            Reject: ``export.config``.
            ProblemError: 403 ``export.url_not_allowed``, 404 there is no export, 503 no log to keep
                it in.
            Refuse, Retry: as :meth:`read`.
        """
        export = self.export
        if self._log is None:
            raise ProblemError(
                503, "config.log", "this gateway has no log to keep it in", "tell its operator"
            )
        async with self._changing:
            await self.read()
            changes = _allowed({**msgspec.structs.asdict(self.changes), **values}, export)
            record = Outgoing(msgspec.json.encode(changes), CONFIG_KEY, _HEADERS, partition=0)
            (address,) = await self._log.producer.send(CONFIG_TOPIC, [record])
            self.changes = changes
        return address

    def _take(self, record: RecordLike, _: bool) -> None:
        if record.key == CONFIG_KEY:
            try:
                self.changes = Changes.decode(record.value)
            except msgspec.DecodeError:
                return  # a later version's; what was said before holds


def _allowed(values: Mapping[str, Any], export: Export) -> Changes:
    try:
        return checked_changes(values, export)
    except Reject as error:
        if error.code == "export.url_not_allowed":
            raise ProblemError(403, error.code, error.message, error.fix) from None
        raise
