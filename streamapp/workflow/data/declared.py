"""Sources that a project declares once, for all of its workflows: ``[sources.NAME]``.

::

    [sources.metadata-db]
    path = "metadata.db"
    table = "documents"

    [sources.orders]
    url = "env:ORDERS_URL"             # the whole URL, with its password, is in the environment
    query = "select id, placed_at from orders"
"""

from difflib import get_close_matches
from pathlib import Path

import msgspec

from streamapp.core.errors import Refuse
from streamapp.core.project import project_table
from streamapp.workflow.data.contract import OnBad, refuse_bad
from streamapp.workflow.data.opening import Opened, open_place
from streamapp.workflow.graph.spec import Input


class Declared:
    """The sources of a project, by name; the ``Sources`` of the operations' contract.

    Args:
        tables: as ``streamapp.toml`` has them.
        folder: where their relative paths begin.
        on_bad: takes their bad rows.
    """

    def __init__(self, tables: dict[str, Input], folder: Path, on_bad: OnBad) -> None:
        self._tables, self._folder, self._on_bad = tables, folder, on_bad

    @property
    def names(self) -> tuple[str, ...]:
        """What is declared, sorted."""
        return tuple(sorted(self._tables))

    def source(self, name: str) -> Opened:
        """The source of that name; nothing of it is read yet.

        Raises:
            Refuse: it is not declared, or not so that it can be read.
        """
        if name not in self._tables:
            near = get_close_matches(name, self._tables, 1)
            there = f"declared are {', '.join(self.names)}" if self.names else "none is declared"
            fix = f"did you mean {near[0]}?" if near else f"add [sources.{name}]; {there}"
            raise Refuse("data.source", f"streamapp.toml has no source {name!r}", fix)
        declared = self._tables[name]
        return open_place(
            declared,
            declared.format,
            self._folder,
            name=name,
            origin=f"source {name!r}",
            on_bad=self._on_bad,
        )


def declared_sources(folder: Path, on_bad: OnBad = refuse_bad) -> Declared:
    """The sources of the nearest ``streamapp.toml``.

    Args:
        folder: where it is looked for, and then in those above.
        on_bad: takes bad rows; without it the first one is an error.

    Raises:
        Refuse: the file cannot be parsed, or a table has a key or a value that it cannot have.
    """
    tables, home = project_table("sources", folder)
    declared = {name: declared_input(name, table) for name, table in tables.items()}
    return Declared(declared, home, on_bad)


def declared_input(name: str, table: dict[str, object]) -> Input:
    """``[sources.NAME]`` as an input says the same.

    Raises:
        Refuse: as ``declared_sources``.
    """
    known = [key for key in Input.__struct_fields__ if key not in ("type", "source")]
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, 1)
            fix = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
            raise Refuse("data.source", f"[sources.{name}] has no key {key!r}", fix)
    try:
        return msgspec.convert(table, Input)
    except msgspec.ValidationError as error:
        raise Refuse("data.source", f"[sources.{name}]: {error}", "correct its value") from None
