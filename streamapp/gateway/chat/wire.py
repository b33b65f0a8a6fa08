"""What ``/api/chat`` takes and answers, as types: encoded, and described in OpenAPI."""

from typing import Annotated, Any

from msgspec import Meta, Struct

MESSAGE_CHARS_MAX = 4000
SLOTS_MAX = 64

Slot = str | int | float | bool | None
Slots = Annotated[dict[str, Slot], Meta(max_length=SLOTS_MAX)]


class ChatAsked(Struct, forbid_unknown_fields=True):
    """One message of a conversation, and what was found out before.

    ``type``: of the event that is to be made; null: the model chooses among the learned ones.
    ``slots``: what earlier answers had in theirs.  ``submit``: send the event once nothing is
    missing.
    """

    message: Annotated[str, Meta(min_length=1, max_length=MESSAGE_CHARS_MAX)]
    type: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    slots: Slots = {}
    conversation_id: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    submit: bool = False


class ChatEvent(Struct):
    """Where the event is."""

    id: str
    topic: str
    partition: Annotated[int, Meta(ge=0)]
    offset: Annotated[int, Meta(ge=0)]


class ChatAnswer(Struct):
    """What is known by now.

    ``type``: null when the message tells of no type that is known; then there are no slots.
    ``missing``: slots that every event of the type had and this one has not.  ``reply``: what to
    say next, in the message's language.  ``event``: where it is, once it was sent.
    """

    type: str | None
    slots: dict[str, Any]
    missing: list[str]
    complete: bool
    reply: str
    model: str
    event: ChatEvent | None = None
