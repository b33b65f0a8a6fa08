"""``streamapp send``: the rows of a file, or one text, as events."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple
from uuid import uuid4

import click

from streamapp.cli.framework import command
from streamapp.cli.options import NumberRange, json_option, settings_options
from streamapp.cli.output import console, harmless, print_json
from streamapp.cli.rows import FORMATS, Lines, Shape, file_key, format_of, read_rows
from streamapp.core.config import Settings, gateway_url
from streamapp.core.errors import Refuse
from streamapp.core.tls import client_context

if TYPE_CHECKING:
    from streamapp.cli.delivery import Report

EXIT_REJECTED = 65  # EX_DATAERR


@command(
    examples=[
        "streamapp send messages.csv --text message --type UserMessage",
        "streamapp send chats.jsonl --text body --conversation chat_id --id message_id",
        "streamapp send notes.txt --rate 100",
        'echo \'{"message": "hello", "type": "Greeting"}\' | streamapp send -',
        "tail -F app.log | streamapp send - --format text --type LogLine",
        'streamapp send --message "I want to cancel my plan" --type UserMessage',
    ],
)
@click.argument("file", metavar="[FILE]", required=False)
@click.option("--message", metavar="TEXT", help="Send one event with this text, not a file.")
@click.option("--topic", metavar="NAME", help="Instead of the gateway's default topic.")
@click.option("--text", metavar="COL", help="Column that holds the text (default: message, text).")
@click.option("--type", "kind", metavar="TYPE", help="Type of every event.")
@click.option("--conversation", metavar="COL", help="Column that names the conversation.")
@click.option("--id", "id_column", metavar="COL", help="Column that holds unique ids.")
@click.option("--source", metavar="TEXT", help="Source of every event.")
@click.option("--format", "kind_of_file", type=click.Choice(FORMATS), help="Instead of the suffix.")
@click.option("--rate", type=NumberRange(min=0.01), metavar="N", help="Events a second.")
@click.option("--url", help="The gateway (default: http://GATEWAY_HOST:GATEWAY_PORT).")
@click.option("--key", metavar="TEXT", help="Derive the ids from this name, not from the file.")
@click.option("--strict", is_flag=True, help="Stop at a line that cannot be read.")
@click.option(
    "--retry-s",
    type=NumberRange(min=0),
    default=60.0,
    show_default=True,
    help="Longest wait for a gateway that stopped answering.",
)
@json_option
@settings_options("token", "gateway_host", "gateway_port")
def send(
    settings: Settings,
    file: str | None,
    message: str | None,
    topic: str | None,
    text: str | None,
    kind: str | None,
    conversation: str | None,
    id_column: str | None,
    source: str | None,
    kind_of_file: str | None,
    rate: float | None,
    url: str | None,
    key: str | None,
    strict: bool,
    retry_s: float,
    as_json: bool,
) -> int:
    """Send the rows of FILE as events: csv, tsv, json lines or plain text, - for standard input.

    With --message there is no FILE: one event with that text is sent.

    Columns called time, actor, duration_ms, type and source fill the event's fields, all others go
    into its payload.  Events of one conversation stay in order.

    Without --id, a row's id is a hash of the file's beginning, its line number and its content.  A
    send that was interrupted can simply be run again: what was stored is not stored twice, within
    the store's dedup_window_s and dedup_window_events.  Standard input gets new ids every time,
    unless --key names it.

    A gateway that is busy or restarting is asked again, with the same ids.  The exit code is 65
    when a row was rejected or could not be read.
    """
    from streamapp.cli.delivery import Sender, Target

    shape = Shape(text=text, conversation=conversation, id=id_column, kind=kind, source=source)
    target = Target(
        url=_url(url, settings),
        token=settings.token,
        retry_s=retry_s,
        rate=rate,
        topic=topic,
        tls=client_context(settings),
    )
    with _input(file, message) as source_:
        kind_of_file, key = source_.kind_and_key(kind_of_file, key)
        lines = Lines(source_.stream)
        rows = read_rows(lines, kind_of_file, shape, key)
        with _progress(source_.name, source_.size, lines) as show:
            sender = Sender(target, strict=strict, progress=show)
            try:
                asyncio.run(sender.send(rows))
            except KeyboardInterrupt:
                _summarise(sender.report, as_json=as_json)
                click.echo("interrupted: run it again, nothing is stored twice", err=True)
                raise
    _summarise(sender.report, as_json=as_json)
    return EXIT_REJECTED if sender.report.rejected or sender.report.skipped else 0


def _url(url: str | None, settings: Settings) -> str:
    if url:
        return url.rstrip("/")
    return gateway_url(settings)


class _Input(NamedTuple):
    """What is sent: a file, standard input (which has no path), or one message."""

    name: str
    stream: BinaryIO
    size: int | None = None
    path: Path | None = None
    kind: str = ""

    def kind_and_key(self, kind: str | None, key: str | None) -> tuple[str, str]:
        """The format, and what the ids are derived from; as the user said it, where he did."""
        if self.path is None:
            return kind or self.kind, key or uuid4().hex
        return kind or format_of(self.path), key or file_key(self.path)


@contextmanager
def _input(file: str | None, message: str | None) -> Iterator[_Input]:
    """The input, open."""
    if (file is None) == (message is None):
        raise click.UsageError("Give FILE, - or --message, and one of them only.")
    if message is not None:
        if not message.strip():
            raise click.BadParameter("is empty", param_hint="--message")
        line = json.dumps({"message": message}).encode()
        yield _Input("message", BytesIO(line), len(line), kind="jsonl")
        return
    assert file is not None  # noqa: S101  # one of both is there
    if file == "-":
        yield _Input("-", sys.stdin.buffer)
        return
    path = Path(file)
    try:
        stream = path.open("rb")  # closed below; errors of the body are not ours
        size = path.stat().st_size
    except OSError as error:
        raise Refuse("send.file", f"{file}: {error.strerror}", "check the path") from None
    with stream:
        yield _Input(path.name, stream, size, path)


@contextmanager
def _progress(name: str, size: int | None, lines: Lines) -> Iterator[Callable[["Report"], None]]:
    """A bar with rate and time left on a terminal, nothing elsewhere."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield lambda _report: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[events]:,} events {task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, transient=True) as bars:
        task = bars.add_task(name, total=size, events=0, rate=0.0)

        def show(report: "Report") -> None:
            elapsed_s = bars.tasks[0].elapsed or 0
            rate = report.sent / elapsed_s if elapsed_s else 0.0
            bars.update(task, completed=lines.bytes_read, events=report.sent, rate=rate)

        yield show


def _summarise(report: "Report", *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "sent": report.sent,
                "accepted": report.accepted,
                "rejected": report.rejected,
                "skipped": report.skipped,
                "retries": report.retries,
                "seconds": round(report.seconds, 3),
                "events_per_s": round(report.events_per_s, 1),
                "codes": dict(report.codes),
                "reasons": report.reasons,
            }
        )
        return
    click.echo(
        f"sent {report.sent:,} in {report.seconds:.1f} s ({report.events_per_s:,.0f}/s): "
        f"{report.accepted:,} accepted, {report.rejected:,} rejected, {report.skipped:,} unreadable"
        + (f", {report.retries} retries" if report.retries else "")
    )
    for reason in report.reasons:
        click.echo(
            harmless(f"  line {reason['line']}: {reason['message']} [{reason['code']}]"), err=True
        )
    hidden = sum(report.codes.values()) - len(report.reasons)
    if hidden:
        click.echo(f"  and {hidden:,} more", err=True)
