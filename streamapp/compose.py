"""The only place that builds things: settings in, wired parts out.  No behaviour.

Imports are inside the functions, so that a process loads only what it is made of.
"""

import os
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn

from streamapp.core.config import Settings, load, to_environment
from streamapp.core.cycles import uncollected
from streamapp.core.errors import Refuse, StreamappError
from streamapp.core.metrics import Metrics
from streamapp.topics import catalogue as topics

if TYPE_CHECKING:
    from streamapp.agents.direct import DirectRing
    from streamapp.models import Registry
    from streamapp.ring import RingWriter
    from streamapp.sink.contract import Sink
    from streamapp.transport import Admin, Members, Producer, Reader, Security
    from streamapp.workflow import Plan, Workflow


def catalogue(settings: Settings) -> topics.Catalogue:
    """The declared topics, the optional ones as the settings and the project ask for them."""
    from streamapp.core.exports import has_exports

    wanted = {topics.TWIN} if settings.json_twin == "true" else set()
    wanted |= topics.EXPORTS if has_exports() else set()
    wanted |= topics.ASKS if settings.llm_base_url else set()
    return topics.load(settings.topics_dir, wanted)


def security(settings: Settings) -> "Security":
    """How to connect to the broker."""
    from streamapp.transport import Security

    return Security(
        settings.broker_security,
        settings.broker_sasl_mechanism,
        settings.broker_username,
        settings.broker_password,
        settings.broker_ca_file,
        settings.broker_cert_file,
        settings.broker_key_file,
    )


def producer(settings: Settings) -> "Producer":
    """A producer for the log, to be started."""
    from streamapp.transport import open_producer

    return open_producer(settings.broker_url, security(settings))


def reader(settings: Settings) -> "Reader":
    """A reader of the log, to be started."""
    from streamapp.transport import open_reader

    return open_reader(settings.broker_url, security(settings))


def members(settings: Settings) -> "Members":
    """A maker of members of the log's consumer groups, to be started."""
    from streamapp.transport import open_members

    return open_members(settings.broker_url, security(settings))


def admin(settings: Settings) -> "Admin":
    """An admin client of the log, to be started."""
    from streamapp.transport import open_admin

    copies = settings.broker_replication or None
    return open_admin(settings.broker_url, security(settings), replication=copies)


def registry(settings: Settings) -> "Registry":
    """The models that are declared, and where their files are kept.

    Without ``models_dir`` those as installed, behind the ones that were added under ``home``.
    """
    from streamapp.plugin.declared import declared_registry

    return declared_registry(settings)


def workflow(settings: Settings) -> "Workflow":
    """The declared workflow."""
    from streamapp.workflow import load_workflow

    return load_workflow(catalogue(settings).folder / "workflow.toml")


def plan(settings: Settings, metrics: Metrics | None = None) -> "Plan":
    """The workflow's stages in order, their columns known; weights are loaded by ``open``."""
    from streamapp.models.serving.live import live
    from streamapp.workflow import Plan

    def observe(stage: str, _rows: int, seconds: float) -> None:
        if metrics is not None:
            metrics.stage_seconds.labels(stage).observe(seconds)

    return Plan(workflow(settings), live(registry(settings), metrics), on_stage=observe)


def missing_models(settings: Settings) -> list[str]:
    """The models that the workflow names, or the default one, whose files are not here yet."""
    from streamapp.models.needed import needed

    declared, known = workflow(settings), registry(settings)
    stages = {name: declared.options.get(name, {}) for name in declared.stages}
    names = needed(known, stages, has_own=settings.embedding_model is not None)
    return [name for name in names if not known.status(name).pulled]


async def ensure_topics(settings: Settings) -> list[str]:
    """Create the catalogue's topics on the broker; the names of those that were missing."""
    from streamapp.agents.needed import make

    return await make(admin(settings), catalogue(settings))


async def check_topics(settings: Settings) -> None:
    """What every agent needs of the log before it starts; nothing is created.

    Raises:
        Refuse: a topic is missing, or raw and enriched (or its JSON twin) differ in partitions.
        Retry: the broker does not answer.
    """
    from streamapp.agents.needed import check

    twin = [topics.TWIN] if settings.json_twin == "true" else []
    asks = [topics.ASK, topics.ANSWERS] if settings.llm_base_url else []
    needed = [topics.RAW, topics.ENRICHED, topics.DEAD, *twin, *asks]
    await check(admin(settings), needed, settings.broker_url)


async def serve_gateway(settings: Settings, on_ready: Callable[[str], None] | None = None) -> None:
    """The gateway, until a signal."""
    from streamapp.gateway import serve
    from streamapp.gateway.schemas.configured import changeable_export
    from streamapp.gateway.sources import project_sources

    await serve(
        settings,
        producer(settings),
        catalogue(settings),
        Metrics(),
        admin=admin(settings),
        reader=reader(settings),
        members=members(settings),
        webhooks=project_sources(),
        export=changeable_export(),
        on_ready=on_ready,
        models=lambda: registry(settings),
    )


def enrich_app(settings: Settings) -> Any:
    """The worker's Faust app: raw events in, enriched records and, in direct mode, frames out."""
    from streamapp.agents.beside import beside
    from streamapp.agents.enrich import EnrichAgent, EnrichConfig

    app, metrics = _app("streamapp-enrich", settings, settings.worker_port, wait_empty=False)
    declared = catalogue(settings)
    stages = plan(settings, metrics)
    agent = EnrichAgent(
        stages,
        producer(settings),
        reader(settings),
        EnrichConfig(
            record_bytes_max=declared[topics.ENRICHED].record_bytes_max,
            event_bytes_max=settings.event_bytes_max,
            snapshot_records=settings.snapshot_records,
            snapshot_s=settings.snapshot_s,
            conversations_max=settings.conversations_max,
        ),
        metrics,
        _generation(app),
        beside(settings, workflow(settings), stages.columns(), declared),
        _direct_ring(settings, stages, metrics) if settings.ring == "direct" else None,
    )
    return _with_agent(app, agent, "enrich", topics.RAW, settings, metrics, agent.open)


