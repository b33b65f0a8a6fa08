"""What ``streamapp.toml`` declares beside settings: tables, and secrets by where they are."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from streamapp.core.config import find_project, read_toml
from streamapp.core.errors import Refuse

#: What a variable's name looks like, and what some services' secrets begin with.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
_SECRETS = ("whsec_", "sk_", "rk_", "ghp_", "github_pat_")


def project_table(name: str, folder: Path | None = None) -> tuple[dict[str, Any], Path]:
    """The tables ``[NAME.*]`` of the nearest ``streamapp.toml``, and the folder it is in.

    Args:
        name: of the table.
        folder: instead of the working directory.

    Raises:
        Refuse: the file cannot be parsed, or ``NAME`` is no table of tables.
    """
    folder = folder or Path.cwd()
    project = find_project(folder)
    table = read_toml(project).get(name, {}) if project else {}
    if not isinstance(table, dict) or not all(isinstance(value, dict) for value in table.values()):
        raise Refuse(
            "config.table", f"{project}: {name} is not a table of tables", f"write [{name}.NAME]"
        )
    return table, project.parent if project else folder


def read_secret(reference: str, folder: Path, *, environ: Mapping[str, str] | None = None) -> str:
    """What ``env:NAME`` (also in the folder's ``.env``) or ``file:PATH`` holds.

    Args:
        reference: where the secret is; it is never the secret itself.
        folder: where a relative path begins.
        environ: instead of the process's environment.

    Raises:
        Refuse: ``config.secret``; the message has neither the secret nor a text that may be one.
    """
    environ = os.environ if environ is None else environ  # noqa: TID251  # the one reader
    kind, _, name = reference.partition(":")
    if kind == "env":
        secret = environ.get(name) or dotenv_values(folder / ".env").get(name)
        where = f"the environment has no {name if _VARIABLE.fullmatch(name) else 'such name'}"
    elif kind == "file":
        try:
            secret = (folder / Path(name).expanduser()).read_text().strip()
        except (OSError, UnicodeDecodeError):
            secret = None
        where = f"{'the file' if name.startswith(_SECRETS) else name} cannot be read, or is empty"
    else:
        raise Refuse(
            "config.secret",
            "a secret is written out where its name belongs",
            "put it into the environment or a file, and write env:NAME or file:PATH",
        )
    if not secret:
        raise Refuse("config.secret", where, "put the secret there")
    return secret
