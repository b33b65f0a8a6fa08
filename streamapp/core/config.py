"""One Settings object: every setting has one name, in the environment, in files and as a flag.

``gateway_port`` is ``STREAMAPP_GATEWAY_PORT`` in the environment and in ``.env``, ``gateway_port``
in ``streamapp.toml`` and ``--gateway-port`` on the command line.  The first that says something
wins: flag, environment, ``.env``, ``streamapp.toml``, default.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from dotenv import dotenv_values

from streamapp.core.errors import Refuse

PREFIX = "STREAMAPP_"
PROJECT_FILE = "streamapp.toml"


def _setting(
    default: Any, about: str, *, secret: bool = False, least: int = 0, one_of: tuple[str, ...] = ()
) -> Any:
    metadata = {"about": about, "secret": secret, "least": least, "one_of": one_of}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, its default and what it means; paths are relative to the file they are in."""

    home: Path = _setting(Path("~/.streamapp"), "where this project keeps its log, store and state")
    broker: str = _setting(
        "", "log URL: local:///path or kafka+batch://host:9092 (default: HOME/log)"
    )
    broker_security: str = _setting(
        "plaintext",
        "how to connect to Kafka: plaintext, ssl, sasl_plaintext or sasl_ssl",
        one_of=("plaintext", "ssl", "sasl_plaintext", "sasl_ssl"),
    )
    broker_sasl_mechanism: str = _setting(
        "PLAIN",
        "how sasl proves who we are: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        one_of=("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
    )
    broker_username: str = _setting("", "user name for sasl")
    broker_password: str = _setting("", "password for sasl", secret=True)
    broker_ca_file: Path | None = _setting(
        None, "PEM of the authorities to trust (default: system)"
    )
    broker_cert_file: Path | None = _setting(None, "PEM of our own certificate, for mutual TLS")
    broker_key_file: Path | None = _setting(None, "PEM of its key, without a password")
    broker_replication: int = _setting(0, "copies of a topic that is created; 0: Kafka's default")
    topics_dir: Path | None = _setting(None, "topic catalogue and workflow (default: as installed)")
    models_dir: Path | None = _setting(None, "model manifests and routes (default: as installed)")
    models_cache: Path = _setting(Path("~/.cache/streamapp"), "where pulled model files are kept")
    db_path: str = _setting(
        "", "DuckDB file of the store, or :memory: (default: HOME/store.duckdb)"
    )
    store: str = _setting(
        "duckdb",
        "what the store writes: duckdb, one file, or parquet",
        one_of=("duckdb", "parquet"),
    )
    parquet_url: str = _setting(
        "", "root of the Parquet store: a path or s3://bucket/path (default: HOME/parquet)"
    )
    ring_path: Path | None = _setting(None, "shared-memory ring (default: under /dev/shm)")
    ring_frames: int = _setting(8192, "frames the ring holds; a power of two", least=2)
    token: str = _setting("", "bearer token asked of clients; empty: none asked", secret=True)

    gateway_host: str = _setting("127.0.0.1", "address the gateway binds")
    gateway_port: int = _setting(9382, "REST port of the gateway")
    flight_host: str = _setting("127.0.0.1", "address the Flight server binds")
    flight_port: int = _setting(9383, "Arrow Flight port of the store")
    flight_read_token: str = _setting("", "a token that only reads the store", secret=True)
    flight_admin_token: str = _setting("", "a token for admin actions on the store", secret=True)
    flight_cert_file: Path | None = _setting(None, "PEM of the Flight server's certificate: TLS")
    flight_key_file: Path | None = _setting(None, "PEM of its key, without a password")
    flight_ca_file: Path | None = _setting(
        None, "PEM of the authorities its clients trust (default: flight_cert_file)"
    )
    worker_port: int = _setting(9384, "web port of the worker (health, metrics)")
    store_port: int = _setting(9385, "web port of the store (health, metrics)")
    terminal_port: int = _setting(9386, "web port of the terminal agent (health, metrics)")

    body_bytes_max: int = _setting(16 << 20, "largest request body, after decompression", least=1)
    event_bytes_max: int = _setting(1 << 20, "largest event that is enriched", least=1)
    inflight_events_max: int = _setting(20_000, "events the gateway holds for the log", least=1)
    confluent_batch_max: int = _setting(10, "entries of one Confluent v3 batch", least=1)
    consumer_instances_max: int = _setting(100, "REST consumers one gateway keeps", least=1)
    consumer_instance_timeout_s: int = _setting(
        300, "seconds until a REST consumer that nobody uses is removed", least=1
    )
    batch_events_max: int = _setting(512, "events enriched as one batch", least=1)
    batch_bytes_max: int = _setting(8 << 20, "bytes fetched as one batch", least=1024)
    batch_wait_ms_max: int = _setting(20, "longest a batch grows while another is in work")
    session_s: int = _setting(10, "seconds until a silent process loses its partitions", least=2)
    stall_s_max: int = _setting(30, "seconds a partition may stand still while it grows", least=1)
    snapshot_records: int = _setting(1000, "enriched records between state snapshots", least=1)
    snapshot_s: int = _setting(60, "seconds between state snapshots", least=1)
    conversations_max: int = _setting(10_000, "conversations remembered per partition", least=1)
    json_twin: str = _setting(
        "false", "also publish enriched rows as JSON: true or false", one_of=("true", "false")
    )
    flush_rows: int = _setting(2048, "rows the store writes as one transaction", least=1)
    flush_ms_max: int = _setting(20, "longest a row waits for its transaction")
    parquet_flush_rows: int = _setting(65_536, "rows the Parquet store commits at once", least=1)
    parquet_flush_ms_max: int = _setting(5000, "longest a row waits for such a commit")
    dedup_window_s: int = _setting(86_400, "how long a stored (source, id) is remembered")
    dedup_window_events: int = _setting(1_000_000, "how many stored (source, id) are remembered")
    search_bytes_max: int = _setting(
        512 << 20, "memory for the newest vectors, for similar() and near()", least=1
    )
    query_rows_max: int = _setting(1_000_000, "rows one query may return", least=1)
    query_s_max: int = _setting(60, "seconds one query may take", least=1)
    drain_s: int = _setting(20, "seconds a stopping process may take to finish its work", least=1)
    threads: int = _setting(0, "threads for inference; 0: one per core")

    embedding_model: Path | None = _setting(None, "an ONNX embedder of your own")
    tokenizer_model: Path | None = _setting(None, "its tokenizer.json")
    ring: str = _setting(
        "c",
        "who writes the ring: the terminal by c or twin (NumPy, slow), or direct: the worker",
        one_of=("c", "twin", "direct"),
    )
    log_level: str = _setting(
        "warning", "debug, info, warning or error", one_of=("debug", "info", "warning", "error")
    )

    @property
    def broker_url(self) -> str:
        """The log's URL, the embedded one under ``home`` when none is set."""
        return self.broker or f"local://{self.home / 'log'}"

    @property
    def store_path(self) -> str:
        """The DuckDB file, or ``:memory:``."""
        return self.db_path or str(self.home / "store.duckdb")

    @property
    def parquet_root(self) -> str:
        """The Parquet store's directory or URL."""
        return self.parquet_url or str(self.home / "parquet")

    @property
    def ring_engine(self) -> Literal["c", "twin"]:
        """The implementation that opens the ring, for writers and readers alike."""
        return "twin" if self.ring == "twin" else "c"

    @property
    def ring_file(self) -> Path:
        """The ring's file: in shared memory where the system has it, else under ``home``."""
        if self.ring_path is not None:
            return self.ring_path
        shared = Path("/dev/shm")  # noqa: S108  # a directory of our own below it, 0750
        name = re.sub(r"[^A-Za-z0-9]+", "-", str(self.home)).strip("-")
        return (
            shared / "streamapp" / f"{name}.ring" if shared.is_dir() else self.home / "events.ring"
        )


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


