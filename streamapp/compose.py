"""The only place that builds things: settings in, wired parts out.  No behaviour.

Imports are inside the functions, so that a process loads only what it is made of.
"""

import os
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from streamapp.core.config import Settings, load, to_environment
from streamapp.core.errors import Refuse, StreamappError
from streamapp.core.metrics import Metrics
from streamapp.topics import catalogue as topics

if TYPE_CHECKING:
    from streamapp.models import Registry
    from streamapp.workflow import Plan


def catalogue(settings: Settings) -> topics.Catalogue:
    """The declared topics."""
    return topics.load(settings.topics_dir)


def registry(settings: Settings) -> "Registry":
    """The models that are declared, and where their files are kept."""
    from streamapp.models import Registry

    return Registry(
        settings.models_dir or topics.defaults("models"),
        settings.models_cache,
        threads=settings.threads or None,
        embedding_model=settings.embedding_model,
        tokenizer_model=settings.tokenizer_model,
    )


def plan(settings: Settings, on_stage: Callable[[str, int, float], None] | None = None) -> "Plan":
    """The workflow's stages in order, their columns known; weights are loaded by ``open``."""
    from streamapp.workflow import Plan, load_workflow

    workflow = load_workflow(catalogue(settings).folder / "workflow.toml")
    return Plan(workflow, registry(settings), on_stage=on_stage)


def missing_models(settings: Settings) -> list[str]:
    """The models that the workflow names, or the default one, whose files are not here yet."""
    from streamapp.workflow import load_workflow

    workflow = load_workflow(catalogue(settings).folder / "workflow.toml")
    embedding = [name for name in ("embed", "intent") if name in workflow.stages]
    named = {workflow.options.get(name, {}).get("model") for name in embedding}
    if settings.embedding_model:
        named.discard(None)  # the user's own file is the default one
    known = registry(settings)
    statuses = [known.status(name) for name in named]
    return sorted({status.name for status in statuses if not status.pulled})


async def ensure_topics(settings: Settings) -> list[str]:
    """Create the catalogue's topics on the broker; the names of those that were missing."""
    from streamapp.transport import TopicSpec, open_admin

    admin = open_admin(settings.broker_url)
    await admin.start()
    try:
        return [
            topic.name
            for topic in catalogue(settings)
            if await admin.create(TopicSpec(*topic.log_spec()))
        ]
    finally:
        await admin.stop()


async def check_topics(settings: Settings) -> None:
    """What every agent needs of the log before it starts; nothing is created.

    Raises:
        Refuse: one of the three topics is missing, or raw and enriched differ in partitions.
        Retry: the broker does not answer.
    """
    from streamapp.transport import open_admin

    admin = open_admin(settings.broker_url)
    await admin.start()
    try:
        there = await admin.topics()
    finally:
        await admin.stop()
    missing = [name for name in (topics.RAW, topics.ENRICHED, topics.DEAD) if name not in there]
    if missing:
        raise Refuse(
            "topic.missing",
            f"{settings.broker_url} has no topic {', '.join(missing)}",
            "run `streamapp topics apply` with the same settings (`streamapp up` does it itself)",
        )
    raw, enriched = there[topics.RAW].partitions, there[topics.ENRICHED].partitions
    if raw != enriched:
        raise Refuse(
            "topic.partitions",
            f"{topics.RAW} has {raw} partitions and {topics.ENRICHED} has {enriched}",
            "make both anew with one number: enriched partition p holds source partition p",
        )


async def serve_gateway(settings: Settings, on_ready: Callable[[str], None] | None = None) -> None:
    """The gateway, until a signal."""
    from streamapp.gateway import serve
    from streamapp.transport import open_admin, open_producer

    await serve(
        settings,
        open_producer(settings.broker_url),
        catalogue(settings),
        Metrics(),
        admin=open_admin(settings.broker_url),
        on_ready=on_ready,
    )


def enrich_app(settings: Settings) -> Any:
    """The worker's Faust app: raw events in, enriched records out."""
    from streamapp.agents.enrich import EnrichAgent, EnrichConfig
    from streamapp.transport import open_producer, open_reader

    app, metrics = _app("streamapp-enrich", settings, settings.worker_port, wait_empty=False)
    agent = EnrichAgent(
        plan(settings, lambda name, _, s: metrics.stage_seconds.labels(name).observe(s)),
        open_producer(settings.broker_url),
        open_reader(settings.broker_url),
        EnrichConfig(
            record_bytes_max=catalogue(settings)[topics.ENRICHED].record_bytes_max,
            event_bytes_max=settings.event_bytes_max,
            snapshot_records=settings.snapshot_records,
            snapshot_s=settings.snapshot_s,
            conversations_max=settings.conversations_max,
        ),
        metrics,
        lambda: app.consumer_generation_id,
    )
    return _with_agent(app, agent, "enrich", topics.RAW, settings, metrics)


