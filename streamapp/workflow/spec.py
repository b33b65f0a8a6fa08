"""``topics/workflow.toml``: which stages run, with limits and options."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from streamapp.core.config import read_toml
from streamapp.core.errors import Refuse, StreamappError
from streamapp.plugin import Stage, StageFactory
from streamapp.plugin.installed import imported, installed
from streamapp.plugin.stage import check_columns
from streamapp.workflow.blame import blamed

GROUP = "streamapp.stages"


class _Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    stages: Annotated[list[str], Meta(min_length=1)]
    stage_ms_max: Annotated[int, Meta(ge=1)] = 10_000
    ask_below: Annotated[float, Meta(ge=0, le=1)] | None = None
    ask_types: bool = False


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    workflow: _Limits
    stages: dict[str, dict[str, Any]] = {}


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """A declared workflow.

    ``stages`` names what runs, in any order; ``options`` what each is given.  A stage that takes a
    batch longer than ``stage_ms_max`` is reported as slow (native code cannot be interrupted).
    Where a language model is declared it is asked for the intent of messages whose own is unknown
    or less sure than ``ask_below`` (None: of none), and with ``ask_types`` for a name of events
    without a type.
    """

    path: str
    stages: tuple[str, ...]
    options: Mapping[str, Mapping[str, Any]] = {}
    stage_ms_max: int = 10_000
    ask_below: float | None = None
    ask_types: bool = False

    @property
    def asks(self) -> bool:
        """Whether there is anything that it would ask a language model."""
        return self.ask_below is not None or self.ask_types


def load_workflow(path: Path) -> Workflow:
    """Read a workflow.

    Raises:
        Refuse: not TOML (file:line:column), a key is missing, unknown or of a wrong type, a stage
            is named twice, or options are given for a stage that does not run.
    """
    try:
        file = msgspec.convert(read_toml(path), _File)
    except msgspec.ValidationError as error:
        why = str(error).replace("`", "'").replace("Object", "table", 1).replace("$.", "")
        raise Refuse(
            "workflow.declaration", f"{path}: {why}", "see the default topics/workflow.toml"
        ) from None
    names = file.workflow.stages
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise Refuse("workflow.twice", f"{path}: stage {twice!r} is named twice", "remove one")
    for name in file.stages:
        if name not in names:
            raise Refuse(
                "workflow.options",
                f"{path}: [stages.{name}] has options, but no such stage runs",
                _hint(name, names) or f"add {name!r} to [workflow] stages or remove its options",
            )
    return Workflow(
        path=str(path),
        stages=tuple(names),
        options=file.stages,
        stage_ms_max=file.workflow.stage_ms_max,
        ask_below=file.workflow.ask_below,
        ask_types=file.workflow.ask_types,
    )


def installed_stages() -> dict[str, Any]:
    """Entry points of the group ``streamapp.stages`` by name; nothing is imported.

    Raises:
        Refuse: two distributions register the same name.
    """
    return installed(GROUP, "stage")


def make_stages(
    workflow: Workflow, factories: Mapping[str, StageFactory] | None = None
) -> list[Stage]:
    """The workflow's stages, not yet opened, in the file's order.

    Args:
        workflow: names and options.
        factories: instead of (or before) what is installed.

    Raises:
        Refuse: a stage is not installed, cannot be imported, or refuses its options.
    """
    offered: dict[str, StageFactory] = {**_functions(workflow), **(factories or {})}
    found = installed_stages() if set(workflow.stages) - set(offered) else {}
    made = []
    for name in workflow.stages:
        if name not in offered and name not in found:
            known = sorted({*offered, *found})
            raise Refuse(
                "workflow.unknown_stage",
                f"{workflow.path}: no stage is called {name!r}",
                _hint(name, known) or f"installed are {', '.join(known)}",
            )
        factory = offered.get(name) or imported(found[name], "stage")
        made.append(_make(workflow, name, factory))
    return made


def _functions(workflow: Workflow) -> dict[str, StageFactory]:
    """Stages that are functions of the project, each in a process of its own."""
    from functools import partial

    from streamapp.plugin.bridge.stage import PREFIX, FunctionStage

    named = [name for name in workflow.stages if name.startswith(PREFIX)]
    return {name: partial(FunctionStage, name) for name in named}


def _make(workflow: Workflow, name: str, factory: StageFactory) -> Stage:
    try:
        with blamed(name, "__init__"):
            stage = factory(workflow.options.get(name, {}))
    except StreamappError as error:
        raise Refuse(error.code, f"{workflow.path}: {error.message}", error.fix) from error
    if stage.name != name:
        raise Refuse(
            "stage.name",
            f"the stage registered as {name!r} calls itself {stage.name!r}",
            "give both the same name",
        )
    check_columns(name, stage.reads, stage.writes)
    return stage


def _hint(name: str, known: "list[str]") -> str:
    near = get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else ""