def reachable(host: str) -> str:
    """Where a client on this machine reaches what binds ``host``."""
    every_address = {"0.0.0.0", "::"}  # noqa: S104  # compared, not bound
    return "127.0.0.1" if host in every_address else host


def http_url(host: str, port: int) -> str:
    """The URL of what binds ``host``, as a client on this machine writes it."""
    name = reachable(host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


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
        text = path.read_bytes().decode()
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
    return {known[name]: value for name, value in environ.items() if name in known}


def _from_dotenv(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        values = {k: v for k, v in dotenv_values(path).items() if v is not None}
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
    values = {name: value for name, value in content.items() if not isinstance(value, dict)}
    _refuse_unknown(values, [declared.name for declared in describe()], str(path))
    return values


def _refuse_unknown(names: Any, known: list[str], where: str) -> None:
    from difflib import get_close_matches

    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "see `streamapp config show`"
            raise Refuse("config.unknown", f"{where}: no setting is called {name!r}", hint)


def _convert(declared: Field[Any], value: Any, where: str, base: Path) -> Any:
    """The declared type's value of what a source said."""
    label = f"{declared.name} = {value!r} ({where})"
    if "Path" in str(declared.type):
        return _absolute(Path(str(value)), base) if str(value) else declared.default
    if declared.type is not int and declared.type != "int":
        text = str(value).lower() if isinstance(value, bool) else str(value)  # as TOML writes it
        return _one_of(declared, text, label)
    try:
        if isinstance(value, bool | float):
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
    if declared.name == "ring_frames" and number & (number - 1):
        more = 1 << number.bit_length()
        fix = f"give {more // 2} or {more}"
        raise Refuse("config.range", f"{label} is not a power of two", fix)
    return number


def _one_of(declared: Field[Any], value: str, label: str) -> str:
    if declared.name == "broker" and "@" in value and not value.startswith("local:"):
        raise Refuse(
            "broker.userinfo",
            f"{declared.name} of {label.rpartition(' (')[2][:-1]} names a user, and URLs are shown",
            "set broker_username, broker_password and broker_security instead",
        )
    allowed = declared.metadata["one_of"]
    if allowed and value not in allowed:
        raise Refuse("config.choice", f"{label} is not known", f"give one of {', '.join(allowed)}")
    return value


def _absolute(value: Any, base: Path) -> Any:
    return (base / value.expanduser()).absolute() if isinstance(value, Path) else value


assert all(f.default is not MISSING for f in fields(Settings))  # noqa: S101  # every setting has a default
