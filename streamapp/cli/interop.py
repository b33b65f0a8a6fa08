"""``streamapp config interop``: where the project's own Python is."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import click

from streamapp.cli.framework import command
from streamapp.cli.options import json_option
from streamapp.cli.output import print_json
from streamapp.core.config import PROJECT_FILE, find_project, read_toml
from streamapp.core.errors import Refuse

_SECTION = re.compile(r"^\[interop\.python\][^\n]*\n(?:(?!\[)[^\n]*(?:\n|\Z))*", re.MULTILINE)


@command(
    examples=[
        "streamapp config interop --python-path ../analytics",
        "streamapp config interop --python-path src --interpreter .venv/bin/python",
        "streamapp config interop --try analytics.clean:tidy",
    ],
)
@click.option(
    "--python-path",
    "folders",
    metavar="DIR",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder that modules are imported from; may be repeated.",
)
@click.option(
    "--interpreter", metavar="PYTHON", help="The Python that runs them; it needs pyarrow."
)
@click.option("--try", "target", metavar="MODULE:FUNCTION", help="Start a function's process.")
@json_option
def interop(
    folders: tuple[Path, ...], interpreter: str | None, target: str | None, as_json: bool
) -> None:
    """Say where the project's Python is, so that its functions run as stages and operations.

    A function is named python:module:function in topics/workflow.toml, and service: python,
    operation: "module:function" in a workflow's file.  It runs in a process of its own and takes a
    pyarrow.Table, or a dict for each row.  Without options what is declared is shown.
    """
    if folders or interpreter:
        _declare(folders, interpreter)
    shown = _shown(target)
    if as_json:
        print_json(shown)
        return
    for name, value in shown.items():
        click.echo(f"{name}: {', '.join(value) if isinstance(value, tuple) else value}")


def _shown(target: str | None) -> dict[str, Any]:
    """What is declared, and what the function takes."""
    from streamapp.plugin.bridge.place import python_place
    from streamapp.plugin.bridge.process import FunctionProcess

    place = python_place()
    shown: dict[str, Any] = {"paths": place.paths, "interpreter": place.interpreter}
    if target:
        process = FunctionProcess(target.removeprefix("python:"), place, 1.0)
        try:
            shown |= {"function": process.target, "takes": process.takes}
        finally:
            process.close()
    return shown


def _declare(folders: tuple[Path, ...], interpreter: str | None) -> None:
    """Write ``[interop.python]``; all else in the file stays as it is."""
    path = find_project(Path.cwd()) or Path.cwd() / PROJECT_FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before = read_toml(path) if text else {}
    known = before.get("interop", {}).get("python", {})
    for folder in folders:
        if not folder.is_dir():
            raise Refuse("interop.paths", f"{folder} is no folder", "give one that is there")
    paths = [_written(folder, path.parent) for folder in folders] or known.get("paths", ["."])
    values = {"paths": paths, "interpreter": interpreter or known.get("interpreter")}
    section = "[interop.python]\n" + "".join(
        f"{key} = {_toml(value)}\n" for key, value in values.items() if value is not None
    )
    if "python" in before.get("interop", {}) and not _SECTION.search(text):
        raise Refuse(
            "interop.section",
            f"{path}: interop.python is not written as a section [interop.python]",
            "write it so, or change it by hand",
        )
    if _SECTION.search(text):
        after = _SECTION.sub(lambda _: section + "\n", text, count=1).rstrip("\n") + "\n"
    else:
        after = f"{text.rstrip()}\n\n{section}" if text.strip() else section
    tomllib.loads(after)  # what we would write must be what others can read
    _replace(path, after)


def _written(folder: Path, base: Path) -> str:
    """Relative to the project where it is inside of it."""
    absolute = folder.absolute()
    return str(absolute.relative_to(base)) if absolute.is_relative_to(base) else str(absolute)


def _toml(value: str | list[str]) -> str:
    import json  # strings of JSON are strings of TOML

    return json.dumps(value, ensure_ascii=False)


def _replace(path: Path, text: str) -> None:
    """All of the file or none of it."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)  # noqa: PTH105  # the atomic one, by its name
    except OSError as error:
        raise Refuse(
            "file.write", f"{path}: {error.strerror}", "check the folder and its mode"
        ) from None
