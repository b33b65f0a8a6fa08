"""Where the project's own Python is: ``[interop.python]`` of ``streamapp.toml``.

``paths`` are folders that its modules are imported from, relative to that file; ``interpreter`` is
the Python that runs them, ours unless named; it must have pyarrow.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamapp.core.errors import Refuse
from streamapp.core.project import project_table

TABLE = "interop"
_KEYS = ("paths", "interpreter")


@dataclass(frozen=True, slots=True)
class PythonPlace:
    """Folders to import from, absolute, and the interpreter to do it with."""

    paths: tuple[str, ...]
    interpreter: str = sys.executable


def python_place(folder: Path | None = None) -> PythonPlace:
    """What the nearest project file declares; without one: the folder itself.

    Args:
        folder: where to look from; None: the working directory.

    Raises:
        Refuse: ``interop.paths``: a key is unknown or of another type, or a folder is not there.
    """
    tables, base = project_table(TABLE, folder.absolute() if folder else None)
    declared = tables.get("python", {})
    paths, interpreter = declared.get("paths", ["."]), declared.get("interpreter", sys.executable)
    unknown = sorted(set(declared) - set(_KEYS)) + sorted(set(tables) - {"python"})
    if unknown or not isinstance(interpreter, str) or not _is_list_of_text(paths):
        what = f"has no key {unknown[0]!r}" if unknown else "is of other types than it should be"
        raise Refuse(
            "interop.paths",
            f"[interop.python] of streamapp.toml {what}",
            'write paths = ["FOLDER"], and interpreter = "PYTHON" for another one than ours',
        )
    found = [(base / Path(path).expanduser()).absolute() for path in paths]
    for path in found:
        if not path.is_dir():
            raise Refuse(
                "interop.paths",
                f"[interop.python] paths: {path} is no folder",
                "name it anew: streamapp config interop --python-path DIR",
            )
    return PythonPlace(tuple(map(str, found)), interpreter)


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, Sequence) and all(isinstance(each, str) for each in value)
