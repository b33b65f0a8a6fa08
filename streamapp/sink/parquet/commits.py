"""The writer's end of the manifest: entries made, old ones taken away."""

import contextlib
import secrets
from collections.abc import Iterator, Sequence

import pyarrow as pa

from streamapp.core import clock
from streamapp.core.errors import Halt, Retry
from streamapp.sink.parquet import manifest
from streamapp.sink.parquet.manifest import Entry, File, Position, Range, Retained, Retired, State
from streamapp.sink.parquet.place import Place


class Commits:
    """What is stored, and the one way to change that.

    After an OSError or a Retry of these methods only the manifest knows whether the entry is there:
    call :meth:`load`.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._writer = secrets.token_hex(8)
        self.state = State()

    def load(self) -> None:
        """Read back what is stored."""
        self.state = manifest.load(self.place)

    def commit(
        self,
        files: Sequence[File],
        ranges: Sequence[Range],
        positions: Sequence[Position],
        next_order: int,
    ) -> None:
        """Store files, ranges and positions, all or none."""
        self._create(
            Entry(
                number=self.state.number + 1,
                kind="commit",
                writer=self._writer,
                stored_at_us=clock.now_us(),
                next_order=next_order,
                files=tuple(files),
                ranges=tuple(ranges),
                positions=tuple(positions),
            )
        )

    def checkpoint(
        self,
        schema: pa.Schema,
        files: Sequence[File],
        retired: Sequence[Retired],
        dropped: Sequence[Retained] = (),
    ) -> None:
        """Say anew what there is, and take away what stood before the last checkpoint."""
        state, before = self.state, self.state.checkpoint
        self._create(
            Entry(
                number=state.number + 1,
                kind="checkpoint",
                writer=self._writer,
                stored_at_us=clock.now_us(),
                next_order=state.next_order,
                files=tuple(files),
                ranges=manifest.joined(state.ranges),
                positions=tuple(state.positions.values()),
                retired=tuple(retired),
                retained=manifest.joined_retained((*state.retained, *dropped)),
                columns=manifest.schema_text(schema),
            )
        )
        for number in manifest.numbers(self.place):  # the lowest first, see _check_place_of
            if number < before:
                self.place.remove(manifest.path_of(number))

    def _create(self, entry: Entry) -> None:
        data, path = manifest.encode(entry), manifest.path_of(entry.number)
        try:
            self.place.create(path, memoryview(data))
        except FileExistsError:
            # A driver that had no answer has sent it twice, or somebody else was first.
            if self.place.read(path) != data:
                raise conflict(self.place.url) from None
        self._check_place_of(entry)
        self.state.apply(entry)

    def _check_place_of(self, entry: Entry) -> None:
        """Find out that the number was free since nobody had it yet.

        Else others had it, went on, and took it away behind a checkpoint, where nobody reads.  They
        take away the lowest numbers first, so then the one that we followed is gone too.
        """
        if self.place.alone or entry.number == 1:
            return
        try:
            before = manifest.read(self.place, entry.number - 1)
        except FileNotFoundError:
            raise conflict(self.place.url) from None
        if (before.writer, before.stored_at_us) != self.state.last:
            raise conflict(self.place.url)


@contextlib.contextmanager
def outside(url: str) -> Iterator[None]:
    """What the place and its files do comes out as our errors."""
    try:
        yield
    except FileNotFoundError as error:
        raise damaged(url, f"a file is gone: {error}") from None
    except pa.ArrowException as error:
        raise damaged(url, str(error).partition("\n")[0]) from None
    except OSError as error:
        what, fix = f"cannot write {url}: {error}", "is the disk full, or the object store away?"
        raise Retry("store.write", what, fix) from None


def conflict(url: str) -> Retry:
    """What to do when somebody else has written."""
    return Retry(
        "store.conflict",
        f"another writer of {url} was faster",
        "what it stored is taken into account, and this is tried again",
    )


def damaged(url: str, why: str) -> Halt:
    """What nobody can go on from."""
    fix = "restore it, or use another root: events.enriched fills a new one"
    return Halt("store.corrupt", f"{url} is damaged: {why}", fix)