def open_sink(settings: Settings) -> "Sink":
    """The store that the settings name, opened to be written."""
    from streamapp.sink import Store
    from streamapp.sink.parquet import ORDER, ParquetStore
    from streamapp.sink.search import Search

    stages = plan(settings)
    duck, parquet = (
        (Store, settings.store_path, "rowid"),
        (ParquetStore, settings.parquet_root, ORDER),
    )
    kind, where, row = parquet if settings.store == "parquet" else duck
    return kind.open(
        where,
        columns={field.name: field.type for field in stages.columns()},
        dedup_window_s=settings.dedup_window_s,
        dedup_window_events=settings.dedup_window_events,
        search=Search(stages.text_embedder(), bytes_max=settings.search_bytes_max, row=row),
    )


def store_app(settings: Settings) -> Any:
    """The store's Faust app: enriched records in, stored rows and a Flight port out."""
    from streamapp.agents.app import on_shutdown
    from streamapp.agents.asking.feed import AnswersFeed
    from streamapp.agents.outcome import persist
    from streamapp.agents.store import StoreAgent
    from streamapp.flight import FlightServer
    from streamapp.gateway.batches import Batches
    from streamapp.sink import upkeep
    from streamapp.sink.contract import Sink

    app, metrics = _app("streamapp-store", settings, settings.store_port)
    sender = producer(settings)

    def serve(store: Sink) -> Callable[[], None]:
        return FlightServer.of(
            settings,
            store.reader,
            actions=upkeep.of_sink(store, settings.dedup_window_s, settings.dedup_window_events),
            ingest=Batches.of(settings, sender, catalogue(settings), metrics),
            live=store,
            prepare=store.prepare,
            on_query=lambda result: metrics.queries.labels(result).inc(),
        ).stop

    in_parquet = settings.store == "parquet"
    agent = StoreAgent(
        lambda: open_sink(settings),
        serve,
        metrics,
        _generation(app),
        flush_rows=settings.parquet_flush_rows if in_parquet else settings.flush_rows,
        flush_ms_max=settings.parquet_flush_ms_max if in_parquet else settings.flush_ms_max,
        feed=AnswersFeed(reader(settings), metrics) if settings.llm_base_url else None,
    )

    async def opening() -> None:
        await persist("producer", sender.start, metrics)
        await agent.open()

    _with_agent(app, agent, "store", topics.ENRICHED, settings, metrics, opening)
    on_shutdown(app, sender.stop)  # after the agent's, which ends what sends
    return app


def ring_writer(settings: Settings, stages: "Plan | None" = None) -> "RingWriter":
    """This host's ring, to be written by this process, in the shape of what the workflow writes."""
    from streamapp.agents.frames import ring_spec
    from streamapp.ring import RingWriter

    columns = (stages or plan(settings)).columns()
    spec = ring_spec(columns, settings.ring_frames)
    return RingWriter.open(settings.ring_file, spec, engine=settings.ring_engine)


def _direct_ring(settings: Settings, stages: "Plan", metrics: Metrics) -> "DirectRing":
    from streamapp.agents.direct import DirectRing

    return DirectRing(
        lambda: ring_writer(settings, stages), reader(settings), stages.stages, metrics
    )


def mirror_app(settings: Settings) -> Any:
    """This host's terminal agent: enriched records in, frames of the ring out.

    Raises:
        Refuse: the worker writes this host's ring.
    """
    from streamapp.agents.mirror import MirrorAgent

    if settings.ring == "direct":
        raise Refuse(
            "ring.direct",
            f"ring = direct: the worker of this host writes {settings.ring_file} itself",
            "run no terminal beside it, or set ring = c for one that the terminal writes",
        )
    app, metrics = _app(
        f"streamapp-mirror-{socket.gethostname()}", settings, settings.terminal_port
    )
    agent = MirrorAgent(
        lambda: ring_writer(settings),
        reader(settings),
        metrics,
        _generation(app),
    )
    return _with_agent(app, agent, "mirror", topics.ENRICHED, settings, metrics, agent.open)


def app_or_exit(build: Callable[[Settings], Any]) -> Any:
    """The app for ``faust -A``; a wrong declaration ends in two lines, not in a traceback."""
    try:
        with uncollected():
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
        session_s=settings.session_s,
        security=security(settings),
        wait_empty=wait_empty,
    )
    return app, Metrics()


def _generation(app: Any) -> Callable[[], int]:
    from streamapp.transport.acks import generation_of

    return lambda: generation_of(app)


def _with_agent(
    app: Any,
    agent: Any,
    name: str,
    topic: str,
    settings: Settings,
    metrics: Metrics,
    opening: Callable[[], Awaitable[None]] | None = None,
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
        batch_wait_ms_max=settings.batch_wait_ms_max,
        stall_s_max=settings.stall_s_max,
    )

    async def before_start() -> None:
        await persist("topics", lambda: check_topics(settings), metrics)
        if opening is not None:
            await opening()

    app.before_start = before_start
    app.agent(slice_topic(app, topic), name=name, concurrency=1)(agent.run)
    add_pages(app, metrics, lambda: {"assigned": agent.ready}, agent.positions)
    on_shutdown(app, agent.stop)
    return app