def store_app(settings: Settings) -> Any:
    """The store's Faust app: enriched records in, DuckDB rows and a Flight port out."""
    from streamapp.agents.store import StoreAgent
    from streamapp.flight import FlightServer, Limits
    from streamapp.sink import Store

    app, metrics = _app("streamapp-store", settings, settings.store_port)

    def open_store() -> Store:
        return Store.open(
            settings.store_path,
            columns={field.name: field.type for field in plan(settings).columns()},
            dedup_window_s=settings.dedup_window_s,
            dedup_window_events=settings.dedup_window_events,
        )

    def serve(store: Store) -> Callable[[], None]:
        return FlightServer(
            store.reader,
            host=settings.flight_host,
            port=settings.flight_port,
            token=settings.token,
            limits=Limits(rows_max=settings.query_rows_max, seconds_max=settings.query_s_max),
            on_query=lambda result: metrics.queries.labels(result).inc(),
        ).stop

    agent = StoreAgent(
        open_store,
        serve,
        metrics,
        lambda: app.consumer_generation_id,
        flush_rows=settings.flush_rows,
        flush_ms_max=settings.flush_ms_max,
    )
    return _with_agent(app, agent, "store", topics.ENRICHED, settings, metrics)


def mirror_app(settings: Settings) -> Any:
    """This host's terminal agent: enriched records in, frames of the ring out."""
    from streamapp.agents.mirror import MirrorAgent
    from streamapp.ring import EngineName, RingSpec, RingWriter
    from streamapp.transport import open_reader

    app, metrics = _app(
        f"streamapp-mirror-{socket.gethostname()}", settings, settings.terminal_port
    )

    def open_ring() -> RingWriter:
        spec = RingSpec(plan(settings).embedding_dim(), settings.ring_frames)
        engine: EngineName = "twin" if settings.ring_engine == "twin" else "c"
        return RingWriter.open(settings.ring_file, spec, engine=engine)

    agent = MirrorAgent(
        open_ring,
        open_reader(settings.broker_url),
        metrics,
        lambda: app.consumer_generation_id,
    )
    return _with_agent(app, agent, "mirror", topics.ENRICHED, settings, metrics)


def app_or_exit(build: Callable[[Settings], Any]) -> Any:
    """The app for ``faust -A``; a wrong declaration ends in two lines, not in a traceback."""
    try:
        return build(load()[0])
    except StreamappError as error:
        print(f"error: {error.message}\nfix: {error.fix}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)


def exec_faust(module: str, settings: Settings, port: int) -> NoReturn:
    """Become ``faust -A streamapp.MODULE worker`` with these settings."""
    argv = [sys.executable, "-P", "-m", "faust", "-A", f"streamapp.{module}", "--quiet", "worker"]
    level = "warn" if settings.log_level == "warning" else settings.log_level  # Faust's word
    argv += ["--loglevel", level]
    argv += ["--web-port", str(port)] if port else ["--without-web"]
    env = {**os.environ, **to_environment(settings)}  # noqa: TID251  # faust inherits ours
    os.execve(sys.executable, argv, env)  # noqa: S606  # our own interpreter


def _app(
    name: str, settings: Settings, port: int, *, wait_empty: bool = True
) -> tuple[Any, Metrics]:
    from streamapp.agents.app import make_app

    app = make_app(
        name,
        settings.broker_url,
        settings.home / "faust" / name,
        web_bind="127.0.0.1",
        web_port=port,
        drain_s=settings.drain_s,
        wait_empty=wait_empty,
    )
    return app, Metrics()


def _with_agent(
    app: Any, agent: Any, name: str, topic: str, settings: Settings, metrics: Metrics
) -> Any:
    from streamapp.agents.app import add_pages, on_shutdown
    from streamapp.agents.outcome import persist
    from streamapp.transport import configure, slice_topic

    configure(
        app,
        coalesce={topic},
        start_positions=agent.start_positions,
        batch_events_max=settings.batch_events_max,
        batch_bytes_max=settings.batch_bytes_max,
    )
    app.before_start = lambda: persist("topics", lambda: check_topics(settings), metrics)
    app.agent(slice_topic(app, topic), name=name, concurrency=1)(agent.run)
    add_pages(app, metrics, lambda: {"assigned": agent.ready}, agent.positions)
    on_shutdown(app, agent.stop)
    return app
