"""One Settings object: every setting has one name, in the environment, in files and as a flag.

``gateway_port`` is ``STREAMAPP_GATEWAY_PORT`` in the environment and in ``.env``, ``gateway_port``
in ``streamapp.toml`` and ``--gateway-port`` on the command line.  The first that says something
wins: flag, environment, ``.env``, ``streamapp.toml``, default.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from streamapp.core.errors import Refuse
from streamapp.core.settings import Settings

__all__ = [
    "PREFIX",
    "PROJECT_FILE",
    "Origin",
    "Settings",
    "describe",
    "env_name",
    "find_project",
    "gateway_url",
    "http_url",
    "load",
    "misnamed",
    "reachable",
    "read_toml",
    "to_environment",
]

PREFIX = "STREAMAPP_"
#: What other programs call some settings; read where our own name says nothing.
ALIASES = {
    "LLM_BASE_URL": "llm_base_url",
    "LLM_MODEL": "llm_model",
    "LLM_API_KEY": "llm_api_key",
    "HF_ENDPOINT": "hf_url",
    "HF_TOKEN": "hf_token",
    "MLFLOW_TRACKING_URI": "mlflow_url",
    "MLFLOW_TRACKING_TOKEN": "mlflow_token",
}
PROJECT_FILE = "streamapp.toml"
#: What a C library's int holds, which many settings become; and of those that count bytes.
_MOST, _BYTES_MOST = 2**31 - 1, 2**53
#: What the project's file declares beside settings, each by who needs it.
TABLES = ("exports", "interop", "models", "sources", "webhooks")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: ``flag``, ``environment``, a file, or ``default``."""

    value: Any
    where: str


def describe() -> list[Field[Any]]:
    """The declared settings, in order.

    ``field.metadata`` holds ``about``, ``secret``, ``least`` and ``one_of``.
    """
    return list(fields(Settings))


def env_name(name: str) -> str:
    """``gateway_port`` to ``STREAMAPP_GATEWAY_PORT``."""
    return PREFIX + name.upper()


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> tuple[Settings, dict[str, Origin]]:
    """Read all sources; returns the settings and where each value came from.

    Args:
        flags: values given on the command line; None means not given.
        environ: instead of the process's environment.
        folder: instead of the working directory, where ``.env`` and ``streamapp.toml`` are looked
        for (the
            latter also in the folders above).

    Raises:
        Refuse: unknown name, wrong type, value out of range, or a file that cannot be parsed.
    """
    folder = folder or Path.cwd()
    environ = os.environ if environ is None else environ  # noqa: TID251  # the one reader
    sources = [
        ("flag", {k: v for k, v in (flags or {}).items() if v is not None}, folder),
        ("environment", _from_environment(environ), folder),
        (str(folder / ".env"), _from_dotenv(folder / ".env"), folder),
    ]
    if project := find_project(folder):
        sources.append((str(project), _from_toml(project), project.parent))
    origins = {}
    for declared in describe():
        for where, values, base in sources:
            if declared.name in values:
                value = _convert(declared, values[declared.name], where, base)
                break
        else:
            where, value = "default", _absolute(declared.default, folder)
        origins[declared.name] = Origin(value, where)
    return Settings(**{name: origin.value for name, origin in origins.items()}), origins


def to_environment(settings: Settings) -> dict[str, str]:
    """The environment that makes another process load these settings, wherever it is started."""
    values = {declared.name: getattr(settings, declared.name) for declared in describe()}
    # An empty one says the default, against what this environment or a file has.
    return {env_name(name): "" if v is None else str(v) for name, v in values.items()}


