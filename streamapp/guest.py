"""Our enrich agent as a guest in somebody's own Faust app: ``streamapp.install``.

The app stays its owner's: its id, broker, tables, agents and settings.  What is added is one agent
on the source topic, pages below ``/streamapp/`` and two commands.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from streamapp import compose
from streamapp.agents.app import add_pages, on_shutdown
from streamapp.agents.coalesce import JoinedStream, Limits
from streamapp.agents.commands import Route, add_commands, declare
from streamapp.agents.enrich import EnrichAgent, EnrichConfig
from streamapp.agents.log import AppLog, log_of
from streamapp.agents.outcome import guarded, persist
from streamapp.agents.twin import twin_to
from streamapp.core.config import Settings, load
from streamapp.core.errors import Refuse
from streamapp.core.metrics import Metrics
from streamapp.plugin import Stage, StageFactory
from streamapp.topics import catalogue as topics
from streamapp.transport import configure, is_configured, join, options_of, record_by_record
from streamapp.transport.acks import SliceSchema, generation_of
from streamapp.transport.clients import Reader
from streamapp.transport.ending import declaring
from streamapp.workflow import Plan, Workflow

#: What ``stages`` takes: a name of the group ``streamapp.stages``, a factory such as ``@stage``
#: makes, or a stage.
AnyStage = str | StageFactory | Stage


@dataclass(slots=True)
class _House:
    """What the guests of one app share."""

    log: AppLog
    settings: Settings
    catalogue: topics.Catalogue
    metrics: Metrics = field(default_factory=Metrics)
    routes: list[Route] = field(default_factory=list)
    agents: list[EnrichAgent] = field(default_factory=list)

    def ready(self) -> dict[str, bool]:
        """Which sources have their partitions."""
        pairs = zip(self.routes, self.agents, strict=True)
        return {f"assigned.{route.source}": agent.ready for route, agent in pairs}

    def positions(self) -> Mapping[tuple[str, int], int]:
        """The next source offset of each partition that is not enriched yet."""
        return {key: at for agent in self.agents for key, at in agent.positions().items()}


_houses: WeakKeyDictionary[Any, _House] = WeakKeyDictionary()


@declaring()
def install(
    app: Any,
    *,
    source: Any,
    stages: Sequence[AnyStage],
    enriched: str = "",
    dead: str = "",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    json_twin: bool | None = None,
    settings: Settings | None = None,
) -> Any:
    """Add the enrich agent to a Faust app: events of ``source`` in, enriched records out.

    On ``local://`` and ``kafka+batch://`` the source arrives as Slices, starting where the enriched
    topic ends.  On Faust's own ``kafka://``, or where something else in the app reads the source
    too, record by record, the agent joins what has arrived: as slow as Faust is, and at least once.
    Everything else in the app works as without us.

    The topics are created on start, when the app's ``topic_allow_declare`` lets it.

    Args:
        app: any ``faust.App``, not started.
        source: a topic's name or ``app.topic(...)``; its values are JSON events.
        stages: what runs on every event; see ``AnyStage``.
        enriched: topic for the results, ``<source>.enriched`` unless named.
        dead: topic for events that failed for good, ``<source>.dead`` unless named.
        options: of stages by name, as ``[stages.NAME]`` of a workflow.
        json_twin: publish the rows as JSON records, too, to ``<enriched>.json``; None: as the
            setting ``json_twin`` says.
        settings: limits and where models are; by default read as every streamapp process does.
            Those of an app's first installation hold for all of them.

    Returns:
        The enriched topic, for ``@app.agent``: its values are ``pyarrow.RecordBatch``.

    Raises:
        Refuse: a stage is unknown or does not fit, the source is not one topic, or a topic has two
            parts to play, in this installation or with another of the app.
    """
    house = _house(app, settings)
    topic = _source_topic(app, source)
    name = str(topic.get_topic_name())
    if json_twin is None:
        json_twin = house.settings.json_twin == "true"
    route = _route(name, enriched, dead, json_twin, topic.partitions or app.conf.topic_partitions)
    _check_topics([*house.routes, route])
    reader = house.log.reader()
    agent = EnrichAgent(
        _plan(house, stages, options or {}),
        house.log.producer(),
        reader,
        _config(house, route),
        house.metrics,
        lambda: generation_of(app),
        twin_to(route.twin, house.catalogue[topics.TWIN].record_bytes_max) if route.twin else None,
    )
    start_positions = _start_positions(app, agent, name)
    join(app, name, start_positions)
    _employ(app, agent, topic, _joining(app, reader, start_positions, house.metrics))
    house.routes.append(route)
    house.agents.append(agent)
    return app.topic(route.enriched, value_serializer="arrow")


def _joining(
    app: Any, reader: Reader, start_positions: Any, metrics: Metrics
) -> Callable[[Any], JoinedStream]:
    """How a stream is read whose records may arrive one by one."""

    def joined(stream: Any) -> JoinedStream:
        options = options_of(app)
        limits = Limits(options.batch_events_max, options.batch_bytes_max)
        return JoinedStream(
            stream, start_positions, reader, lambda: generation_of(app), limits, metrics
        )

    return joined


def _house(app: Any, settings: Settings | None) -> _House:
    """The app's house; with the first guest its pages, its commands and its start are set up."""
    if app in _houses:
        return _houses[app]
    if app.conf.processing_guarantee.value == "exactly_once":
        raise Refuse(
            "install.exactly_once",
            "streamapp.install does not take part in Kafka transactions:"
            " processing_guarantee='exactly_once'",
            "leave it at 'at_least_once'; readers of enriched records drop repeats by their range",
        )
    settings = settings or load()[0]
    declared = topics.load(settings.topics_dir, {topics.TWIN})
    house = _houses[app] = _House(log_of(app), settings, declared)
    if not is_configured(app):
        configure(
            app,
            batch_events_max=house.settings.batch_events_max,
            batch_bytes_max=house.settings.batch_bytes_max,
            batch_wait_ms_max=house.settings.batch_wait_ms_max,
            stall_s_max=house.settings.stall_s_max,
        )
    add_pages(app, house.metrics, house.ready, house.positions, prefix="/streamapp")
    add_commands(app, house.log, house.routes, house.catalogue)
    _declare_before_start(app, house)
    return house


