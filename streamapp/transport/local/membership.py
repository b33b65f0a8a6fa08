"""An app's place in its group: a lease, a thread for the group's file, a bell for the others."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from streamapp.transport.local.groups import FOLDER, Groups, Standing
from streamapp.transport.local.lease import Lease
from streamapp.transport.local.wake import GROUPS, Bell


class Membership:
    """Used on one event loop; the group's file is touched on a thread of its own.

    Args:
        folder: the log's.
        group: its name.
        patience_s: how long a generation may wait for one member.
        on_lapse: called, from another thread, when the member was put out or stopped too long.
    """

    def __init__(
        self, folder: Path, group: str, patience_s: float, on_lapse: Callable[[], object]
    ) -> None:
        self._folder = folder
        self._group = group
        self._patience_s = patience_s
        self._on_lapse = on_lapse
        self._lease: Lease | None = None
        self._file: Groups | None = None
        self._bell = Bell(folder)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log-group")

    def is_current(self) -> bool:
        """False when this app is no member, or must not act as one; see :class:`Lease`."""
        return self._lease is not None and self._lease.is_current()

    async def join(self, metadata: bytes | None = None) -> None:
        """Become a member; one that was put out comes back as another.

        ``metadata`` is of a plain member: see :meth:`Groups.join`.
        """
        await self._leave()
        self._lease = Lease(self._folder / FOLDER, self._on_lapse)
        await self._tell(Groups.join, self._lease.member, metadata)

    async def look(self) -> Standing:
        """How the group stands; see :meth:`Groups.look`."""
        standing: Standing = await self._run(Groups.look, self._member, self._patience_s)
        if standing.put_out:
            self._bell.ring(GROUPS)
        return standing

    async def restart(self) -> None:
        """Ask for a new generation."""
        await self._tell(Groups.restart)

    async def ready(self, generation: int, metadata: bytes) -> None:
        """Hold nothing and wait for what this generation assigns."""
        await self._tell(Groups.ready, self._member, generation, metadata)

    async def assign(self, generation: int, assignments: Mapping[str, bytes]) -> None:
        """Say what each member gets."""
        await self._tell(Groups.assign, generation, assignments)

    async def take(self, generation: int) -> bool:
        """Hold what was assigned; False when there is a newer generation already."""
        taken: bool = await self._run(Groups.take, self._member, generation)
        return taken

    async def commit(self, generation: int, offsets: Mapping[tuple[str, int], int]) -> bool:
        """Commit for the group; False from one that does not hold this generation."""
        done: bool = await self._run(Groups.commit, self._member, generation, offsets)
        return done

    async def leave(self) -> None:
        """Leave the group, at once for the others, and end; more than once does nothing."""
        try:
            await self._leave()
        finally:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            self._thread.shutdown()

    @property
    def _member(self) -> str:
        return self._lease.member if self._lease is not None else ""

    async def _leave(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.end()
            await self._tell(Groups.leave, lease.member)

    async def _tell(self, work: Callable[..., Any], *arguments: Any) -> None:
        await self._run(work, *arguments)
        self._bell.ring(GROUPS)

    async def _run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, partial(self._work, work, *arguments)
        )

    def _work(self, work: Callable[..., Any], *arguments: Any) -> Any:
        if self._file is None:
            self._file = Groups(self._folder)
        return work(self._file, self._group, *arguments)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._bell.close()
