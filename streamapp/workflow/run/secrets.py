"""Secrets, where they are used: read late, and taken out of all that is said."""

from collections.abc import Callable

from streamapp.core.errors import StreamappError

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
