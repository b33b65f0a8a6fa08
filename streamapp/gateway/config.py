from collections.abc import Mapping
from dataclasses import dataclass, field

from streamapp.core.config import Settings
from streamapp.gateway.sources import Source


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """What the gateway binds, asks of its clients, and puts up with."""

    host: str = "127.0.0.1"
    port: int = 9382
    token: str = field(default="", repr=False)
    #: One request's body, as sent and after decompression.
    body_bytes_max: int = 16 << 20
    #: One event; larger ones would be dead-lettered behind us, so they are refused here.
    event_bytes_max: int = 1 << 20
    #: Events and body bytes of all requests that the log has not answered yet.
    inflight_events_max: int = 20_000
    inflight_bytes_max: int = 256 << 20
    request_events_max: int = 10_000
    connections_max: int = 4_096
    #: The whole body must have come by then.
    body_s_max: float = 60.0
    #: An idle connection, or one that has not finished its first request's headers, is closed.
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
    #: Who may deliver webhooks, by name.
    webhooks: Mapping[str, Source] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host in {"127.0.0.1", "::1", "localhost"}

    @classmethod
    def of(
        cls, settings: Settings, webhooks: Mapping[str, Source] | None = None
    ) -> "GatewayConfig":
        """The process's settings; limits without a setting keep their defaults."""
        return cls(
            webhooks=webhooks or {},
            host=settings.gateway_host,
            port=settings.gateway_port,
            token=settings.token,
            body_bytes_max=settings.body_bytes_max,
            event_bytes_max=settings.event_bytes_max,
            inflight_events_max=settings.inflight_events_max,
            inflight_bytes_max=max(256 << 20, 4 * settings.body_bytes_max),
            request_events_max=min(10_000, settings.inflight_events_max),
            confluent_batch_max=settings.confluent_batch_max,
            consumer_instances_max=settings.consumer_instances_max,
            consumer_instance_timeout_s=settings.consumer_instance_timeout_s,
            drain_s=settings.drain_s,
        )
