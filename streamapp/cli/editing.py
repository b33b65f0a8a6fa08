"""A dead letter's value in the user's editor, as ``git commit`` does it, or changed by flags."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, Self

import click
import msgspec

from streamapp.cli.letters import pretty
from streamapp.cli.output import harmless
from streamapp.core.errors import Refuse, Reject

#: Returns what would be sent, or raises Reject when that is no event.
Check = Callable[[bytes], bytes]
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Editing:
    """One edit; as a context it removes its file, which only its user could read, at the end."""

    def __init__(self) -> None:
        self._folder = Path(mkdtemp(prefix="streamapp-dlq-"))  # mode 0700
        self.path = self._folder / "event.json"
        self._kept = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            rmtree(self._folder, ignore_errors=True)

    def keep(self) -> Path:
        """Leave the file, so that no work is lost."""
        self._kept = True
        return self.path

    def run(self, value: bytes, about: Sequence[str], check: Check) -> bytes:
        """Let the user edit the value until it is an event.

        Args:
            value: as it is.
            about: lines above it, for the user.
            check: says what is wrong with what was saved.

        Raises:
            Refuse: nothing was changed, all was removed, the editor failed, or what was saved is no
                event (on a terminal the user is asked to go on first).
        """
        lines = [line for text in about for line in text.split("\n")]
        head = "".join(f"# {line}\n" for line in lines)
        before = _editable(value)
        self.path.touch(mode=0o600)
        self.path.write_text(f"{head}{before}\n")
        while True:
            self._edit()
            after = self._saved(len(lines))
            if not after:
                raise _nothing("the value was emptied")
            if _shortest(after) == _shortest(before.strip()):
                raise _nothing("nothing was changed")
            try:
                return check(_shortest(after))
            except Reject as error:
                self._again_or(error)

    def _edit(self) -> None:
        try:
            click.edit(filename=str(self.path))
        except click.ClickException as error:
            raise Refuse(
                "dlq.editor",
                error.format_message(),
                "set EDITOR to an editor that waits, like EDITOR='code --wait', or use --set",
            ) from None

    def _saved(self, lines_max: int) -> str:
        """What is under our lines, of which the user may have left fewer."""
        try:
            lines = self.path.read_text().split("\n")  # JSON may hold what else ends a line
        except FileNotFoundError:
            return ""
        except UnicodeDecodeError as error:
            raise Refuse(
                "dlq.edited", f"what was saved is not UTF-8 at byte {error.start}", "save it so"
            ) from None
        ours = list(takewhile(lambda line: line.startswith("#"), lines[:lines_max]))
        return "\n".join(lines[len(ours) :]).strip()

    def _again_or(self, error: Reject) -> None:
        """Go on when the user wants to.

        Raises:
            Refuse: not; what was saved is kept.
        """
        click.echo(harmless(f"no event: {error}"), err=True)
        if sys.stdin.isatty() and click.confirm("edit again?", default=True, err=True):
            return
        raise Refuse(
            "dlq.edited",
            f"what was saved is no event: {error.message}",
            f"nothing was sent; it is kept in {self.keep()}: mend it and give it with --file",
        )


def with_fields(value: bytes | None, fields: Mapping[str, Any]) -> bytes:
    """The JSON object with some members set; the others as they were written.

    Raises:
        Refuse: the value is no JSON object, or a member that is not set comes twice.
    """
    names: list[str] = []

    def outermost(pairs: list[tuple[str, Any]]) -> None:
        names[:] = [name for name, _ in pairs]  # objects are told from the inside out

    try:
        members = _members.decode(value or b"")
        with suppress(RecursionError):  # what is nested so deep is refused when it is checked
            json.loads(value or b"", object_pairs_hook=outermost)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise Refuse(
            "dlq.set",
            f"--set changes members of a JSON object, and the value is none: {error}",
            "edit it without --set, or give another value with --file",
        ) from None
    twice = sorted({name for name in names if names.count(name) > 1} - set(fields))
    if twice:
        raise Refuse(
            "dlq.set", f"{twice[0]!r} comes twice in the value", f"set it too: --set {twice[0]}=..."
        )
    merged = {**members, **{n: msgspec.Raw(msgspec.json.encode(v)) for n, v in fields.items()}}
    return msgspec.json.encode(merged)


def parse_field(text: str) -> tuple[str, Any]:
    """``name=value``: the value as JSON where it is some, else as text.

    Raises:
        Refuse: it has no name, or no equals sign.
    """
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise Refuse("dlq.set", f"--set {text!r} sets nothing", "write --set message='hello'")
    try:
        return name, msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return name, value


def _editable(value: bytes) -> str:
    """The value as text; bytes that are none as escapes, for the user to mend."""
    try:
        return pretty(value)
    except UnicodeDecodeError:
        return value.decode(errors="backslashreplace")


def _shortest(text: str) -> bytes:
    """JSON without the white space that was for the editor; what is none as it is."""
    value = text.encode()
    with suppress(msgspec.DecodeError, RecursionError):
        return msgspec.json.format(value, indent=-1)
    return value


def _nothing(why: str) -> Refuse:
    return Refuse("dlq.unchanged", f"{why}: nothing was sent", "save a change to send it")
