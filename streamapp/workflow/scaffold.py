"""Write a stage of one's own: a small package with the entry point, the stage and its test."""

import keyword
import re
from pathlib import Path

from streamapp.core.errors import Refuse

_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "streamapp-stage-{dashed}"
version = "0.1.0"
description = "The stage {name} for streamapp"
requires-python = ">=3.11"
dependencies = ["streamapp"]

[project.entry-points."streamapp.stages"]
{name} = "{name}_stage:{name}"

[tool.setuptools]
py-modules = ["{name}_stage"]
"""

_MODULE = '''\
"""The stage {name}: how many words an event's text has."""

from streamapp.plugin import stage


@stage("{name}", version=1, reads=["text"], writes={{"{name}": "int32"}})
def {name}(text: str) -> dict[str, int]:
    """Words between white space; null without text.  Raise version when this changes."""
    return {{"{name}": len(text.split())}}
'''

_TEST = """\
from {name}_stage import {name}

from streamapp.testing import Pipeline, batch_of
from streamapp.testing.contracts.stage import StageContract


def test_words_are_counted() -> None:
    columns = {name}({{}}).enrich(batch_of(text=["two words", "", None]))
    assert columns["{name}"].to_pylist() == [2, 0, None]


def test_on_the_way_of_an_event(streamapp: Pipeline) -> None:
    streamapp.use({name})
    streamapp.send("two words", {{"type": "PageView", "url": "/help"}})
    assert [row["{name}"] for row in streamapp.rows()] == [2, None]


class TestContract(StageContract):
    stage = {name}
"""

_README = """\
# {name}

    pip install -e . pytest
    pytest
    streamapp invoke {name}_stage.py --text "two words"

Then name it in `topics/workflow.toml` and restart the worker:

    [workflow]
    stages = ["language", "embed", "{name}"]
"""


def scaffold(name: str, folder: Path) -> list[Path]:
    """Write the package ``folder/name``; returns the files.

    Raises:
        Refuse: the name cannot be a stage's, or the folder is there already.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise Refuse(
            "stage.name",
            f"{name!r} cannot be the name of a stage",
            "use lower case letters, digits and _, beginning with a letter, like word_count",
        )
    target = folder / name
    if target.exists():
        raise Refuse("stage.exists", f"{target} is there already", "choose another name")
    files = {
        "pyproject.toml": _PYPROJECT,
        "README.md": _README,
        f"{name}_stage.py": _MODULE,
        f"tests/test_{name}_stage.py": _TEST,
    }
    written = []
    try:
        for place, template in files.items():
            path = target / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(template.format(name=name, dashed=name.replace("_", "-")))
            written.append(path)
    except OSError as error:
        raise Refuse(
            "stage.write", f"cannot write {target}: {error.strerror}", "choose another folder"
        ) from None
    return written
