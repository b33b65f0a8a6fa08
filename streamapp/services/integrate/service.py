"""Integration from Python: register tables or declared sources, and integrate them.

::

    service = create_data_integration_service()
    await service.register_source("customers", customers)
    await service.register_source("orders", orders)
    config = IntegrationConfig(
        primary_source="customers",
        secondary_sources=["orders"],
        mode="left_join",
        key_fields=["customer_id"],
        conflict_strategy="prefer_primary",
    )
    integrated = await service.integrate(config)
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from streamapp.plugin import Refuse
from streamapp.plugin.calling import CallWork, TableSources, project_models, run_operation, table_of
from streamapp.services.integrate.config import Mode


@dataclass(frozen=True, kw_only=True)
class IntegrationConfig:
    """What to integrate, and how; the words are those of ``integrate.integrate``.

    ``options`` are that operation's further keys, such as ``mapping``, ``conflicts``, ``report``.
    """

    primary_source: str
    secondary_sources: Sequence[str]
    mode: Mode = "full_outer_join"
    key_fields: Sequence[str] = ()
    matching_strategy: Any = "exact"
    conflict_strategy: Any = "prefer_primary"
    timeout_ms: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


class DataIntegrationService:
    """Tables by name, and their integration.  Calls may overlap; each sees what is registered."""

    def __init__(self) -> None:
        self._tables: dict[str, pa.Table] = {}

    async def register_source(self, name: str, rows: Any) -> None:
        """Give a source its name; one of that name is replaced.

        Args:
            name: of the source.
            rows: a ``pyarrow.Table``, anything with ``__arrow_c_stream__`` (not copied), or a list
                of dicts.

        Raises:
            Refuse: it is no table.
        """
        self._tables[name] = table_of(rows, name)

    async def integrate(
        self, config: IntegrationConfig, aside: list[tuple[pa.Table, str]] | None = None
    ) -> pa.Table:
        """The integrated rows.

        Args:
            config: what to integrate, and how.
            aside: takes rows that were set aside, with the reason: those that do not fit, and
                unsure matches.

        Raises:
            Refuse: a source is not registered, the configuration does not fit the sources, or rows
                were set aside and nobody takes them.
            Retry: something outside does not answer.
        """
        names = [config.primary_source, *config.secondary_sources]
        for name in names:
            if name not in self._tables:
                known = ", ".join(self._tables) or "none"
                raise Refuse(
                    "source.unknown", f"no source {name!r} is registered", f"there are {known}"
                )
        given = {key: value for key, value in asdict(config).items() if key != "options"}
        keys = {**given, **config.options, "primary_source": "", "secondary_sources": names[1:]}
        work = CallWork(TableSources(self._tables), project_models)
        inputs = {names[0]: self._tables[names[0]]}
        found = await asyncio.to_thread(run_operation, "integrate.integrate", keys, inputs, work)
        if work.aside and aside is None:
            rows, reason = work.aside[0]
            why = f"rows are set aside ({rows.num_rows:,}): {reason}"
            raise Refuse("integrate.aside", why, "give integrate() a list that takes them")
        if aside is not None:
            aside.extend(work.aside)
        return found


def create_data_integration_service() -> DataIntegrationService:
    """A service without sources."""
    return DataIntegrationService()
