"""``streamapp sql``: a prompt for the store, or a script for it."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from streamapp.cli.answers import Answer, ask, read
from streamapp.cli.framework import command
from streamapp.cli.options import json_option, settings_options
from streamapp.cli.output import console, print_error, print_table
from streamapp.cli.prompt import Names, Prompt, has_words, split, statements
from streamapp.cli.query import ended_by_ctrl_c, print_lines, print_rows
from streamapp.core.config import Settings
from streamapp.core.counted import counted
from streamapp.core.errors import Refuse, StreamappError
from streamapp.core.sql import quoted

if TYPE_CHECKING:
    import pyarrow as pa

FIRST, NEXT = "streamapp> ", "       ..> "
#: Rows that the prompt shows of an answer; a script gets what the store gives.
ROWS_SHOWN = 1000
ROWS_MAX = 1 << 62

_RELATIONS = """
    SELECT table_name AS name, 'table' AS kind, estimated_size::VARCHAR || ' rows' AS about
    FROM duckdb_tables() WHERE database_name = current_database()
    UNION ALL SELECT view_name, 'view', column_count::VARCHAR || ' columns'
    FROM duckdb_views() WHERE database_name = current_database() AND NOT internal
    UNION ALL SELECT function_name, 'macro', '(' || array_to_string(parameters, ', ') || ')'
    FROM duckdb_functions()
    WHERE database_name = current_database() AND function_type = 'table_macro'
    ORDER BY kind <> 'table', kind <> 'view', name"""
_COLUMNS = """
    SELECT table_name AS relation, list(column_name ORDER BY column_index) AS columns
    FROM duckdb_columns() WHERE database_name = current_database() GROUP BY ALL
    UNION ALL SELECT function_name || '(', [] FROM duckdb_functions()
    WHERE database_name = current_database() AND function_type = 'table_macro'"""
_FUNCTIONS = """
    SELECT list(DISTINCT function_name) AS names FROM duckdb_functions()
    WHERE function_type IN ('scalar', 'aggregate') AND regexp_matches(function_name, '^[a-z]\\w+$')
"""
_HELP = (
    ("select ... ;", "a statement ends with a semicolon, and may have many lines"),
    ("\\d", "tables, views and macros"),
    ("\\d NAME", "the columns of one"),
    ("\\x", "rows upright: always, never, or where they are too wide (as it begins)"),
    ("\\json", "rows as JSON, one a line, on or off"),
    ("\\timing", "how long a statement took, on or off"),
    ("\\?", "this list"),
    ("\\q", "leave, as Ctrl-D does"),
    ("Tab", "completes keywords, tables, columns and functions"),
    ("Ctrl-C", "stops the statement that runs, or drops what was typed"),
)


@command(
    examples=[
        "streamapp sql",
        "streamapp sql -c \"select * from similar('a refund', 5)\"",
        "streamapp sql < report.sql",
        "streamapp sql --url grpc://store.example:9383 --token env:TOKEN",
    ],
)
@click.option("-c", "--command", "script", help="Run these statements and exit.")
@click.option("--url", help="The store: grpc://HOST:PORT, or grpc+tls (default: as the settings).")
@json_option
@settings_options("token", "flight_host", "flight_port", "flight_ca_file")
def sql(settings: Settings, script: str | None, url: str | None, as_json: bool) -> None:
    """Ask the store in SQL at a prompt, with history, completion and timing.

    With -c, or when standard input is no terminal, the statements there are run, and the first that
    fails ends it; the exit code says how.
    """
    from streamapp.flight import Client

    client = Client.of(at(settings, url) if url else settings)
    if script is None and sys.stdin.isatty():
        session = Session(partial(ask, client), as_json=as_json)
        session.greet(client.where)
        _converse(session, settings)
        return
    session = Session(partial(read, client), as_json=as_json)
    with ended_by_ctrl_c():
        for one in statements([script] if script is not None else sys.stdin):
            session.run(one)


def at(settings: Settings, url: str) -> Settings:
    """The settings with another store's address.

    Raises:
        Refuse: it is not a Flight URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or settings.flight_port
    except ValueError:
        parts, port = urlsplit(""), 0
    tls = parts.scheme == "grpc+tls"
    if parts.scheme not in {"grpc", "grpc+tcp", "grpc+tls"} or not parts.hostname or parts.username:
        raise Refuse("sql.url", f"{url!r} is not where a store is", "grpc://HOST:PORT, no user")
    if tls and not (settings.flight_ca_file or settings.flight_cert_file):
        raise Refuse("sql.url", f"{url} is TLS, and nobody says whom to trust", "--flight-ca-file")
    moved = replace(settings, flight_host=parts.hostname, flight_port=port)
    return moved if tls else replace(moved, flight_ca_file=None, flight_cert_file=None)


