"""Dead letters to be rid of: chosen in one look through their topic, then erased or marked.

A log is erased from its beginning.  So what is chosen before the first letter that is kept is
erased, for every reader of the topic; what lies behind that is marked, and passed over.
"""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamapp.agents.letters import Found, Progress, no_progress
from streamapp.agents.replay import Replays
from streamapp.core.errors import Refuse
from streamapp.topics.dead import LetterAddress
from streamapp.transport.clients import Admin


@dataclass(slots=True)
class _Part:
    """Of one partition, seen from its end on: ``kept`` is the first letter that is kept so far."""

    begin: int
    kept: int
    chosen: "array[int]" = field(default_factory=lambda: array("q"))
    gone: int = 0
    gone_before_kept: int = 0


class Purge:
    """What a purge will do, known when every letter was seen.

    It takes eight bytes for each letter that is chosen.

    Args:
        bounds: what is looked through, as of :meth:`Letters.bounds`.
    """

    def __init__(self, bounds: Mapping[int, tuple[int, int]]) -> None:
        self._parts = {p: _Part(begin, end) for p, (begin, end) in bounds.items()}

    def see(self, found: Found, *, chosen: bool) -> None:
        """The next letter of its partition, later ones first.

        What someone else wrote is never erased, so that this does no harm to a topic of another
        kind.
        """
        part = self._parts[found.letter.address.partition]
        if chosen:
            part.chosen.append(found.letter.address.offset)
        if (chosen or found.purged) and not found.letter.is_foreign:
            part.gone += 1
            part.gone_before_kept += 1
        else:
            part.kept, part.gone_before_kept = found.letter.address.offset, 0

    def __len__(self) -> int:
        """How many letters are chosen."""
        return sum(len(part.chosen) for part in self._parts.values())

    @property
    def addresses(self) -> list[LetterAddress]:
        """The letters that are chosen, the newest of each partition first."""
        return [LetterAddress(p, at) for p, part in self._parts.items() for at in part.chosen]

    @property
    def erasable(self) -> int:
        """Letters that can be erased: those chosen now, and what was purged before."""
        return sum(part.gone_before_kept for part in self._parts.values())

    @property
    def behind(self) -> int:
        """Letters that are gone but lie behind one that is kept."""
        return sum(part.gone for part in self._parts.values()) - self.erasable

    async def run(
        self, topic: str, admin: Admin, replays: Replays, progress: Progress = no_progress
    ) -> Refuse | None:
        """Erase what can be, and mark the others; why nothing was erased where the log refuses.

        What is erased needs no mark: whoever is killed in between runs it again.

        Raises:
            Retry: the log does not answer; a purge of the same letters does what is left.
        """
        before = {p: part.kept for p, part in self._parts.items() if part.kept > part.begin}
        refused = None
        try:
            await admin.delete_records(topic, before)
        except Refuse as error:
            refused, before = error, {}
        for partition, part in self._parts.items():
            first = before.get(partition, part.begin)
            left = [at for at in reversed(part.chosen) if at >= first]
            progress(len(part.chosen) - len(left))
            await replays.purge(partition, left, progress)
        return refused
