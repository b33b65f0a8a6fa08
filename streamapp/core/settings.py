"""What can be set: every setting's name, default and meaning.  ``core.config`` reads them."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


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
    models_bytes_max: int = _setting(0, "memory of the models the gateway serves; 0: no limit")
    models_cache: Path = _setting(Path("~/.cache/streamapp"), "where pulled model files are kept")
    hf_url: str = _setting(
        "https://huggingface.co", "where sources of models begin that are hf: (also HF_ENDPOINT)"
    )
    hf_token: str = _setting("", "token for them, if it asks for one (also HF_TOKEN)", secret=True)
    mlflow_url: str = _setting(
        "", "tracking server that sources of models name as mlflow: (also MLFLOW_TRACKING_URI)"
    )
    mlflow_token: str = _setting(
        "", "its token, if it asks for one (also MLFLOW_TRACKING_TOKEN)", secret=True
    )
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
    gateway_cert_file: Path | None = _setting(None, "PEM of the gateway's certificate: TLS")
    gateway_key_file: Path | None = _setting(None, "PEM of its key, without a password")
    gateway_client_ca_file: Path | None = _setting(
        None, "PEM of the authorities whose client certificates the gateway demands: mutual TLS"
    )
    gateway_ca_file: Path | None = _setting(
        None, "PEM of the authorities its clients trust (default: gateway_cert_file)"
    )
    metrics_scope: str = _setting(
        "open",
        "who may see the gateway's /metrics: open, everybody, or read, tokens with that scope",
        one_of=("open", "read"),
    )
    cors_origins: str = _setting(
        "", "origins whose pages may use the gateway, such as https://a.example, with commas"
    )
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
    export_port: int = _setting(9387, "web port of the exporter (health, metrics)")
    ask_port: int = _setting(9388, "web port of the asking process (health, metrics)")

    body_bytes_max: int = _setting(16 << 20, "largest request body, after decompression", least=1)
    attachments_url: str = _setting(
        "",
        "where large attachments are kept: a path or s3://bucket/path (default: HOME/attachments)",
    )
    attachments_bytes_max: int = _setting(
        10 << 30, "bytes of all attachments together; 0: as much as there is room"
    )
    attachments_days: int = _setting(
        30, "days that `streamapp attachments sweep` leaves an attachment", least=1
    )
    event_bytes_max: int = _setting(1 << 20, "largest event that is enriched", least=1)
    inflight_events_max: int = _setting(20_000, "events the gateway holds for the log", least=1)
    connections_max: int = _setting(4096, "connections the gateway has at once", least=1)
    connections_per_address_max: int = _setting(
        0, "of these from one address; 0: as many as there are"
    )
    rate_requests_max: int = _setting(
        0, "requests of one token (without tokens: address) per window; 0: no limit"
    )
    rate_bytes_max: int = _setting(0, "bytes of its bodies per window; 0: no limit")
    rate_window_s: int = _setting(10, "the window that these limits count in", least=1)
    learn: str = _setting(
        "samples",
        "what the gateway keeps of each type of event: off, shapes, or samples too",
        one_of=("off", "shapes", "samples"),
    )
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
    run_s_max: int = _setting(3_600, "seconds one run of a workflow over HTTP may take", least=1)
    flow_file: Path | None = _setting(
        None, "the workflow that `faust -A streamapp.flows worker` runs a group of"
    )
    flow_group: str = _setting("", "which group of it")
    flow_params: str = _setting("{}", "its params, as a JSON object")
    flow_partitions: int = _setting(1, "partitions of each of its topics", least=1)
    drain_s: int = _setting(20, "seconds a stopping process may take to finish its work", least=1)
    threads: int = _setting(0, "threads for inference; 0: one per core")

    embedding_model: Path | None = _setting(None, "an ONNX embedder of your own")
    tokenizer_model: Path | None = _setting(None, "its tokenizer.json")
    llm_base_url: str = _setting(
        "", "an OpenAI-compatible server, such as http://127.0.0.1:1234/v1 (also LLM_BASE_URL)"
    )
    llm_model: str = _setting("", "its model (default: the first it lists; also LLM_MODEL)")
    llm_api_key: str = _setting("", "its key, if it asks for one (also LLM_API_KEY)", secret=True)
    llm_answer_s_max: int = _setting(60, "seconds that one call to it may take", least=1)
    llm_retry_s: int = _setting(30, "seconds in which one question is asked again")
    llm_tokens_max: int = _setting(1024, "tokens of one answer, reasoning included", least=16)
    llm_calls_max: int = _setting(4, "calls to it at once", least=1)
    llm_thinking: str = _setting(
        "model", "model: as it likes; off: ask it not to think", one_of=("model", "off")
    )
    llm_answers_max: int = _setting(100_000, "answers kept under HOME/llm; 0: none")
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
    def models_own(self) -> Path:
        """Where models are added and promoted: ``models_dir``, or a folder under ``home``."""
        return self.models_dir or self.home / "models"

    @property
    def tokens_file(self) -> Path:
        """Who may use the gateway and the store, see :mod:`streamapp.core.tokens`."""
        return self.home / "tokens.json"

    @property
    def llm_answers_file(self) -> Path:
        """Answers of the language model that are kept."""
        return self.home / "llm" / "answers.sqlite"

    @property
    def attachments_place(self) -> str:
        """The attachments' directory or URL."""
        return self.attachments_url or str(self.home / "attachments")

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
            rings_folder(shared) / f"{name}.ring" if shared.is_dir() else self.home / "events.ring"
        )


def rings_folder(shared: Path) -> Path:
    """Where in shared memory rings are: whoever is shut out of the first user's has one alone.

    Who may enter that one, such as a group that reads its rings, looks for them there.
    """
    first = shared / "streamapp"
    is_shut = first.exists() and not os.access(first, os.X_OK, effective_ids=True)
    return shared / f"streamapp-{os.geteuid()}" if is_shut else first
