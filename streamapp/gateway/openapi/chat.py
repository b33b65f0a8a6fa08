"""``/api/chat``, described."""

from streamapp.gateway.chat import wire
from streamapp.gateway.chat.api import PATH
from streamapp.gateway.openapi.model import JSON, Content, Operation, Reply
from streamapp.gateway.openapi.native import GUARDED, OF_BODIES, PROBLEMS

TAG = "Chat"
_EXAMPLE = {"message": "two pizzas to Main Street 5", "type": "Order", "slots": {"size": "large"}}


def operations() -> list[Operation]:
    """What ``chat.routes`` has."""
    return [
        Operation(
            "POST",
            PATH,
            TAG,
            "Fill in an event from what somebody says",
            {200: Reply("What is known by now.", (Content(JSON, wire.ChatAnswer),))},
            about="The fields of the event's learned type are slots; a language model takes their "
            "values from the message. Send the answer's `slots` with the next message. With "
            "`submit` the event is sent once no slot is missing. 404 without a language model "
            "(`llm_base_url`).",
            errors=(*OF_BODIES, *GUARDED, 404, 502),
            problem=PROBLEMS,
            bodies=(Content(JSON, wire.ChatAsked, _EXAMPLE),),
        )
    ]
