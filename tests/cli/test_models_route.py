"""``streamapp models route``: terms by what is declared and by what was recorded; experiments."""

import asyncio

import duckdb
import pyarrow as pa
import pytest
from pyarrow import flight

from streamapp.core.route import ROUTE
from streamapp.models.routing.spec import RouteSpec
from streamapp.plugin.testing import HashClassifier, HashModels
from streamapp.stages.classify import Classify
from streamapp.testing.pipeline import Pipeline
from streamapp.topics.catalogue import ENRICHED
from streamapp.transport import Outgoing, open_producer

MANIFEST = """task = "classify"
name = "{name}"
version = 1
about = "a test's"
licence = "MIT"
model = "model.onnx"
tokenizer = "tokenizer.json"
labels = ["good", "bad"]
languages = {languages}
tokens_max = 100
[measured]
accuracy = {accuracy}
texts_per_s = {speed}
p95_ms = {late}
[[files]]
name = "model.onnx"
sha256 = "{zero}"
bytes = 1
sources = ["file:/nowhere/model.onnx"]
[[files]]
name = "tokenizer.json"
sha256 = "{zero}"
bytes = 1
sources = ["file:/nowhere/tokenizer.json"]
"""
ROUTES = """
[route.sentiment]
task = "classify"
about = "how it feels"
models = ["classify/fast", "classify/good"]
deadline_ms = 50
weights = { alpha = 1, beta = 2, gamma = 3, delta = 4 }
[route.sentiment.canary]
model = "classify/good"
percent = 25
"""


@pytest.fixture
def models(clean):
    """Manifests, routes and receipts as if the files had been pulled."""
    folder = clean / "models"
    rows = ("fast", '["*"]', 0.8, 1000, 5), ("good", '["en"]', 0.95, 100, 25)
    for name, languages, accuracy, speed, late in rows:
        place = folder / "classify" / name / "1"
        place.mkdir(parents=True)
        said = {"name": name, "languages": languages, "accuracy": accuracy, "speed": speed}
        (place / "manifest.toml").write_text(MANIFEST.format(**said, late=late, zero="0" * 64))
    (folder / "routes.toml").write_text(ROUTES)
    return folder


@pytest.fixture
def route(run, models, monkeypatch):
    from dataclasses import replace

    from streamapp.models import Registry

    status = Registry.status
    monkeypatch.setattr(
        Registry, "status", lambda self, name: replace(status(self, name), pulled=True)
    )
    return lambda *arguments: run("models", "route", *arguments, "--models-dir", models)


def test_list(route, run):
    declared = route("list", "--json").json["sentiment"]
    assert declared["models"] == ["classify/fast", "classify/good"]
    assert "classify/good 25 %" in route("list").out
    assert "[route.NAME]" in run("models", "route", "list").out


def test_a_route_that_cannot_be_used_is_listed_with_the_reason(route, models):
    assert route("list", "--json").json["sentiment"]["wrong"] == ""
    with (models / "routes.toml").open("a") as file:
        file.write('[route.gone]\ntask = "classify"\nmodels = ["classify/nope"]\n')
        file.write('[route.other]\ntask = "head"\nmodels = ["classify/fast"]\n')
    declared = route("list", "--json").json
    assert "no model is called 'classify/nope'" in declared["gone"]["wrong"]
    assert "is a model for classify, not for head" in declared["other"]["wrong"]
    assert declared["sentiment"]["wrong"] == ""
    shown = route("list").out
    assert "[route.gone] cannot be used" in shown
    assert "[route.sentiment] cannot" not in shown


def test_a_route_that_cannot_be_read_is_listed_and_the_others_work(route, run, models):
    with (models / "routes.toml").open("a") as file:
        file.write('[route.half]\ntask = "classify"\n')
    line = (models / "routes.toml").read_text().splitlines().index("[route.half]") + 1
    for verb in (("models", "route", "list"), ("models", "list")):
        shown = run(*verb, "--models-dir", models).out
        assert f"routes.toml:{line}: [route.half]: 'models' is missing" in shown
    assert "'models' is missing" in route("list", "--json").json["route half"]["wrong"]
    assert "S = 1 P + 2 A" in route("explain", "sentiment", "--language", "en").out


def test_explain_shows_every_term(route):
    text = route("explain", "sentiment", "--language", "en").out
    assert "S = 1 P + 2 A + 3 C + 4 L" in text
    [told] = route("explain", "sentiment", "--language", "en", "--json").json
    fast, good = told["terms"]
    assert [fast[name] for name in ("performance", "accuracy", "compatibility")] == [1, 0.8, 0.5]
    assert fast["score"] == pytest.approx(1 + 2 * 0.8 + 3 * 0.5 + 4 * 0.9)
    assert good["score"] == pytest.approx(0.1 + 2 * 0.95 + 3 * 1 + 4 * 0.5)
    for each in (fast, good):
        assert f"{each['score']:.3f}" in text
    assert told["order"] == ["classify/fast", "classify/good"]


def test_explain_follows_text_language_and_conversation(route):
    long = route("explain", "sentiment", "--text", "x" * 301, "--json").json[0]
    assert long["why"] == "truncated"
    assert all("longer than 300 characters" in each["gate"] for each in long["terms"])
    german = route("explain", "sentiment", "--language", "de", "--json").json[0]
    assert german["order"] == ["classify/fast"]
    assert "speaks en" in route("explain", "sentiment", "--language", "de").out
    arms = set()
    for number in range(20):
        [said] = route("explain", "sentiment", "--conversation", f"c{number}", "--json").json
        assert (said["arm"] == "classify/good") == (said["why"] == "split")
        arms.add(said["arm"])
    assert arms == {None, "classify/good"}


