"""``POST /api/chat``: an event out of what somebody says, slot by slot, by a language model."""

from streamapp.gateway.chat.api import routes

__all__ = ["routes"]
