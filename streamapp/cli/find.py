"""Stages by what one types: an installed name, ``module:stage``, or a file; and what they need."""

import importlib
import sys
import traceback
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from difflib import get_close_matches
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pyarrow as pa

from streamapp.core.errors import Refuse
from streamapp.plugin import EVENT_SCHEMA, Models, Stage, StageFactory
from streamapp.workflow import Workflow
from streamapp.workflow.blame import blamed
from streamapp.workflow.spec import installed_stages, make_stages

#: Where factories made by the decorator say that they come from.
_DECORATOR = "streamapp.plugin.stage"


class Found(NamedTuple):
    """A stage's name, and what makes it; None: it is installed under that name."""

    name: str
    factory: StageFactory | None

    def made(self, workflow: Workflow, options: Mapping[str, Any], models: Models) -> Stage:
        """The stage with these options, declared.

        Raises:
            Refuse: it refuses its options, or fails.
        """
        chosen = Workflow(path=workflow.path, stages=(self.name,), options={self.name: options})
        [stage] = make_stages(chosen, {self.name: self.factory} if self.factory else None)
        with blamed(self.name, "declare"):
            stage.declare(models)
        return stage


def find_stage(typed: str) -> Found:
    """The stage that is meant.

    Args:
        typed: a name, ``module:attribute``, ``file.py`` or ``file.py:attribute``.

    Raises:
        Refuse: no such name, file, module or attribute, its import fails, or it is no stage.
    """
    place, _, attribute = typed.partition(":")
    if place.endswith(".py"):
        module = _from_file(Path(place))
    elif attribute:
        module = _from_module(place)
    else:
        _check_installed(typed)
        return Found(typed, None)
    candidates = _factories(module)
    if not attribute and len(candidates) == 1:
        [attribute] = candidates
    if not attribute:
        raise Refuse(
            "invoke.stage",
            f"{place} holds {len(candidates)} stages: {', '.join(candidates) or 'none'}",
            f"name one: {place}:{next(iter(candidates), 'word_count')}",
        )
    if not callable(getattr(module, attribute, None)):
        near = get_close_matches(attribute, candidates, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise Refuse(
            "invoke.stage",
            f"{place} has no stage {attribute!r}",
            f"{hint}it holds: {', '.join(candidates) or 'none'}",
        )
    factory: StageFactory = getattr(module, attribute)
    return Found(_name_of(factory, typed), factory)


class Needed(NamedTuple):
    """What a stage needs beside the event: stages with the columns wanted of them, and columns.

    ``given`` says of which type a column is that some installed stage writes.
    """

    stages: dict[str, list[str]]
    given: dict[str, pa.DataType | None]


def needed(stage: Stage, offered: AbstractSet[str], workflow: Workflow, models: Models) -> Needed:
    """What is needed for what ``stage`` reads, and for what those stages read.

    Args:
        stage: declared.
        offered: columns that may be had without a stage; these come first.
        workflow: its stages are asked first, with its options.
        models: for declaring them.

    Raises:
        Refuse: nobody writes a column, or who does also writes one that is given.
    """
    writers = _Writers(stage.name, workflow, models)
    found = Needed({}, {})
    wanted = [*stage.reads]
    for column in wanted:  # which grows meanwhile
        if column in EVENT_SCHEMA.names or column in found.given:
            continue
        if column in offered:
            found.given[column] = writers.type_of(column)
            continue
        writer = writers.of(column)
        if column not in found.stages.setdefault(writer.name, []):
            found.stages[writer.name].append(column)
            wanted += writer.reads
    for name in found.stages:
        _refuse_half(found, name, writers)
    return found


def _refuse_half(found: Needed, name: str, writers: "_Writers") -> None:
    """A column has one writer: the fixture gives all of what a stage writes, or nothing."""
    for column in found.given:
        if column in writers.columns(name):
            raise Refuse(
                "invoke.column",
                f"the fixture gives {column!r} but not {found.stages[name][0]!r};"
                f" stage {name!r} writes both",
                "give both or neither",
            )


class _Writers:
    """Who writes a column: the workflow's stages, then the others that are installed."""

    def __init__(self, but: str, workflow: Workflow, models: Models) -> None:
        names = dict.fromkeys([*workflow.stages, *sorted(installed_stages())])
        self._names = [name for name in names if name != but]
        self._stage = but
        self._workflow = workflow
        self._models = models
        self._made: dict[str, Stage | Refuse] = {}

    def of(self, column: str) -> Stage:
        for name in self._names:
            made = self._made.get(name) or self._make(name)
            if not isinstance(made, Refuse) and column in made.writes:
                return made
        silent = [
            f"; {n!r} cannot say: {m}" for n, m in self._made.items() if isinstance(m, Refuse)
        ]
        raise Refuse(
            "invoke.column",
            f"stage {self._stage!r} needs the column {column!r}, which no stage writes"
            f"{''.join(silent)}",
            f'put it into the fixture: {{"{column}": ...}}',
        )

    def type_of(self, column: str) -> pa.DataType | None:
        """Of which type a column is; None when no stage that can say so writes it."""
        try:
            return self.of(column).writes[column]
        except Refuse:
            return None

    def columns(self, name: str) -> AbstractSet[str]:
        """What a stage that was found writes."""
        made = self._made[name]
        return set() if isinstance(made, Refuse) else set(made.writes)

    def _make(self, name: str) -> Stage | Refuse:
        """The stage, or why there is none, which matters when nobody else writes the column."""
        options = self._workflow.options.get(name, {})
        try:
            made = Found(name, None).made(self._workflow, options, self._models)
        except Refuse as error:
            self._made[name] = error
        else:
            self._made[name] = made
        return self._made[name]


def installed_names() -> list[str]:
    """What is installed, by name."""
    return sorted(installed_stages())


def _check_installed(name: str) -> None:
    known = installed_names()
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise Refuse(
            "invoke.stage",
            f"no stage is called {name!r}",
            f"{hint}installed are {', '.join(known)}; one of your own: file.py:stage",
        )


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise Refuse("invoke.stage", f"there is no file {path}", "check the path")
    spec = spec_from_file_location(f"invoked_{path.stem}", path)
    assert spec is not None  # noqa: S101  # the suffix is .py
    assert spec.loader is not None  # noqa: S101  # and so it has a loader
    module = module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look there
    execute = spec.loader.exec_module

    def load() -> ModuleType:
        execute(module)
        return module

    return _imported(str(path), path.parent, load)


def _from_module(name: str) -> ModuleType:
    return _imported(name, Path.cwd(), lambda: importlib.import_module(name))


def _imported(what: str, folder: Path, load: Callable[[], ModuleType]) -> ModuleType:
    """Import with the folder at the end of the path, so that nothing of ours is shadowed."""
    sys.path.append(str(folder.absolute()))
    try:
        return load()
    except Exception as error:  # a file of a user's may raise anything
        raise Refuse(
            "invoke.import",
            f"{what} cannot be imported: {type(error).__name__}: {error}{_place(error)}",
            "mend it and try again",
        ) from error


def _place(error: Exception) -> str:
    """Where in a file it happened, when the error does not say so itself."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    if isinstance(error, SyntaxError) or last.filename.startswith("<frozen"):
        return ""
    return f" ({last.filename}:{last.lineno})"


def _name_of(factory: Any, typed: str) -> str:
    """What the stage calls itself; a class says so without its options."""
    if isinstance(factory, type) and isinstance(name := getattr(factory, "name", None), str):
        return name
    try:
        made = factory({})
    except Refuse:
        raise
    except Exception as error:
        raise Refuse(
            "invoke.stage",
            f"{typed} makes no stage: {type(error).__name__}: {error}",
            "name what the entry point of streamapp.stages would name",
        ) from error
    if not isinstance(made, Stage):
        raise Refuse(
            "invoke.stage",
            f"{typed} makes {type(made).__name__}, not a stage",
            "name what the entry point of streamapp.stages would name",
        )
    return made.name


def _factories(module: ModuleType) -> Mapping[str, StageFactory]:
    """What a module defines that makes stages: decorated functions, and classes."""
    found: dict[str, StageFactory] = {}
    for name, value in vars(module).items():
        decorated = getattr(value, "__module__", "") == _DECORATOR and hasattr(value, "__wrapped__")
        own_class = isinstance(value, type) and value.__module__ == module.__name__
        if decorated or (own_class and isinstance(value, Stage)):
            found[name] = value
    return found
