"""Which language model is asked, and how long one waits for it."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from streamapp.core.errors import Refuse
from streamapp.core.settings import Settings

_FIX = "write it like http://127.0.0.1:1234/v1"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible server.

    Attributes:
        base_url: up to where ``/chat/completions`` begins, usually ending in ``/v1``.
        model: as the server calls it; empty: the first one that it lists.
        api_key: sent as a bearer token, if there is one.
        answer_s_max: for one call.
        retry_s: from the first call of a question to the beginning of the last one.
        tokens_max: of one answer, reasoning included; one that is cut off gets twice as many, once.
        no_thinking: ask templates that can do so (Qwen3) not to think.
        calls_max: at once.
        waiting_max: questions that may wait for their turn.

    Raises:
        Refuse: ``llm.url``, ``llm.key``.
    """

    base_url: str
    model: str = ""
    api_key: str = field(default="", repr=False)
    answer_s_max: float = 60.0
    retry_s: float = 30.0
    tokens_max: int = 1024
    no_thinking: bool = False
    calls_max: int = 4
    waiting_max: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", _checked(self.base_url))
        if not (self.api_key.isascii() and self.api_key.isprintable()):
            raise Refuse("llm.key", "llm_api_key is not printable ASCII", "copy it again")

    @classmethod
    def of(cls, settings: Settings) -> "Endpoint | None":
        """The one that the settings declare; None: there is none."""
        if not settings.llm_base_url:
            return None
        return cls(
            settings.llm_base_url,
            settings.llm_model,
            settings.llm_api_key,
            answer_s_max=settings.llm_answer_s_max,
            retry_s=settings.llm_retry_s,
            tokens_max=settings.llm_tokens_max,
            no_thinking=settings.llm_thinking == "off",
            calls_max=settings.llm_calls_max,
        )


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if "@" in url.partition("//")[2].partition("/")[0]:  # before the URL is in any message
        raise Refuse("llm.url", "llm_base_url names a user, and URLs are shown", "set llm_api_key")
    if not good or parts.query or parts.fragment or not url.isprintable() or " " in url:
        shown = "" if "@" in url else f" {url[:200]!r}"  # of no form, and perhaps with a password
        raise Refuse("llm.url", f"llm_base_url{shown} is no server's URL", _FIX)
    return url.rstrip("/")
