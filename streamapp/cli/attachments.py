"""``streamapp attachments``: what the gateway keeps beside events, and being rid of it."""

import click

from streamapp.cli.framework import group
from streamapp.cli.options import NumberRange, json_option, settings_options
from streamapp.cli.output import bytes_text, print_json, print_table
from streamapp.core.config import Settings
from streamapp.core.counted import counted
from streamapp.gateway.blobs import open_blobs
from streamapp.gateway.blobs import sweep as sweep_blobs

_DAY_S = 86_400.0
LISTED = 100


@group(examples=["streamapp attachments ls", "streamapp attachments sweep --older-than 7"])
def attachments() -> None:
    """Attachments that are too large for an event: kept once by content, and swept by age."""


@attachments.command("ls", examples=["streamapp attachments ls", "streamapp attachments ls --json"])
@json_option
@settings_options("attachments_url")
def ls(settings: Settings, as_json: bool) -> None:
    """List what is kept, the largest first; the age is since that content came last."""
    found = sorted(open_blobs(settings.attachments_place).all(), key=lambda blob: -blob.size)
    if as_json:
        print_json(
            [{"sha256": one.sha256, "bytes": one.size, "age_s": round(one.age_s)} for one in found]
        )
        return
    print_table(
        ("sha256", "size", "days"),
        [(one.sha256, bytes_text(one.size), f"{one.age_s / _DAY_S:.1f}") for one in found[:LISTED]],
        right=("size", "days"),
    )
    more = f", the {LISTED} largest are shown" if len(found) > LISTED else ""
    click.echo(
        f"{counted(len(found), 'attachment')}, {bytes_text(sum(one.size for one in found))}{more}"
    )


@attachments.command(
    "sweep",
    examples=["streamapp attachments sweep", "streamapp attachments sweep --older-than 7 --json"],
)
@click.option(
    "--older-than",
    "days",
    type=NumberRange(min=0),
    help="Days since its content came last (default: attachments_days).",
)
@json_option
@settings_options("attachments_url")
def sweep(settings: Settings, days: float | None, as_json: bool) -> None:
    """Remove what is old.  Events that refer to it stay; their address answers 404 then."""
    older_s = (settings.attachments_days if days is None else days) * _DAY_S
    gone = sweep_blobs(open_blobs(settings.attachments_place), older_s)
    size = sum(one.size for one in gone)
    if as_json:
        print_json({"removed": len(gone), "bytes": size})
        return
    click.echo(f"removed {counted(len(gone), 'attachment')}, {bytes_text(size)}")
