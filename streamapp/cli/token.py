"""``streamapp token``: who may use the gateway and the store, and for what."""

import re
from datetime import UTC, datetime
from typing import Any

import click

from streamapp.cli.framework import group
from streamapp.cli.options import json_option, settings_options
from streamapp.cli.output import print_json, print_table
from streamapp.core.clock import now_ms
from streamapp.core.config import Settings
from streamapp.core.tokens import Token, create_token, read_tokens, revoke_tokens

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_LASTS = re.compile(r"([1-9][0-9]{0,5})([smhdw])")


class _Lasts(click.ParamType):
    """``30d`` as seconds."""

    name = "time"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        match = _LASTS.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is no time; write 90s, 15m, 12h, 30d or 8w.", param, ctx)
        return int(match[1]) * _UNITS_S[match[2]]


@group(
    examples=[
        "streamapp token create shop --scope 'produce:events.*' --expires 90d",
        "streamapp token list",
        "streamapp token revoke shop",
    ]
)
def token() -> None:
    """Create, list and revoke tokens.

    They are kept in HOME/tokens.json without their secrets.  Gateway and store look at that file
    ten times a second, so what is created or revoked here holds without a restart.  As
    soon as the file is there everybody is asked for a token; remove it to ask nobody again.
    STREAMAPP_TOKEN, if it is set where they run, may do everything beside them.
    """


@token.command(
    examples=[
        "streamapp token create shop --scope 'produce:events.*'",
        "streamapp token create lake --scope 'consume:*' --scope read --expires 30d",
        "streamapp token create ops --scope admin --json | jq -r .token",
    ],
)
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    metavar="SCOPE",
    help="produce:TOPIC, consume:TOPIC (* stands for any characters), read (metadata, schemas, "
    "SQL) or admin (everything).  Several are allowed.",
)
@click.option("--expires", "lasts_s", type=_Lasts(), help="Good for 90s, 15m, 12h, 30d or 8w.")
@json_option
@settings_options()
def create(
    settings: Settings, name: str, scopes: tuple[str, ...], lasts_s: int | None, as_json: bool
) -> None:
    """Make a token and print its secret, which is shown this once and kept nowhere."""
    first = not settings.tokens_file.exists()
    made, secret = create_token(settings.tokens_file, name, scopes, lasts_s=lasts_s)
    if as_json:
        print_json({**_as_json(made), "token": secret})
        return
    click.echo(secret)
    until = f", until {_time(made.expires_ms)}" if made.expires_ms is not None else ""
    click.echo(f"{name} may {', '.join(made.scopes)}{until}; the secret is not kept", err=True)
    if first:
        click.echo("from now on everybody is asked for a token", err=True)


@token.command("list", examples=["streamapp token list", "streamapp token list --json"])
@json_option
@settings_options()
def list_(settings: Settings, as_json: bool) -> None:
    """List the tokens and what they may do; a secret that was lost cannot be had again."""
    found = sorted(read_tokens(settings.tokens_file), key=lambda each: each.name)
    if as_json:
        print_json([_as_json(each) for each in found])
        return
    rows = [
        (each.name, each.id, " ".join(each.scopes), _time(each.created_ms), _until(each))
        for each in found
    ]
    print_table(("name", "id", "scopes", "created", "expires"), rows)


@token.command(examples=["streamapp token revoke shop", "streamapp token revoke shop lake --json"])
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@json_option
@settings_options()
def revoke(settings: Settings, names: tuple[str, ...], as_json: bool) -> None:
    """Take tokens away, by name or by id: all of these or none.  Requests that run are finished."""
    gone = revoke_tokens(settings.tokens_file, names)
    if as_json:
        print_json([_as_json(each) for each in gone])
        return
    for each in gone:
        click.echo(f"revoked  {each.name}")


def _as_json(each: Token) -> dict[str, Any]:
    return {
        "name": each.name,
        "id": each.id,
        "scopes": each.scopes,
        "created": _time(each.created_ms),
        "expires": _time(each.expires_ms) if each.expires_ms is not None else None,
        "expired": _expired(each),
    }


def _expired(each: Token) -> bool:
    return each.expires_ms is not None and each.expires_ms <= now_ms()


def _until(each: Token) -> str:
    if each.expires_ms is None:
        return "never"
    return _time(each.expires_ms) + (" (over)" if _expired(each) else "")


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).isoformat().replace("+00:00", "Z")
