"""All consumer instances of this gateway: bounded in number, and gone when nobody uses them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from streamapp.core.errors import StreamappError
from streamapp.gateway.confluent.errors import (
    INSTANCE_EXISTS,
    NO_INSTANCE,
    TOO_MANY,
    ConfluentError,
)
from streamapp.gateway.confluent.instances import Instance
from streamapp.gateway.problem import RETRY_AFTER

#: How often instances that nobody uses are looked for.
LOOK_EVERY_S = 0.5
#: How long a stopping gateway waits for all of them to leave their groups.
CLOSE_S_MAX = 3.0
_log = logging.getLogger("streamapp.gateway")


class Registry:
    """Instances by group and name."""

    def __init__(self, instances_max: int) -> None:
        self._max = instances_max
        self._instances: dict[tuple[str, str], Instance] = {}
        self._reaper: asyncio.Task[None] | None = None

    async def add(self, group: str, name: str | None, instance: Instance) -> str:
        """Start an instance and keep it; its name.

        Raises:
            ConfluentError: 40902 the name is taken, 42901 there are too many.
            Retry: the log does not answer.
        """
        name = name or f"rest-consumer-{uuid4()}"
        key = group, name
        if key in self._instances:
            raise ConfluentError(
                INSTANCE_EXISTS,
                "Consumer with specified consumer ID already exists in the specified consumer"
                " group.",
            )
        if len(self._instances) >= self._max:
            told = f"this gateway has {self._max} consumer instances already; delete one"
            raise ConfluentError(TOO_MANY, told, RETRY_AFTER)
        self._instances[key] = instance  # before the wait, so that nobody takes the name
        try:
            async with instance.lock:  # a deletion meanwhile comes after
                await instance.start()
        except BaseException:
            self._instances.pop(key, None)
            raise
        if self._reaper is None:
            self._reaper = asyncio.create_task(self._reap_all())
        return name

    def get(self, group: str, name: str) -> Instance:
        """The instance.

        Raises:
            ConfluentError: 40403.
        """
        found = self._instances.get((group, name))
        if found is None:
            raise _gone()
        return found

    @asynccontextmanager
    async def use(self, instance: Instance) -> AsyncIterator[None]:
        """Have it to oneself; one request waits for the other.

        Raises:
            ConfluentError: 40403 it was deleted meanwhile.
        """
        instance.touch()
        async with instance.lock:
            if instance.closing.is_set():
                raise _gone()
            try:
                yield
            finally:
                instance.touch()

    async def remove(self, group: str, name: str) -> None:
        """End an instance; a request that waits for records is answered first."""
        instance = self.get(group, name)
        del self._instances[group, name]
        await self._end(instance, commit=True)

    async def close(self) -> None:
        """End all."""
        reaper, self._reaper = self._reaper, None
        if reaper is not None:
            reaper.cancel()
            await asyncio.wait([reaper])
        instances, self._instances = list(self._instances.values()), {}
        try:
            async with asyncio.timeout(CLOSE_S_MAX):
                await asyncio.gather(*(self._end(instance, commit=True) for instance in instances))
        except TimeoutError:  # the log is away; their groups notice that they are too
            _log.warning("%d consumer instances did not leave their groups", len(instances))

    async def _reap_all(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for key, instance in list(self._instances.items()):
                if instance.expired and self._instances.pop(key, None) is not None:
                    # Whoever had its last records may not have done them: they come again.
                    await self._end(instance, commit=False)

    async def _end(self, instance: Instance, *, commit: bool) -> None:
        instance.closing.set()
        async with instance.lock:
            try:
                await instance.close(commit=commit)
            except StreamappError as error:
                _log.warning("a consumer instance did not end well: %s", error)


def _gone() -> ConfluentError:
    return ConfluentError(NO_INSTANCE, "Consumer instance not found.")