def _declare_before_start(app: Any, house: _House) -> None:
    """Have the topics before anything subscribes: Faust would give each the app's own default.

    Faust calls ``on_first_start`` once and before any service; it has no signal there.
    """
    first_start = app.on_first_start

    async def on_first_start() -> None:
        if not app.client_only:
            await guarded(
                persist(
                    "topics",
                    lambda: declare(
                        house.log,
                        house.routes,
                        house.catalogue,
                        create=app.conf.topic_allow_declare,
                    ),
                    house.metrics,
                )
            )
        await first_start()

    app.on_first_start = on_first_start


def _source_topic(app: Any, source: Any) -> Any:
    """The source as a topic of our own, which delivers what arrived as it is."""
    if isinstance(source, str) and source:
        return app.topic(source, schema=SliceSchema())
    if not hasattr(source, "derive_topic"):
        raise Refuse(
            "install.source", f"source {source!r} is no topic", "give its name or app.topic(...)"
        )
    topic = source.derive_topic(schema=SliceSchema())
    if topic.pattern or len(topic.topics or ()) != 1:
        raise Refuse(
            "install.source",
            f"source {source!r} is not one topic",
            "install once for each topic, by name",
        )
    return topic


def _route(name: str, enriched: str, dead: str, json_twin: bool, partitions: int) -> Route:
    for role, given in (("enriched", enriched), ("dead", dead)):
        if not isinstance(given, str):
            raise Refuse(
                "install.topics", f"{role}={given!r} is no topic's name", "give it as a str"
            )
    enriched = enriched or f"{name}.enriched"
    twin = f"{enriched}.json" if json_twin else ""
    return Route(name, enriched, dead or f"{name}.dead", twin, partitions)