def misnamed(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables that are called as settings are and are none, and what may have been meant.

    They are not refused: the environment may have been made for another version.
    """
    environ = os.environ if environ is None else environ  # noqa: TID251  # the one reader
    known = [env_name(declared.name) for declared in describe()]
    wrong = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    return {name: _hint(name, known) for name in wrong}


def reachable(host: str) -> str:
    """Where a client on this machine reaches what binds ``host``."""
    every_address = {"0.0.0.0", "::"}  # noqa: S104  # compared, not bound
    return "127.0.0.1" if host in every_address else host


def http_url(host: str, port: int) -> str:
    """The URL of what binds ``host``, as a client on this machine writes it."""
    name = reachable(host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def gateway_url(settings: Settings) -> str:
    """Where clients on this machine reach the gateway."""
    url = http_url(settings.gateway_host, settings.gateway_port)
    return url.replace("http", "https", 1) if settings.gateway_cert_file else url


def find_project(folder: Path) -> Path | None:
    """The ``streamapp.toml`` of this folder or of the nearest folder above."""
    for parent in (folder, *folder.parents):
        if (parent / PROJECT_FILE).is_file():
            return parent / PROJECT_FILE
    return None


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's content.

    Raises:
        Refuse: not readable, not UTF-8, or not TOML; the message starts with file:line:column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except OSError as error:
        raise Refuse(
            "file.read", f"{path}: {error.strerror}", "check the path and its mode"
        ) from None
    except UnicodeDecodeError as error:
        raise Refuse(
            "file.utf8", f"{path}: byte {error.start} is not UTF-8", "save it as UTF-8"
        ) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, at = str(error).partition(" (at ")
        place = re.match(r"line (\d+), column (\d+)", at)
        line, column = place.groups() if place else (str(text.count("\n") + 1), "1")
        raise Refuse(
            "file.toml", f"{path}:{line}:{column}: {what}", "see https://toml.io"
        ) from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    known = {env_name(declared.name): declared.name for declared in describe()}
    aliased = {ALIASES[name]: value for name, value in environ.items() if name in ALIASES}
    return aliased | {known[name]: value for name, value in environ.items() if name in known}


def _from_dotenv(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8") as lines:
            broken = next((line.original.line for line in parse_stream(lines) if line.error), 0)
        if broken:
            fix = "write NAME=value, and close each quote"
            raise Refuse("file.dotenv", f"{path}:{broken}: this is no NAME=value", fix)
        values = {k: v for k, v in dotenv_values(path).items() if v is not None}
    except OSError as error:
        raise Refuse(
            "file.read", f"{path}: {error.strerror}", "check the path and its mode"
        ) from None
    except UnicodeDecodeError as error:
        raise Refuse(
            "file.utf8", f"{path}: byte {error.start} is not UTF-8", "save it as UTF-8"
        ) from None
    _refuse_unknown(
        [name for name in values if name.startswith(PREFIX)],
        [env_name(declared.name) for declared in describe()],
        str(path),
    )
    return _from_environment(values)


def _from_toml(path: Path) -> dict[str, Any]:
    content = read_toml(path)
    known = [declared.name for declared in describe()]
    for name, value in content.items():
        if isinstance(value, dict) and name not in TABLES:
            _refuse_table(name, known, path)
        elif name in TABLES and not isinstance(value, dict):
            what = f"{path}: {name} is a table, not a setting"
            raise Refuse("config.table", what, f"write [{name}.NAME]")
    values = {name: value for name, value in content.items() if name not in TABLES}
    _refuse_unknown(values, known, str(path))
    return values


def _refuse_table(name: str, settings: list[str], path: Path) -> None:
    if name in settings:
        what = f"{path}: {name} is a setting, not a table"
        raise Refuse("config.table", what, f"write {name} = ..., above all tables")
    from difflib import get_close_matches

    near = get_close_matches(name, TABLES, 1)
    there = ", ".join(f"[{table}]" for table in TABLES)
    fix = f"did you mean [{near[0]}]?" if near else f"there are {there}; settings stand above them"
    raise Refuse("config.table", f"{path}: no table is called {name!r}", fix)


def _refuse_unknown(names: Iterable[str], known: list[str], where: str) -> None:
    for name in names:
        if name not in known:
            hint = _hint(name, known)
            raise Refuse("config.unknown", f"{where}: no setting is called {name!r}", hint)


def _hint(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1)
    return f"did you mean {near[0]}?" if near else "see `streamapp config show`"


def _convert(declared: Field[Any], value: Any, where: str, base: Path) -> Any:
    """The declared type's value of what a source said."""
    label = f"{declared.name} = {value!r} ({where})"
    if value == "":  # as a container's environment has it where nobody gave one
        return _absolute(declared.default, base)
    if declared.type is int or declared.type == "int":
        return _number(declared, value, label)
    if isinstance(value, bool) and declared.metadata["one_of"]:
        value = str(value).lower()  # as TOML writes it
    if not isinstance(value, str | Path):
        raise Refuse("config.text", f"{label} is not a text", "put it into quotes")
    if "Path" in str(declared.type):
        return _absolute(Path(value), base)
    return _one_of(declared, str(value), label)


def _number(declared: Field[Any], value: Any, label: str) -> int:
    try:
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise ValueError  # noqa: TRY004, TRY301  # one way to refuse
        number = int(value)
    except ValueError:
        raise Refuse(
            "config.number", f"{label} is not a whole number", "give digits only"
        ) from None
    least = declared.metadata["least"]
    if declared.name.endswith("_port") and not 0 <= number <= 65535:  # 0: any free port
        raise Refuse("config.port", f"{label} is not a port", "give 1 to 65535")
    if number < least:
        raise Refuse("config.range", f"{label} is too small", f"give at least {least}")
    most = _BYTES_MOST if "bytes" in declared.name else _MOST
    if number > most:
        raise Refuse("config.range", f"{label} is too large", f"give at most {most}")
    if declared.name == "ring_frames" and number & (number - 1):
        more = 1 << number.bit_length()
        fix = f"give {more // 2} or {more}"
        raise Refuse("config.range", f"{label} is not a power of two", fix)
    return number


def _one_of(declared: Field[Any], value: str, label: str) -> str:
    if declared.name == "broker" and "@" in value and not value.startswith("local:"):
        raise Refuse(
            "broker.userinfo",
            f"{declared.name} ({label.rpartition(' (')[2]} names a user, and URLs are shown",
            "set broker_username, broker_password and broker_security instead",
        )
    allowed = declared.metadata["one_of"]
    if allowed and value not in allowed:
        raise Refuse("config.choice", f"{label} is not known", f"give one of {', '.join(allowed)}")
    return value


def _absolute(value: Any, base: Path) -> Any:
    return (base / value.expanduser()).absolute() if isinstance(value, Path) else value


assert all(f.default is not MISSING for f in fields(Settings))  # noqa: S101  # every setting has a default
