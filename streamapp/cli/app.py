"""``streamapp``: the list of verbs, and where errors become messages and exit codes."""

import json
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import click

from streamapp.cli.framework import VerbGroup
from streamapp.cli.output import print_error, to_nobody
from streamapp.core.errors import StreamappError

EXIT_INTERRUPTED = 130
EXIT_UNEXPECTED = 70


class Entry(NamedTuple):
    """Where a verb is and what it is for."""

    where: str
    about: str


#: All verbs, by the section of ``streamapp --help`` they stand in.
SECTIONS = {
    "Start here": {
        "init": Entry("init:init", "Write a project: topics, models, Procfile, a sample stage."),
        "up": Entry("up:up", "Run all four processes on this machine."),
        "demo": Entry("demo:demo", "Send real messages through a temporary project and show them."),
        "doctor": Entry("doctor:doctor", "Check this machine and say how to mend it."),
    },
    "Events": {
        "send": Entry("send:send", "Send the rows of a file as events."),
        "query": Entry("query:query", "Ask the store in SQL."),
        "tail": Entry("tail:tail", "Print rows as they are stored."),
        "sql": Entry("sql:sql", "A prompt for SQL on the store."),
        "parquet": Entry("parquet:parquet", "Look into the Parquet store."),
        "ring": Entry("ring:ring", "Look into this host's ring of frames."),
        "topics": Entry("topics:topics", "List the log's topics, or create them."),
        "attachments": Entry("attachments:attachments", "List or sweep large attachments."),
        "dlq": Entry("dlq:dlq", "Look at dead letters, mend them, send them again."),
    },
    "Workflows": {
        "run": Entry("flow_run:run", "Run a workflow's file over files, databases or topics."),
        "dev": Entry("dev:dev", "Show the last rows through a workflow's stage on every save."),
        "workflow": Entry("workflow:workflow", "Check, plan, draw, test, resume a workflow."),
        "text": Entry("text:text", "Count, judge and compare documents."),
        "pipeline": Entry("pipeline:pipeline", "Filter, compute and group the rows of a file."),
    },
    "Processes": {
        "gateway": Entry("run:gateway", "Take events over HTTP."),
        "worker": Entry("run:worker", "Enrich events."),
        "store": Entry("store:store", "Store enriched events and answer SQL; verify, back up."),
        "terminal": Entry("run:terminal", "Mirror enriched events into this host's ring."),
        "export": Entry("export:export", "Post enriched rows to webhooks; replay what failed."),
        "ask": Entry("ask:ask", "Ask a language model what the workflow is unsure of."),
    },
    "Parts": {
        "models": Entry("models:models", "Fetch, check, add and promote models."),
        "intents": Entry("intents:intents", "Train intents on examples, and judge them."),
        "stage": Entry("stage:stage", "List stages, or start one of your own."),
        "invoke": Entry("invoke:invoke", "Run one stage on a few events, without any broker."),
        "stdio": Entry("stdio:stdio", "Run operations for a program of any language, by lines."),
        "token": Entry("token:token", "Create, list and revoke tokens with scopes."),
        "config": Entry("config:config", "Show every setting and where it came from."),
        "completion": Entry("completion:completion", "Print the completion script of a shell."),
    },
}
VERBS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class _Root(VerbGroup):
    """Imports a verb's module when the verb is called; its help is written from the table above."""

    def list_commands(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's signature
    ) -> list[str]:
        return list(VERBS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's signature
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, _, attribute = VERBS[cmd_name].where.partition(":")
        command: click.Command = getattr(import_module(f"streamapp.cli.{module}"), attribute)
        command.short_help = VERBS[cmd_name].about
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        width = max(map(len, VERBS))
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                rows = [(f"{name:{width}}", entry.about) for name, entry in verbs.items()]
                formatter.write_dl(rows)


@click.group(
    cls=_Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    examples=[
        "streamapp demo",
        "streamapp init shop && cd shop && streamapp up",
        "streamapp send messages.csv --text message --type UserMessage",
        'streamapp query "select language, count(*) from events group by 1"',
    ],
)
@click.version_option(package_name="streamapp", message="streamapp %(version)s")
def streamapp() -> None:
    """Models in your Kafka stream: events in over REST, enriched rows and tensors out.

    Every setting has one name: --gateway-port on the command line, STREAMAPP_GATEWAY_PORT in the
    environment and in .env, gateway_port in streamapp.toml.  See streamapp config show.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.  No error leaves here as a traceback.

    Args:
        arguments: without the program's name; None: those of the process.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = streamapp.main(arguments, prog_name="streamapp", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:  # a group without its verb
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has seen enough
        to_nobody(sys.stdout)
        return 1
    except Exception as error:  # noqa: BLE001  # the last stop before the user's terminal
        if "--debug" in arguments:
            traceback.print_exc()
        failure = _failure(error, arguments)
        _report(failure, as_json="--json" in arguments)
        return failure.exit_code
    return result if isinstance(result, int) else 0


class _Failure(NamedTuple):
    code: str
    message: str
    fix: str
    exit_code: int


def _failure(error: Exception, arguments: Sequence[str]) -> _Failure:
    """What to say of an error."""
    if isinstance(error, StreamappError):
        return _Failure(error.code, error.message, error.fix, error.exit_code)
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "streamapp"
        return _Failure("cli.usage", error.format_message(), f"see `{path} --help`", 2)
    if isinstance(error, click.ClickException):
        return _Failure("cli.error", error.format_message(), "", error.exit_code)
    strange = [one for one in arguments if one.encode(errors="ignore").decode() != one]
    if strange and isinstance(error, UnicodeEncodeError | TypeError):  # TypeError: of a host's name
        return _Failure("cli.usage", f"{strange[0]!r} is not UTF-8", "write it in UTF-8", 2)
    if isinstance(error, OSError) and error.filename:  # a file that no verb asks for by itself
        what = f"{error.filename}: {error.strerror}"
        return _Failure("cli.file", what, "check the path, its mode and the disk", 2)
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    fix = "run it again with --debug for the traceback, and report it"
    return _Failure("cli.unexpected", f"unexpected {what}", fix, EXIT_UNEXPECTED)


def _report(failure: _Failure, *, as_json: bool) -> None:
    if as_json:
        error: dict[str, Any] = failure._asdict()
        del error["exit_code"]
        click.echo(json.dumps({"error": error}, ensure_ascii=False))
        return
    print_error(failure.message, failure.fix)
