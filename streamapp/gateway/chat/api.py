"""The route: a message and what is known before in, what is known now out."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web

from streamapp.core.errors import Reject, Retry, StreamappError
from streamapp.gateway.body import defer_continue, media_type, read_body
from streamapp.gateway.chat.slots import Form, form_of
from streamapp.gateway.chat.wire import ChatAnswer, ChatAsked, ChatEvent
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.problem import RETRY_AFTER, ProblemError, json_response
from streamapp.gateway.schemas import DeadLettered
from streamapp.gateway.split import JSON, unknown_media
from streamapp.gateway.stamp import TYPE_DEFAULT, stamp
from streamapp.models.llm.cache import Cache
from streamapp.models.llm.client import Llm
from streamapp.models.llm.question import Answer, Question
from streamapp.models.llm.tasks import UNKNOWN, choice_question
from streamapp.topics.catalogue import RAW

PATH = "/api/chat"
_SOURCE = PATH
_BODY_BYTES_MAX = 65_536
#: The model chooses among so many types, those that came most often.
_TYPES_MAX = 40
_REPLY_CHARS_MAX = 200
_LINE_CHARS_MAX = 500
_log = logging.getLogger("streamapp.gateway")
_decode = msgspec.json.Decoder(ChatAsked).decode
_encode = msgspec.json.Encoder().encode


def routes(gateway: Gateway) -> list[web.RouteDef]:
    """The route; the model is asked only when somebody calls it."""
    chat = Chat(gateway)
    gateway.closing.append(chat.close)
    return [web.post(PATH, chat.chat, expect_handler=defer_continue)]


class Chat:
    """The handler."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._made: Llm | None = None

    async def close(self) -> None:
        """Ask nothing more."""
        if self._made is not None:
            await self._made.close()

    async def chat(self, request: web.Request) -> web.Response:
        """What one message adds to what is known."""
        asked = await self._asked(request)
        llm = self._llm()
        await self._gateway.watch.catch_up()
        form, chosen_by = await self._form(llm, asked)
        if form is None:
            return json_response(
                ChatAnswer(None, {}, [], complete=False, reply="", model=chosen_by)
            )
        _check(asked, form)
        answer = await _ask(llm, form.question(asked.message, asked.slots))
        filled = {name: value for name, value in asked.slots.items() if value is not None}
        filled |= form.taken(answer.value["slots"])
        missing = form.missing(filled)
        told = ChatAnswer(
            form.kind,
            filled,
            missing,
            complete=not missing,
            reply=_reply(answer.value.get("reply"), missing),
            model=answer.model,
        )
        if asked.submit and told.complete:
            told.event = await self._sent(asked, form, filled)
        return json_response(told)

    async def _asked(self, request: web.Request) -> ChatAsked:
        media = media_type(request.headers.get("Content-Type", ""))
        if media not in JSON:
            raise unknown_media(media, "application/json")
        with self._gateway.budget.lease() as lease:
            body = await read_body(request, self._gateway.config, lease, _BODY_BYTES_MAX)
        try:
            return _decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise ProblemError(
                400, "chat.json", f"the body is no question: {error}", 'send {"message": "..."}'
            ) from None

    def _llm(self) -> Llm:
        config = self._gateway.config
        if config.llm is None:
            raise ProblemError(
                404, "llm.none", "this gateway has no language model", "set llm_base_url"
            )
        if self._made is None:
            keeps = config.llm_answers_file is not None and config.llm_answers_max > 0
            cache = (
                Cache(config.llm_answers_file, config.llm_answers_max)
                if keeps and config.llm_answers_file is not None
                else None
            )
            self._made = Llm(config.llm, self._gateway.metrics, cache)
        return self._made

    async def _form(self, llm: Llm, asked: ChatAsked) -> tuple[Form | None, str]:
        """What is to be filled in, and which model chose it; None when nothing fits."""
        learned = self._gateway.watch.learned
        if asked.type is not None:
            shape = learned.whole(asked.type)
            if shape is None:
                raise ProblemError(
                    404,
                    "schema.unknown",
                    f"no event of type {asked.type[:120]!r} was seen",
                    "GET /api/schemas names those that were",
                )
            return form_of(asked.type, shape), ""
        shapes = [(kind, one) for kind, one in learned.all().items() if kind != TYPE_DEFAULT]
        common = sorted(shapes, key=lambda pair: -pair[1].count)[:_TYPES_MAX]
        forms = {kind: form_of(kind, shape) for kind, shape in common}
        forms = {kind: form for kind, form in forms.items() if form.slots}
        if not forms:
            raise ProblemError(
                404, "schema.none", "no type of event with fields was seen", "send some events"
            )
        fields = {kind: tuple(form.slots) for kind, form in forms.items()}
        answer = await _ask(llm, choice_question(asked.message, fields))
        kind = answer.value["type"]
        return (None if kind == UNKNOWN else forms[kind]), answer.model

    async def _sent(self, asked: ChatAsked, form: Form, filled: Mapping[str, Any]) -> ChatEvent:
        """Send the event as any door does; what its topic does not take is refused."""
        gateway = self._gateway
        target = gateway.target(RAW)
        conversation = {"conversation_id": asked.conversation_id} if asked.conversation_id else {}
        event = {**filled, "type": form.kind, "message": asked.message, **conversation}
        with gateway.budget.lease() as lease:
            lease.take(events=1)
            try:
                stamped = stamp(
                    _encode(event),
                    source=_SOURCE,
                    received_us=gateway.clock.now_us(),
                    bytes_max=target.event_bytes_max,
                )
                stamped = gateway.settled(target, stamped)
            except Reject:
                gateway.delivery.rejected(1)
                raise
            (outcome,) = await gateway.delivery.send(target.name, [stamped.record])
        if isinstance(outcome, DeadLettered):
            raise Reject(outcome.code, outcome.message, outcome.fix)
        if isinstance(outcome, Reject):
            raise outcome
        return ChatEvent(stamped.id, outcome.topic, outcome.partition, outcome.offset)


