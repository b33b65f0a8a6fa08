from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from streamapp.core.config import Settings, find_project, to_environment
from streamapp.core.exports import Export
from streamapp.gateway.cors import origins_of
from streamapp.gateway.sources import Source
from streamapp.models.llm.endpoint import Endpoint

Learning = Literal["off", "shapes", "samples"]


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """What the gateway binds, asks of its clients, and puts up with."""

    host: str = "127.0.0.1"
    port: int = 9382
    token: str = field(default="", repr=False)
    #: More tokens, each with what it may do; None: only the one above.
    tokens_file: Path | None = None
    #: TLS, and mutual TLS with these authorities' clients.
    cert_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None
    #: ``open`` or ``read``.
    metrics_scope: str = "open"
    cors_origins: frozenset[str] = frozenset()
    #: Of one caller in a window; 0: no limit.
    rate_requests_max: int = 0
    rate_bytes_max: int = 0
    rate_window_s: int = 10
    #: One request's body, as sent and after decompression.
    body_bytes_max: int = 16 << 20
    #: One event; larger ones would be dead-lettered behind us, so they are refused here.
    event_bytes_max: int = 1 << 20
    #: Events and body bytes of all requests that the log has not answered yet.
    inflight_events_max: int = 20_000
    inflight_bytes_max: int = 256 << 20
    request_events_max: int = 10_000
    connections_max: int = 4_096
    #: Of these from one address (in IPv6: network); 0: all.
    connections_per_address_max: int = 0
    #: The whole body must have come by then.
    body_s_max: float = 60.0
    #: A request's headers must have come by then, and TLS must have been agreed on.
    headers_s_max: float = 10.0
    #: An answer must have been read by then.
    answer_s_max: float = 60.0
    #: An idle connection is closed.
    keepalive_s: float = 75.0
    #: Entries of one Confluent v3 batch; Confluent's own limit is between 1 and 50.
    confluent_batch_max: int = 10
    #: Confluent consumer instances, and how long one may be unused.
    consumer_instances_max: int = 100
    consumer_instance_timeout_s: float = 300.0
    #: One answer of a consumer instance, and how long it may wait for records.
    poll_bytes_max: int = 4 << 20
    poll_s_max: float = 60.0
    drain_s: float = 20.0
    #: What is learned of events; samples are of shapes, too.
    learn: Learning = "samples"
    #: The export whose values clients may change.
    export: Export | None = None
    #: Where attachments are kept, a path or a URL; empty: nowhere.  All of them together; 0: any.
    attachments_url: str = ""
    #: Memory of the models that ``/v2`` serves; 0: no limit.
    models_bytes_max: int = 0
    attachments_bytes_max: int = 0
    #: The language model of ``/api/chat``; None: there is none.  Where its answers are kept.
    llm: Endpoint | None = None
    llm_answers_file: Path | None = None
    llm_answers_max: int = 0
    #: The folder of the project: its sources and models, and its files in ``workflows/``.
    project: Path | None = None
    #: Where runs of workflows are kept; None: there are none.
    runs_folder: Path | None = None
    #: One run may take so long; its turn may be as long in coming as it is.
    run_s_max: float = 3_600.0
    #: Rows of one call of an operation, and how long it may take.
    service_rows_max: int = 100_000
    service_s_max: float = 60.0
    #: The settings, for processes that work for the gateway.
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Who may deliver webhooks, by name.
    webhooks: Mapping[str, Source] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host in {"127.0.0.1", "::1", "localhost"}

    @property
    def is_open(self) -> bool:
        """Whether whoever reaches it may use it."""
        has_file = self.tokens_file is not None and self.tokens_file.exists()
        return not (self.token or has_file or self.client_ca_file)

    @classmethod
    def of(
        cls,
        settings: Settings,
        webhooks: Mapping[str, Source] | None = None,
        export: Export | None = None,
    ) -> "GatewayConfig":
        """The process's settings; limits without a setting keep their defaults."""
        project = find_project(Path.cwd())
        return cls(
            webhooks=webhooks or {},
            host=settings.gateway_host,
            port=settings.gateway_port,
            token=settings.token,
            tokens_file=settings.tokens_file,
            cert_file=settings.gateway_cert_file,
            key_file=settings.gateway_key_file,
            client_ca_file=settings.gateway_client_ca_file,
            metrics_scope=settings.metrics_scope,
            cors_origins=origins_of(settings.cors_origins),
            rate_requests_max=settings.rate_requests_max,
            rate_bytes_max=settings.rate_bytes_max,
            rate_window_s=settings.rate_window_s,
            connections_max=settings.connections_max,
            connections_per_address_max=settings.connections_per_address_max,
            body_bytes_max=settings.body_bytes_max,
            event_bytes_max=settings.event_bytes_max,
            inflight_events_max=settings.inflight_events_max,
            inflight_bytes_max=max(256 << 20, 4 * settings.body_bytes_max),
            request_events_max=min(10_000, settings.inflight_events_max),
            confluent_batch_max=settings.confluent_batch_max,
            consumer_instances_max=settings.consumer_instances_max,
            consumer_instance_timeout_s=settings.consumer_instance_timeout_s,
            drain_s=settings.drain_s,
            learn=cast("Learning", settings.learn),
            export=export,
            attachments_url=settings.attachments_place,
            attachments_bytes_max=settings.attachments_bytes_max,
            models_bytes_max=settings.models_bytes_max,
            llm=Endpoint.of(settings),
            llm_answers_file=settings.llm_answers_file,
            llm_answers_max=settings.llm_answers_max,
            project=project.parent if project else Path.cwd(),
            runs_folder=settings.home / "runs",
            run_s_max=settings.run_s_max,
            environ=to_environment(settings),
        )
