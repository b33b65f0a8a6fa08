"""``streamapp parquet``: what readers need to know of a Parquet store, without its writer."""

from typing import Any

import click

from streamapp.cli.framework import group
from streamapp.cli.options import json_option, settings_options
from streamapp.cli.output import bytes_text, print_json, print_table
from streamapp.core.config import Settings

_TABLES = ("events", "dead", "provenance", "answers")


@group(examples=["streamapp parquet files", "streamapp parquet verify --deep"])
def parquet() -> None:
    """Look into the Parquet store (setting store = parquet); the writer is not asked."""


@parquet.command(
    examples=[
        "streamapp parquet files",
        "streamapp parquet files --table dead --parquet-url s3://bucket/events",
    ]
)
@click.option(
    "--table",
    type=click.Choice(_TABLES),
    default="events",
    show_default=True,
    help="The table whose files are listed.",
)
@json_option
@settings_options("parquet_url")
def files(settings: Settings, table: str, as_json: bool) -> None:
    """Print the data files as of now, one a line: each event is in one of them, once.

    Give readers this list and no pattern: a pattern also finds files of a commit that was never
    finished, and for an hour those that were merged into larger ones or dropped.
    """
    from streamapp.sink import parquet as sink

    found = sink.files(settings.parquet_root, table)
    if as_json:
        print_json(found)
    else:
        for path in found:
            click.echo(path)


@parquet.command(examples=["streamapp parquet show", "streamapp parquet show --json"])
@json_option
@settings_options("parquet_url")
def show(settings: Settings, as_json: bool) -> None:
    """Print what is stored: files, rows and bytes of each table, and where reading goes on."""
    from streamapp.sink.parquet.read import summary

    found = summary(settings.parquet_root)
    if as_json:
        print_json(found)
        return
    tables: list[dict[str, Any]] = found["tables"]
    print_table(
        ("table", "files", "rows", "bytes"),
        [(t["table"], t["files"], f"{t['rows']:,}", bytes_text(t["bytes"])) for t in tables],
        right=("files", "rows", "bytes"),
    )
    click.echo()
    print_table(
        ("topic", "partition", "next"),
        [(p["topic"], p["partition"], f"{p['next']:,}") for p in found["positions"]],
        right=("partition", "next"),
    )


@parquet.command(
    examples=["streamapp parquet verify", "streamapp parquet verify --deep --json | jq .findings"]
)
@click.option("--deep", is_flag=True, help="Read every value too: finds damaged files.")
@json_option
@settings_options("parquet_url", "dedup_window_s", "dedup_window_events")
def verify(settings: Settings, deep: bool, as_json: bool) -> int:
    """Check rows against the ledger: nothing missing, nothing twice, nothing from nowhere.

    Reads only.  Exit code 65: events are missing (holes) or repeated; 70: the store contradicts
    itself.
    """
    from streamapp.cli.store import reported
    from streamapp.sink.parquet.read import checked
    from streamapp.sink.verify import Window

    window = Window(settings.dedup_window_s, settings.dedup_window_events)
    *_, report = checked(settings.parquet_root, window, deep=deep)
    return reported(report, settings.parquet_root, as_json=as_json)
