"""How an error of ours ends a program of Faust's: in two lines, with an exit code of its own.

Faust shows what ends a worker as one traceback for each service that hears of it, and exits with 1.
What is refused while the app's module is imported is shown by click, whose program ``faust`` is;
what comes up later ends the process here.  Outside a worker our errors are raised like any other.
"""

import logging
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, NoReturn
from weakref import WeakSet

import click

from streamapp.core.errors import Halt, Refuse, StreamappError

_SHOW_CURSOR = "\x1b[?25h"
#: In what mode and Faust log of an error that ends the app.
_ENDS = ("Crashed reason=", "Drain messages raised")
_guarded: WeakSet[Any] = WeakSet()


class Refused(Refuse, click.ClickException):
    """A Refuse that a program of click's shows in two lines."""

    def show(self, file: IO[Any] | None = None) -> None:
        """As click asks for before it exits with ``exit_code``."""
        click.echo(in_two_lines(self), file=file, err=True)


@contextmanager
def declaring() -> Iterator[None]:
    """What is refused in here ends ``faust -A`` in two lines; it stays a Refuse."""
    try:
        yield
    except Refuse as error:
        refused = Refused(error.code, error.message, error.fix)
        raise refused.with_traceback(error.__traceback__) from error.__cause__


def in_two_lines(error: StreamappError) -> str:
    """What was wrong, and the way out where there is one."""
    return f"error: {error.message}" + (f"\nfix: {error.fix}" if error.fix else "")


def stop_process(error: BaseException) -> NoReturn:
    """End this process at once; after such an error nothing is flushed or committed.

    The exit code is the error's own; ``os._exit`` because a clean shutdown would commit.
    """
    stderr = sys.__stderr__ or sys.stderr  # Faust turns sys.stderr into log lines
    if sys.__stdout__ is not None:
        sys.__stdout__.flush()  # Faust's banner, what the app printed
    if stderr.isatty():
        print(end=_SHOW_CURSOR, file=stderr)  # Faust's spinner hid it and shows it at exit only
    if isinstance(error, StreamappError):
        print(in_two_lines(error), file=stderr, flush=True)  # last words
        code = error.exit_code
    else:
        traceback.print_exception(error, file=stderr)
        print(f"error: {type(error).__name__}: {error}", file=stderr, flush=True)
        code = Halt.exit_code
    os._exit(code)


def end_in_two_lines(
    app: Any, ours: Callable[[Exception], Awaitable[Exception]] | None = None
) -> None:
    """Have an error of ours, at the start or later, end this app's worker by :func:`stop_process`.

    Args:
        app: not started.
        ours: our error for one of a driver's at the start, any other as it is.
    """
    if app in _guarded:  # a transport for its consumer, one for its producer
        return
    _guarded.add(app)
    start, crash = app.start, app._crash  # noqa: SLF001  # mode has no public place for either

    def end(error: BaseException) -> None:
        if app.in_worker and isinstance(error, StreamappError):
            stop_process(error)

    async def guarded_start() -> None:
        if app.in_worker:
            for handler in logging.getLogger().handlers:
                handler.addFilter(_without_traceback)
        try:
            await start()
        except Exception as error:
            end(error if ours is None else await ours(error))
            raise

    def guarded_crash(reason: BaseException) -> None:
        # Where mode reports that a task of any service in the app raised (mode.Service.crash).
        end(reason)
        crash(reason)

    app.start, app._crash = guarded_start, guarded_crash  # noqa: SLF001


def _without_traceback(record: logging.LogRecord) -> bool:
    """Take the traceback from what mode and Faust log when our error ends the app; the line stays.

    An agent that raised is started again and nothing but that traceback says where.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, StreamappError) and any(words in str(record.msg) for words in _ENDS):
        frames = traceback.walk_tb(error.__traceback__)
        if all(frame.f_globals.get("__name__") != "faust.agents.agent" for frame, _ in frames):
            record.exc_info = None
    return True
