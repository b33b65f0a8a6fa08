"""``streamapp store verify|rebuild|backup|archive|retain``: the upkeep of what is stored.

It is done by whoever has the file: the running store's process, over Flight, or this one.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamapp.cli.options import PlaceParam, json_option, missing_log, settings_options
from streamapp.cli.output import bytes_text, console, harmless, print_json, print_table
from streamapp.cli.run import store
from streamapp.core.config import Settings
from streamapp.core.counted import counted
from streamapp.core.errors import Refuse, Retry

if TYPE_CHECKING:
    from streamapp.sink.rebuild import Source
    from streamapp.sink.verify import Window

__all__ = ["store"]

Steps = Iterator[Mapping[str, Any]]
_STORE = (
    "db_path",
    "flight_host",
    "flight_port",
    "flight_admin_token",
    "flight_ca_file",
    "token",
    "dedup_window_s",
    "dedup_window_events",
)
_MEMORY = ":memory:"
#: What to do instead where the store is Parquet.
_IN_PARQUET = {
    "verify": "streamapp parquet verify",
    "backup": "copy {root} with your object store's tools, first _manifest and then the data",
    "archive": "the store is an archive already: `streamapp parquet files` lists it",
    "rebuild": "stop the store, name an empty root (STREAMAPP_PARQUET_URL), and start it",
}
_path = PlaceParam()
_before = click.option("--before", metavar="DATE", help="What came in before it: 2026-11-22.")


@store.command(
    examples=["streamapp store verify", "streamapp store verify --deep --json | jq .findings"]
)
@click.option("--deep", is_flag=True, help="Read every value too: finds damaged blocks.")
@json_option
@settings_options(*_STORE)
def verify(settings: Settings, deep: bool, as_json: bool) -> int:
    """Check rows against the ledger: nothing missing, nothing twice, nothing from nowhere.

    Reads only.  Exit code 65: events are missing (holes) or repeated; 70: the store contradicts
    itself.
    """
    report = _last(_steps(settings, "verify", deep=deep), as_json=as_json)
    return reported(report, settings.store_path, as_json=as_json)


@store.command(
    examples=[
        "streamapp store backup /backup/events.duckdb",
        "streamapp store backup /backup/today.duckdb --replace",
    ]
)
@click.argument("target", type=_path)
@click.option("--replace", is_flag=True, help="Overwrite a file that is there.")
@json_option
@settings_options(*_STORE)
def backup(settings: Settings, target: Path, replace: bool, as_json: bool) -> int:
    """Copy the store to TARGET while it runs: a store of its own, at one moment.

    TARGET is a file on the machine of whoever has the store open.  It appears when it is whole and
    was read back.
    """
    steps = _steps(settings, "backup", target=str(target.absolute()), replace=replace)
    report = _last(steps, as_json=as_json)
    if not as_json:
        click.echo(f"{report['target']}  {bytes_text(report['bytes'])}")
    return reported(report, settings.store_path, as_json=as_json)


@store.command(
    examples=[
        "streamapp store archive /archive",
        "streamapp store archive /archive --before 2026-11-01",
        "duckdb -init /archive/read.sql -c 'from archived_events limit 5'",
    ]
)
@click.argument("folder", type=_path)
@_before
@json_option
@settings_options(*_STORE)
def archive(settings: Settings, folder: Path, before: str | None, as_json: bool) -> None:
    """Write rows as Parquet, a folder for each day and topic; what is there already is skipped.

    DATE is a day (UTC).  FOLDER/read.sql makes views for DuckDB; pyarrow reads the files as they
    are, vectors with their length.
    """
    steps = _steps(settings, "archive", folder=str(folder.absolute()), before=before)
    done = _last(steps, as_json=as_json)
    _show(
        done,
        f"{counted(done['rows'], 'row')} in {counted(done['files'], 'new file')}",
        as_json=as_json,
    )


@store.command(
    examples=[
        "streamapp store retain --days 30",
        "streamapp store retain --before 2026-11-01 --archive /archive",
        "streamapp store retain --keep-rows 10000000",
    ]
)
@click.option("--days", type=click.IntRange(min=0), metavar="N", help="Keep the last N days.")
@_before
@click.option(
    "--keep-rows",
    type=click.IntRange(min=0),
    metavar="N",
    help="Keep the newest N, and what came in with the last of them.",
)
@click.option("--archive", "folder", type=_path, help="Write them there first, as Parquet.")
@json_option
@settings_options(*_STORE, "parquet_url")
def retain(
    settings: Settings,
    days: int | None,
    before: str | None,
    keep_rows: int | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Drop old events and dead letters; they never come back, and their space is used again.

    Age is that of arrival (ingest_time).  What the dedup window still needs stays.
    """
    given = {"days": days, "before": before, "keep_rows": keep_rows}
    if sum(value is not None for value in given.values()) != 1:
        raise click.UsageError(
            "give one of --days, --before and --keep-rows", click.get_current_context()
        )
    if folder is not None:
        given["archive"] = str(folder.absolute())
    done = _last(_steps(settings, "retain", **given), as_json=as_json)
    said = f"{counted(done['rows'], 'row')} and {counted(done['dead'], 'dead letter')} dropped"
    if done["before"]:
        said += f", which came in before {done['before']}"
    if done["kept_for_dedup"]:
        kept = counted(done["kept_for_dedup"], "row")
        said += f"; {kept} kept for the dedup window (dedup_window_s)"
    _show(done, said, as_json=as_json)


