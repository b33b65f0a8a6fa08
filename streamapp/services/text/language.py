"""Which language a text is in, by byte n-grams (PyPI package py3langid)."""

from collections.abc import Sequence
from typing import NamedTuple

from streamapp.plugin import Refuse

#: The beginning of a text tells its language; the rest would only cost time.
CHARS_MAX = 2000


class Told(NamedTuple):
    """A code of ISO 639-1, of 639-3 where that has none, and its probability; None without text."""

    language: str | None
    confidence: float | None


NOTHING = Told(None, None)


class Languages:
    """Texts to languages.

    Args:
        among: codes to choose from; none: all that it knows.

    Raises:
        Refuse: ``text.language``, it does not know one of them.
    """

    def __init__(self, among: Sequence[str] = ()) -> None:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        known = list(self._identifier.labels)
        if unknown := [code for code in among if code not in known]:
            raise Refuse(
                "text.language",
                f"config.languages: {unknown[0]!r} is no language that is known",
                f"use codes such as {', '.join(known[:12])}",
            )
        if among:
            self._identifier.set_languages(list(among))

    def tell(self, text: str) -> Told:
        """Of one text."""
        if not text.strip():
            return NOTHING
        code, sure = self._identifier.classify(text[:CHARS_MAX])
        return Told(str(code), float(sure))
