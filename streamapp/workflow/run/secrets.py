"""Secrets, where they are used: read late, and taken out of all that is said."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from streamapp.core.errors import Halt, StreamappError
from streamapp.plugin import Cancelled

SHOWN = "***"


class Redactor:
    """Knows the secrets that were read, and takes them out of texts."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def reading(self, read: Callable[[str], str]) -> Callable[[str], str]:
        """``read``, remembering what it gave."""

        def remember(reference: str) -> str:
            secret = read(reference)
            self._known.add(secret)
            return secret

        return remember

    def text(self, text: str) -> str:
        """A text without the secrets, the longest first."""
        for secret in sorted(self._known, key=len, reverse=True):
            text = text.replace(secret, SHOWN)
        return text

    def error(self, error: StreamappError) -> StreamappError:
        """The same error without them."""
        return type(error)(error.code, self.text(error.message), self.text(error.fix))

    def mistake(self, error: BaseException) -> Halt:
        """An error that is none of ours, without them; its traceback is a note."""
        what = self.text(f"{type(error).__name__}: {error}".splitlines()[0])
        fix = "this is a mistake in the operation; --json shows where"
        made = Halt("operation.error", what, fix)
        made.add_note(self.text("".join(traceback.format_exception(error))))
        return made

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Of a block, whatever an operation raises becomes one of our errors, without secrets."""
        try:
            yield
        except StreamappError as error:
            raise self.error(error) from None
        except (Cancelled, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001  # whatever an operation raises is told
            raise self.mistake(error) from None
