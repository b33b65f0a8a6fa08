"""Vectors of two models lie in two spaces: all stages must mean the same one by ``embedding``.

A stage may have ``vectors_of``: the ModelRef of the model whose vectors it writes to that column,
or takes the column's for; None where it does not matter.  It is looked at in an open stage.
"""

from collections.abc import Sequence

from streamapp.core.errors import Halt, Refuse
from streamapp.plugin import Stage


def check_vectors(stages: Sequence[Stage], wrong: type[Refuse | Halt]) -> None:
    """Raise ``wrong`` where a stage takes the column for another model's vectors than it has."""
    said = {stage.name: getattr(stage, "vectors_of", None) for stage in stages}
    known = {name: ref for name, ref in said.items() if ref is not None}
    if len(set(known.values())) < 2:
        return
    writers = [stage.name for stage in stages if "embedding" in stage.writes]
    first = next((name for name in writers if name in known), next(iter(known)))
    other = next(name for name, ref in known.items() if ref != known[first])
    raise wrong(
        "stage.vectors",
        f"stage {other!r} means vectors of {known[other]} by embedding, stage {first!r} those of "
        f"{known[first]}",
        f"give [stages.{other}] and [stages.{first}] the same model",
    )
