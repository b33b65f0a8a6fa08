"""What an admin has the store's process do: ``DoAction streamapp.NAME``, JSON in and out."""

import contextlib
import json
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from streamapp.core.errors import Refuse, Retry
from streamapp.flight.border import short

PREFIX = "streamapp."
_BODY_BYTES_MAX = 1 << 20

#: Arguments in, progress out; the last mapping has ``"done": True`` and what came of it.
Action = Callable[[Mapping[str, Any]], Iterator[Mapping[str, Any]]]


class Actions:
    """The actions of this server by name, each running once at a time."""

    def __init__(self, actions: Mapping[str, Action]) -> None:
        self._actions = dict(actions)
        self._busy = {name: threading.Lock() for name in actions}

    def described(self) -> list[tuple[str, str]]:
        """(``streamapp.NAME``, the first line of its docstring), as Flight lists them."""
        return [
            (PREFIX + name, (action.__doc__ or "admin token").strip().partition("\n")[0])
            for name, action in self._actions.items()
        ]

    def __contains__(self, action_type: str) -> bool:
        return action_type.startswith(PREFIX) and action_type[len(PREFIX) :] in self._actions

    def run(
        self, action_type: str, body: bytes, is_cancelled: Callable[[], bool]
    ) -> Iterator[bytes]:
        """One JSON object per mapping that the action yields.

        The action is closed when the client is gone, at its next yield.

        Raises:
            Refuse: the body is no JSON object, or whatever the action refuses.
            Retry: the action runs already, or whatever it says.
        """
        name = action_type[len(PREFIX) :]
        arguments = _arguments(body)
        if not self._busy[name].acquire(blocking=False):
            raise Retry("action.busy", f"{name} runs already", "wait until it has ended")
        try:
            with contextlib.closing(_generator(self._actions[name], arguments)) as results:
                for result in results:
                    yield json.dumps(result, default=str).encode()
                    if is_cancelled():
                        return
        finally:
            self._busy[name].release()


def _generator(
    action: Action, arguments: Mapping[str, Any]
) -> Generator[Mapping[str, Any], None, None]:
    yield from action(arguments)


def _arguments(body: bytes) -> Mapping[str, Any]:
    if len(body) > _BODY_BYTES_MAX:
        raise Refuse("action.body", f"the body is longer than {_BODY_BYTES_MAX:,} bytes")
    try:
        given = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise Refuse("action.body", f"the body is not JSON: {short(str(error), 200)}") from None
    if not isinstance(given, dict):
        raise Refuse("action.body", "the body is not a JSON object", 'send {} or {"name": value}')
    return given