def _check_topics(routes: Sequence[Route]) -> None:
    """No topic plays two parts: agents would take each other's records for their own."""
    seen: dict[str, str] = {}
    for route in routes:
        for topic, part in (
            (route.source, "the source"),
            (route.enriched, "the enriched topic"),
            (route.dead, "the dead topic"),
            (route.twin, "the JSON twin"),
        ):
            now = f"{part} of install(source={route.source!r})"
            if topic and topic in seen:
                raise Refuse(
                    "install.topics",
                    f"topic {topic!r} is {seen[topic]} and {now}",
                    "give source=, enriched= and dead= a topic each; <enriched>.json is the twin",
                )
            seen[topic] = now


def _plan(
    house: _House, stages: Sequence[AnyStage], options: Mapping[str, Mapping[str, Any]]
) -> Plan:
    if isinstance(stages, str) or not isinstance(stages, Iterable):
        raise Refuse("install.stages", f"stages={stages!r} is no list", "write stages=[...]")
    names: list[str] = []
    factories: dict[str, StageFactory] = {}
    for stage in stages:
        name, factory = _named(stage, options)
        if name in names:
            raise Refuse("workflow.twice", f"stage {name!r} is named twice", "remove one")
        names.append(name)
        if factory is not None:
            factories[name] = factory
    if not names or (unknown := sorted(options.keys() - set(names))):
        what = f"options for {unknown[0]!r}, which does not run" if names else "no stages"
        raise Refuse("install.stages", f"streamapp.install: {what}", "name it in stages=[...]")
    workflow = Workflow(path="streamapp.install", stages=tuple(names), options=options)
    seconds = house.metrics.stage_seconds
    try:
        return Plan(
            workflow,
            compose.registry(house.settings),
            factories,
            lambda name, _, s: seconds.labels(name).observe(s),
        )
    except Refuse as error:
        if "[stages." in error.fix:  # as a workflow.toml has them
            error.fix += "; here a stage's are options={'NAME': {...}}"
        raise


def _named(
    stage: AnyStage, options: Mapping[str, Mapping[str, Any]]
) -> tuple[str, StageFactory | None]:
    """A stage's name, and its factory when it is not an installed one."""
    if isinstance(stage, str):
        return stage, None
    if isinstance(stage, Stage) and not isinstance(stage, type):
        if stage.name in options:
            raise Refuse(
                "install.stages",
                f"stage {stage.name!r} is made already, so options={{{stage.name!r}: ...}} is late",
                "give the class or the function, or make it with those options",
            )
        return stage.name, lambda _options: stage
    if not callable(stage):
        raise Refuse(
            "install.stages",
            f"{stage!r} is no stage",
            "give a name, what @stage made, a stage's class, or a stage",
        )
    # What @stage makes and what is no class says its name only when made.
    name = getattr(stage, "name", None) or stage({}).name
    return str(name), stage


def _config(house: _House, route: Route) -> EnrichConfig:
    settings = house.settings
    return EnrichConfig(
        record_bytes_max=house.catalogue[topics.ENRICHED].record_bytes_max,
        event_bytes_max=settings.event_bytes_max,
        snapshot_records=settings.snapshot_records,
        snapshot_s=settings.snapshot_s,
        conversations_max=settings.conversations_max,
        enriched=route.enriched,
        dead=route.dead,
    )


def _start_positions(app: Any, agent: EnrichAgent, source: str) -> Any:
    async def start_positions(tps: Iterable[Any]) -> Mapping[Any, int]:
        readers = [channel for channel in app.topics if source in (channel.topics or ())]
        if not all(isinstance(channel.schema, SliceSchema) for channel in readers):
            record_by_record(app, source)
        return await agent.start_positions(tps)

    return start_positions


def _employ(
    app: Any, agent: EnrichAgent, topic: Any, joined: Callable[[Any], JoinedStream]
) -> None:
    """The agent in the app, from its first Slice to the drain."""
    streams: list[JoinedStream] = []

    async def enrich(stream: Any) -> None:
        streams[:] = [joined(stream)]
        await agent.run(streams[0])

    async def stop() -> None:
        for stream in streams:
            stream.stop()
        await agent.stop()

    app.agent(topic, name=f"streamapp.{topic.get_topic_name()}", concurrency=1)(enrich)
    on_shutdown(app, stop)