class Session:
    """Statements and commands, one after the other, and how answers are shown.

    Args:
        ask: gets the first rows of a statement's answer.
        as_json: rows as JSON from the start.
    """

    def __init__(self, ask: Callable[[str, int], Answer], *, as_json: bool = False) -> None:
        self._ask_for = ask
        self._as_json = as_json
        self._upright: bool | None = None
        self._timing = False
        self._rows_max = ROWS_MAX
        self._names: Names | None = None
        self.ended = False

    def greet(self, where: str) -> None:
        """Ask who is there; from now on somebody reads the answers."""
        answer = self._ask("SELECT version() AS version, (SELECT count(*) FROM events) AS events")
        [row] = answer.table.to_pylist()
        self._timing, self._rows_max = True, ROWS_SHOWN
        click.echo(
            f"{where}: DuckDB {row['version']}, {counted(row['events'], 'event')}.  "
            "\\? for help, \\q to leave"
        )

    def run(self, text: str) -> None:
        """Run a statement, or a command (it begins with a backslash), and print the answer."""
        if text.startswith("\\"):
            self._command(text)
        else:
            self._show(self._ask(text, self._rows_max))

    def names(self) -> Names:
        """What can be completed; nothing beside keywords when the store does not say."""
        if self._names is None:
            try:
                relations = self._ask(_COLUMNS).table.to_pylist()
                functions = self._ask(_FUNCTIONS).table.to_pylist()[0]["names"]
            except StreamappError:  # Tab is no place for an error; the next statement says it
                return Names({}, [])
            columns = {row["relation"]: row["columns"] for row in relations}
            self._names = Names(columns, [f"{name}(" for name in functions])
        return self._names

    def _ask(self, sql: str, rows_max: int = ROWS_MAX) -> Answer:
        return self._ask_for(sql, rows_max)

    def _command(self, text: str) -> None:
        name, *arguments = text.rstrip(";").split()
        known: dict[str, Callable[[Sequence[str]], None]] = {
            "\\?": lambda _: _help(),
            "\\q": lambda _: self._end(),
            "\\d": self._describe,
            "\\x": lambda _: self._turn(),
            "\\json": lambda _: self._toggle_json(),
            "\\timing": lambda _: self._toggle_timing(),
        }
        if name not in known:
            raise Refuse("sql.command", f"there is no command {name}", "\\? lists them")
        known[name](arguments)

    def _end(self) -> None:
        self.ended = True

    def _turn(self) -> None:
        self._upright = {None: True, True: False, False: None}[self._upright]
        how = {None: "where they are too wide", True: "always", False: "never"}[self._upright]
        click.echo(f"rows upright: {how}")

    def _toggle_json(self) -> None:
        self._as_json = not self._as_json
        click.echo(f"rows as JSON: {'on' if self._as_json else 'off'}")

    def _toggle_timing(self) -> None:
        self._timing = not self._timing
        click.echo(f"timing: {'on' if self._timing else 'off'}")

    def _describe(self, arguments: Sequence[str]) -> None:
        relations = self._ask(_RELATIONS).table
        if not arguments:
            self._print(relations)
            return
        wanted = arguments[0].strip('"')
        found = {row["name"]: row for row in relations.to_pylist()}.get(wanted)
        if found is None:
            raise Refuse("sql.relation", f"there is no table {wanted}", "\\d lists them")
        name = quoted(wanted)
        if found["kind"] == "macro":
            click.echo(f"{wanted}{found['about']}")
            name += "(" + ", ".join(["NULL"] * (found["about"].count(",") + 1)) + ")"
        described = self._ask(f"DESCRIBE FROM {name}").table
        self._print(described.select(["column_name", "column_type"]))

    def _show(self, answer: Answer) -> None:
        self._print(answer.table)
        screen = console(stderr=True)
        if answer.more:
            screen.print(f"... and more than these {answer.table.num_rows:,} rows", style="dim")
        if self._timing:
            count = counted(answer.table.num_rows, "row")
            screen.print(f"{count} in {answer.seconds * 1000:,.1f} ms", style="dim")

    def _print(self, table: "pa.Table") -> None:
        if self._as_json:
            print_lines(table)
        else:
            print_rows(table, upright=self._upright)


def _converse(session: Session, settings: Settings) -> None:
    """Lines until the end; an error is said, and the next line is read."""
    prompt = Prompt(settings.home / "sql.history", session.names, _warn)
    try:
        waiting = ""
        while not session.ended:
            try:
                waiting += prompt.line(NEXT if has_words(waiting) else FIRST) + "\n"
                waiting = _take(session, prompt, waiting)
            except KeyboardInterrupt:
                click.echo()
                waiting = ""
            except StreamappError as error:
                print_error(error.message, error.fix)
                waiting = ""
    except EOFError:
        click.echo()
    finally:
        prompt.close()


def _take(session: Session, prompt: Prompt, text: str) -> str:
    """Run what is complete of what was typed; the rest."""
    first = text.strip()
    if first.startswith("\\") or first.lower() in {"exit", "quit", "help"}:
        prompt.remember(first)
        session.run({"exit": "\\q", "quit": "\\q", "help": "\\?"}.get(first.lower(), first))
        return ""
    found, rest = split(text)
    if found:
        prompt.remember(text[: len(text) - len(rest)])
    for one in found:
        try:
            session.run(one)
        except KeyboardInterrupt:
            _warn("\nstopped")
            return ""
    return rest if has_words(rest) else ""


def _help() -> None:
    print_table(["", ""], _HELP)


def _warn(text: str) -> None:
    click.echo(text, err=True)