@store.command(
    examples=[
        "streamapp store rebuild",
        "streamapp store rebuild --broker kafka+batch://host:9092 --replace",
    ]
)
@click.option("--accept-gap", is_flag=True, help="Go on where the topic's beginning is gone.")
@click.option("--replace", is_flag=True, help="Keep nothing of the old file.")
@json_option
@settings_options("db_path", "broker", "topics_dir", "models_dir", *_STORE[-2:])
def rebuild(settings: Settings, accept_gap: bool, replace: bool, as_json: bool) -> int:
    """Make the store anew from events.enriched, beside the old one; no model runs.

    The store's process must not run.  The old file is replaced by one rename when the new one is
    whole and verified, and kept as FILE.before-rebuild.  One that was killed goes on where it was.
    """
    _in_duckdb(settings, "rebuild")
    if settings.store_path == _MEMORY:
        raise Refuse("store.memory", "the store is in memory", "start it: it reads the topic")
    if (folder := missing_log(settings)) is not None:
        raise Refuse("log.missing", f"there is no log at {folder}", "see STREAMAPP_BROKER")
    report = asyncio.run(
        _rebuild(settings, accept_gap=accept_gap, replace=replace, as_json=as_json)
    )
    if not as_json:
        kept = f", the old one is {report['kept']}" if report["kept"] else ""
        click.echo(f"{report['store']} is new{kept}")
        for range_ in report["gone"]:
            click.echo(f"lost: {range_}")
        if report["kept"] and report["old"]:  # what was retained is known only from there
            click.echo(f"the old one told nothing ({report['old']}): what was dropped is back")
    return reported(report, settings.store_path, as_json=as_json)


async def _rebuild(
    settings: Settings, *, accept_gap: bool, replace: bool, as_json: bool
) -> Mapping[str, Any]:
    from streamapp.sink.rebuild import rebuild as rebuilt

    report: Mapping[str, Any] = {}
    with _shown(as_json=as_json) as show:
        async with (
            _source(settings) as source,
            contextlib.aclosing(
                rebuilt(Path(settings.store_path), source, accept_gap=accept_gap, replace=replace)
            ) as steps,
        ):
            async for report in steps:
                show(report)
    return report


@contextlib.asynccontextmanager
async def _source(settings: Settings) -> AsyncIterator["Source"]:
    from streamapp import compose
    from streamapp.sink.rebuild import Source
    from streamapp.topics.catalogue import ENRICHED

    async with contextlib.AsyncExitStack() as stack:
        admin, reader = compose.admin(settings), compose.reader(settings)
        for client in (admin, reader):
            await client.start()
            stack.push_async_callback(client.stop)
        there = await admin.topics()
        if ENRICHED not in there:
            what = f"{settings.broker_url} has no topic {ENRICHED}"
            raise Refuse("topic.missing", what, "is it the right broker?")
        columns = {field.name: field.type for field in compose.plan(settings).columns()}
        yield Source(
            reader=reader,
            topic=ENRICHED,
            partitions=there[ENRICHED].partitions,
            columns=columns,
            window=_window(settings),
        )


