"""The stages of a group, opened: rows of its source in, rows of each stage out."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from streamapp.agents.flow.record import Aside
from streamapp.agents.flow.stage import Stage
from streamapp.agents.flow.units import Times
from streamapp.plugin.calling import CallWork, TableSources
from streamapp.workflow.data import declared_models, declared_sources
from streamapp.workflow.run.binding import Binding

if TYPE_CHECKING:
    from streamapp.plugin import Models

_states = msgspec.msgpack.Decoder(dict[str, list[bytes]])


def works(binding: Binding, make_models: "Callable[[], Models]") -> Callable[[], CallWork]:
    """Makes what one call of an operation is given.

    Args:
        binding: of the whole workflow.
        make_models: the registry, made when a stage first asks for a model.
    """
    folder = binding.graph.folder
    registry = cache(lambda: declared_models(make_models(), folder))
    return lambda: CallWork(TableSources({}, declared_sources(folder)), registry, folder)


class Chain:
    """Stages in order; each takes the rows of one before it or of the source.

    Args:
        binding: of the whole workflow.
        steps: those of the group, in order.
        make_models: the registry, made when a stage first asks for a model.
    """

    def __init__(
        self, binding: Binding, steps: Sequence[str], make_models: "Callable[[], Models]"
    ) -> None:
        make_work = works(binding, make_models)
        self._stages = [Stage(binding, name, make_work) for name in steps]

    def open(self) -> None:
        """Make and open every operation; once.

        Raises:
            Refuse: as the operations do.
            Retry: something outside does not answer.
        """
        for stage in self._stages:
            stage.open()

    def close(self) -> None:
        """Free what the operations hold."""
        for stage in self._stages:
            stage.close()

    def run(
        self,
        rows: pa.Table,
        *,
        is_end: bool,
        still_ours: Callable[[], bool] = lambda: True,
        times: Times | None = None,
    ) -> tuple[dict[str, pa.Table], list[Aside]]:
        """What each stage makes of the next rows of the source, and what they set aside.

        Args:
            rows: in the source's order.
            is_end: no more will come of this run, so open windows are closed.
            still_ours: whether to go on waiting for another try of a stage.
            times: of the rows, where they are those of a key.

        Raises:
            Refuse: a stage failed, and its failure ends the run.
            Retry: something outside does not answer; put the state back before trying again.
            Cancelled: no longer ours.
        """
        made: dict[str, pa.Table] = {}
        asides: list[Aside] = []
        for stage in self._stages:
            (taken,) = stage.takes
            is_first = taken not in made
            given = rows if is_first else made[taken]
            made[stage.name] = stage.run(given, is_end, still_ours, times if is_first else None)
            asides += stage.asides
            stage.asides.clear()
        return made, asides

    def state(self) -> bytes:
        """What the windows remember; empty where there are none."""
        held = {stage.name: states for stage in self._stages if (states := stage.state())}
        return msgspec.msgpack.encode(held) if held else b""

    def restore(self, state: bytes) -> None:
        """Go on as the one whose state this is; empty: from the beginning."""
        held = _states.decode(state) if state else {}
        for stage in self._stages:
            stage.restore(held.get(stage.name, []))