def test_explain_takes_a_task_and_a_model(route):
    assert [each["route"] for each in route("explain", "classify", "--json").json] == ["sentiment"]
    [alone] = route("explain", "classify/good", "--json").json
    assert alone["order"] == ["classify/good"]


def test_a_model_that_is_not_here_is_no_candidate(run, models):
    said = run("models", "route", "explain", "sentiment", "--models-dir", models)
    assert said.out.count("not pulled") == 2
    assert "answers: nobody" in said.out


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ('models = ["classify/none"]', "no model is called"),
        ('models = ["embed/e5"]', "no model is called"),
        ("models = []", "models"),
        ('models = ["classify/fast"]\ndeadline = 3', "deadline"),
        ('models = ["classify/fast", "classify/fast"]', "names a model twice"),
    ],
)  # fmt: skip
def test_a_wrong_route_is_named(route, models, declared, why):
    (models / "routes.toml").write_text(f'[route.sentiment]\ntask = "classify"\n{declared}\n')
    said = route("explain", "sentiment")
    assert said.code == 2
    assert why in said.err
    assert "fix: " in said.err


def test_an_unknown_route_gets_a_suggestion(route):
    said = route("explain", "sentimant")
    assert said.code == 2
    assert "did you mean sentiment?" in said.err


# What was recorded


def test_explain_by_what_a_worker_recorded(route, clean, tmp_path):
    spec = RouteSpec(task="classify", models=["a", "b"], ahead_events=0)
    classifiers = {name: HashClassifier(("x", "y"), "texts") for name in "ab"}
    models = HashModels(classifiers=classifiers, routes={"sentiment": spec})
    options = {"classify": {"columns": {"mood": "sentiment"}}}
    pipeline = Pipeline(models=models).use(Classify, **options)
    for number in range(12):
        pipeline.send({"message": "x", "id": str(number)})

    async def publish():
        producer = open_producer(f"local://{tmp_path / 'home' / 'log'}")
        await producer.start()
        records = pipeline.log.read(ENRICHED, 0, 0, records_max=100).records
        await producer.send(
            ENRICHED, [Outgoing(r.value, headers=r.headers, partition=0) for r in records]
        )
        await producer.stop()

    assert run_topics(route, clean)
    asyncio.run(publish())
    [told] = route("explain", "sentiment", "--partition", "0", "--json").json
    assert [each["name"] for each in told["epoch"]["candidates"]] == ["a", "b"]
    assert told["epoch"]["number"] >= 1
    missing = route("explain", "sentiment", "--partition", "1")
    assert missing.code == 2
    assert "no epoch of route 'sentiment' for events.raw [1]" in missing.err


def test_a_log_that_is_not_there_is_not_made(route, tmp_path):
    log = tmp_path / "no log"
    said = route("explain", "sentiment", "--partition", "0", "--broker", f"local://{log}")
    assert said.code == 2
    assert f"there is no log at {log}" in said.err
    assert "streamapp topics apply" in said.err
    assert not log.exists()


def run_topics(route, clean):
    from streamapp.cli.app import main

    return main(["topics", "apply"]) == 0


# Experiments


class Server(flight.FlightServerBase):
    """DuckDB on one table ``events``."""

    def __init__(self, events):
        self._events = events
        super().__init__("grpc://127.0.0.1:0")

    def do_get(self, context, ticket):
        with duckdb.connect() as store:
            store.register("events", self._events)
            table = store.sql(ticket.ticket.decode()).to_arrow_table()
        return flight.RecordBatchStream(table)


def events(arms, shadows=()):
    """An event per conversation: its arm, and what the shadow said; the answer is ``good``."""
    rows = [
        {"route": "sentiment", "model": f"classify/{arm or 'fast'}@1", "why": "split", "arm": arm,
         "shadow": shadow}
        for arm, shadow in zip(arms, [*shadows, *[None] * len(arms)], strict=False)
    ]  # fmt: skip
    ids = [str(number) for number in range(len(rows))]
    return pa.table(
        {
            "id": ids,
            "conversation": pa.array([None, *ids[1:]], pa.string()),
            "sentiment": ["good"] * len(rows),
            "sentiment_route": pa.array(rows, ROUTE),
        }
    )


def check(route, table, *more):
    with Server(table) as server:
        return route("check", "sentiment", "--flight-port", str(server.port), *more)


def test_check_says_who_answered_and_whether_the_shares_hold(route):
    table = events(["good"] * 26 + [None] * 74, ["good", "bad", "good", "good"])
    told = check(route, table, "--json").json
    assert told["arms"] == {
        "classify/good": {"percent": 25, "conversations": 0},
        "by score": {"percent": 75, "conversations": 74},
    }
    table = events(["classify/good"] * 26 + [None] * 74, ["good", "bad", "good", "good"])
    told = check(route, table, "--json").json
    assert told["mismatch"] is False
    assert told["shadow"] == {"rows": 4, "agreement": 0.75}
    assert sum(each["rows"] for each in told["answers"]) == 100
    text = check(route, table).out
    assert "as declared" in text
    assert "agrees in 75.0% of 4 rows" in text


def test_check_finds_a_mismatch_and_another_column(route):
    table = events(["classify/good"] * 45 + [None] * 55)
    assert "MISMATCH" in check(route, table).out
    renamed = table.rename_columns(["id", "conversation", "mood", "mood_route"])
    told = check(route, renamed, "--column", "mood", "--json").json
    assert told["mismatch"] is True
    assert told["shadow"]["rows"] == 0
    assert check(route, renamed).code != 0
