"""The asking process: what ``streamapp ask`` runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streamapp import compose
from streamapp.agents.asking.serve import serve
from streamapp.agents.lanes import Log
from streamapp.core.config import Settings
from streamapp.core.errors import Refuse
from streamapp.core.metrics import Metrics
from streamapp.models.llm import Answer, Llm
from streamapp.models.llm.tasks import intent_question


async def run(settings: Settings, on_ready: Callable[[str], None] | None = None) -> None:
    """Answer what the worker is unsure of, until a signal.

    Raises:
        Refuse: no language model is declared, or the workflow asks nothing.
    """
    metrics = Metrics()
    workflow = compose.workflow(settings)
    if not workflow.asks:
        raise Refuse(
            "ask.nothing",
            f"{workflow.path} asks a language model about nothing",
            "set ask_below = 0 in [workflow] to ask about messages whose intent is unknown",
        )
    log = Log(
        compose.reader(settings),
        compose.producer(settings),
        compose.admin(settings),
        compose.members(settings),
    )
    await serve(
        declared(settings, metrics),
        labels(settings),
        log,
        metrics,
        port=settings.ask_port,
        drain_s=settings.drain_s,
        prepare=lambda: compose.ensure_topics(settings),
        on_ready=on_ready,
    )


async def tried(settings: Settings, text: str) -> Answer:
    """One question about a text, answered or not, without the log and without kept answers.

    Raises:
        Refuse, Retry, Reject: as ``Llm.ask``.
    """
    async with declared(settings, Metrics(), keep=False) as llm:
        return await llm.ask(intent_question(text, labels(settings)))


def declared(settings: Settings, metrics: Metrics, *, keep: bool = True) -> Llm:
    """The language model that the settings declare; called within an event loop.

    Raises:
        Refuse: there is none.
    """
    llm = Llm.of(settings, metrics, keep=keep)
    if llm is None:
        raise Refuse(
            "llm.none",
            "no language model is declared",
            "set LLM_BASE_URL (or llm_base_url) to an OpenAI-compatible server, "
            "such as http://127.0.0.1:1234/v1",
        )
    return llm


def labels(settings: Settings) -> Mapping[str, Sequence[str]]:
    """The intents that the workflow's stage knows, with descriptions where it has some."""
    workflow, stages = compose.workflow(settings), compose.plan(settings).stages
    stage = next((one for one in stages if "intent" in one.writes), None)
    if stage is None:
        return {}
    given: Mapping[str, Any] = workflow.options.get(stage.name, {}).get("labels", {})
    known = dict.fromkeys(getattr(stage, "labels", ()), ())
    return known | {
        name: (texts,) if isinstance(texts, str) else tuple(texts) for name, texts in given.items()
    }