def _check(asked: ChatAsked, form: Form) -> None:
    for name, value in asked.slots.items():
        if value is not None and not form.fits(name, value):
            known = ", ".join(f"{slot} ({'/'.join(kinds)})" for slot, kinds in form.slots.items())
            raise ProblemError(
                400,
                "chat.slot",
                f"slot {name[:120]!r} of type {form.kind} cannot be {str(value)[:80]!r}",
                f"there are: {known[:1000] or 'none'}",
            )


def _reply(said: str | None, missing: Sequence[str]) -> str:
    """What to say next; a model that said nothing is spoken for, in English."""
    asks = f"Please tell: {', '.join(missing)}." if missing else ""
    return (said or asks)[:_REPLY_CHARS_MAX]


async def _ask(llm: Llm, question: Question) -> Answer:
    """The model's answer; a problem of the caller's when there is none.

    Raises:
        ProblemError: 503 it does not answer now, 502 it answers something else.
    """
    try:
        return await llm.ask(question)
    except Retry as error:
        _log.warning("%s: %s", PATH, _line(error))
        what = "the language model does not answer now"
        raise ProblemError(503, error.code, what, "ask again", RETRY_AFTER) from None
    except Reject as error:
        _log.warning("%s: %s", PATH, _line(error))
        what = "the language model gave no answer to this"
        raise ProblemError(502, error.code, what, "say it in other words") from None
    except StreamappError as error:
        _log.error("%s: %s", PATH, _line(error))
        what = "the language model is not set up as it was declared"
        raise ProblemError(503, error.code, what, "tell its operator", RETRY_AFTER) from None


def _line(error: StreamappError) -> str:
    """For the log: what a model said may have lines, and be long."""
    return f"{error.code}: {' '.join(str(error).split())}"[:_LINE_CHARS_MAX]