def _window(settings: Settings) -> "Window":
    from streamapp.sink.verify import Window

    return Window(settings.dedup_window_s, settings.dedup_window_events)


def _steps(settings: Settings, name: str, **arguments: Any) -> Steps:
    """The action's steps, from this process if nobody has the file open."""
    from streamapp.sink import keep, upkeep
    from streamapp.sink.parquet.place import open_place

    path, window = settings.store_path, _window(settings)
    if settings.store == "parquet" and name == "retain":
        path = open_place(settings.parquet_root).url
        opening = upkeep.of_root(path, window)
    else:
        _in_duckdb(settings, name)
        opening = upkeep.of_file(path, window, name)
        if path == _MEMORY or not keep.is_there(Path(path)):
            yield from _asked(settings, name, arguments, _missing(settings))
            return
    with contextlib.ExitStack() as stack:
        try:
            action = stack.enter_context(opening)
        except Refuse as refusal:
            if refusal.code != "store.locked":
                raise
            arguments["store"] = path
            yield from _asked(settings, name, arguments, refusal)
            return
        yield from action(arguments)


def _asked(
    settings: Settings, name: str, arguments: Mapping[str, Any], unreachable: Refuse
) -> Steps:
    """The steps of the running store; ``unreachable`` when there is none."""
    from streamapp.flight import Client

    try:
        yield from Client.of(settings, admin=True).action(name, **arguments)
    except Retry as retry:
        if retry.code == "flight.unreachable":
            raise unreachable from None
        raise


def _in_duckdb(settings: Settings, verb: str) -> None:
    """Refuse a Parquet store with the way out."""
    if settings.store == "parquet":
        what = f"`streamapp store {verb}` is for DuckDB's file, and the store is {settings.store}"
        root = settings.parquet_root
        raise Refuse("store.kind", what, _IN_PARQUET[verb].format(root=root))


def _missing(settings: Settings) -> Refuse:
    where = f"{settings.flight_host}:{settings.flight_port}"
    return Refuse(
        "store.missing",
        f"there is no store at {settings.store_path}, and nothing answers at {where}",
        "see STREAMAPP_DB_PATH and STREAMAPP_FLIGHT_PORT, or start it: streamapp up",
    )


def _last(steps: Steps, *, as_json: bool) -> Mapping[str, Any]:
    """Show the steps as they come; the last one is what came of it."""
    step: Mapping[str, Any] = {}
    with _shown(as_json=as_json) as show:
        for step in steps:
            show(step)
    if not step.get("done"):
        raise Retry("store.ended", "the store ended before it was done", "run it again")
    return step


@contextlib.contextmanager
def _shown(*, as_json: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A progress bar on a terminal, else nothing."""
    screen = console(stderr=True)
    if as_json or not screen.is_terminal:
        yield lambda _step: None
        return
    from rich.progress import Progress

    with Progress(console=screen, transient=True) as progress:
        task = progress.add_task("")

        def show(step: Mapping[str, Any]) -> None:
            if not step.get("done"):
                about = step.get("check") or step.get("file") or step.get("table") or ""
                text = harmless(str(about))
                progress.update(task, description=text, completed=step["at"], total=step["of"])

        yield show


def _show(done: Mapping[str, Any], said: str, *, as_json: bool) -> None:
    if as_json:
        print_json(done)
    else:
        click.echo(said)


def reported(report: Mapping[str, Any], store: str, *, as_json: bool) -> int:
    """Print a verification's report; its exit code, or the error that it is."""
    from streamapp.sink.verify import failure

    error = failure(report, store)
    if as_json:
        print_json(report)
        return error.exit_code if error else 0
    names = ("rows", "dead", "lost", "retained")
    click.echo("  ".join(f"{name} {report[name]:,}" for name in names))
    if report["findings"]:
        rows = [tuple(map(harmless, found.values())) for found in report["findings"]]
        print_table(("what", "where", "why"), rows)
    if error:
        raise error
    click.echo("every promise of the store holds")
    return 0
