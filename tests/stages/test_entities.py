"""The stage that names entities and fills fields, and what SQL makes of its columns."""

import dataclasses
import json

import pytest
from gliners import extractor, golden
from sinks import DuckSink, ParquetSink, event, record

from streamapp.models.routing.spec import Facts, RouteSpec
from streamapp.plugin import Halt, Refuse, Retry
from streamapp.plugin.testing import HashClassifier, HashModels, WordExtractor, batch_of
from streamapp.stages.entities import ENTITY, Entities
from streamapp.stages.fields import number
from streamapp.stages.language import Language
from streamapp.testing.contracts.stage import StageContract
from streamapp.testing.pipeline import Pipeline

NOTE = "Número da Nota: 1001\nValor Total: R$ 1.234,56\nCNPJ: 12.345.678/0001-95\n"
INVOICE = {
    "fields": {
        "number": "Número da Nota",
        "total": {"label": "Valor Total", "kind": "number"},
        "tax_id": {"label": "CNPJ", "kind": "digits"},
        "buyer": "Tomador",
        "items": {"label": "Item", "many": True},
    }
}


class TestContract(StageContract):
    stage = Entities
    options = {"entities": {"labels": ["name"]}}  # noqa: RUF012
    models = HashModels(extractors={"words": WordExtractor()})
    tolerance = 0


def made(model=None, **options):
    stage = Entities(options)
    stage.open(HashModels(extractors={"words": model or WordExtractor()}))
    return stage


def found(stage, texts, types=None):
    columns = stage.enrich(batch_of(text=texts, type=types or ["message"] * len(texts)))
    assert {name: array.type for name, array in columns.items()} == stage.writes
    return {name: array.to_pylist() for name, array in columns.items()}


def test_entities_are_places_in_the_text():
    text = "who: Ann Lee\nwhere: Rome"
    columns = found(made(labels=["where", "who"]), [text])
    assert list(columns) == ["entities", "entities_truncated"]
    [[one, two]] = columns["entities"]
    assert list(one) == [field.name for field in ENTITY]
    assert (one["text"], one["label"], one["score"]) == ("Ann Lee", "who", pytest.approx(0.9))
    assert text[one["start"] : one["end"]] == "Ann Lee"
    assert text[two["start"] : two["end"]] == two["text"] == "Rome"


def test_no_text_is_null_and_nothing_found_is_empty():
    columns = found(made(labels=["who"]), [None, "", " \n", "nobody"])
    assert columns["entities"] == [None, None, None, []]
    assert columns["entities_truncated"] == [None, None, None, False]


def test_each_type_has_its_labels():
    types = {
        "order.*": {"labels": ["item"]},
        "order.paid": {"labels": ["sum"]},
        "noise": {"labels": []},
    }
    stage = made(labels=["who"], types=types)
    text = "who: Ann\nitem: cup\nsum: 3"
    kinds = ["message", "order.new", "order.paid", "noise", "message"]
    columns = found(stage, [text] * 5, kinds)
    labels = [one and [e["label"] for e in one] for one in columns["entities"]]
    assert labels == [["who"], ["item"], ["sum"], None, ["who"]]


def test_fields_are_filled_from_entities():
    stage = made(types={"invoice": INVOICE})
    items = "Item: cup\nItem: small   plate"
    columns = found(
        stage, [NOTE + items, "nothing", NOTE, None], ["invoice", "invoice", "x", "invoice"]
    )
    assert list(map(json.loads, columns["fields"][:2])) == [
        {
            "number": "1001",
            "total": 1234.56,
            "tax_id": "12345678000195",
            "buyer": None,
            "items": ["cup", "small plate"],
        },
        {"number": None, "total": None, "tax_id": None, "buyer": None, "items": []},
    ]
    assert columns["fields"][2:] == [None, None]
    assert columns["entities"][2:] == [None, None]  # its type has no labels


def test_the_surest_entity_fills_a_field():
    class Twice(WordExtractor):
        def extract(self, texts, labels, **how):
            found, cut = super().extract(texts, labels, **how)
            return [[e._replace(score=1 / (1 + e.start)) for e in one] for one in found], cut

    stage = made(Twice(), types={"t": {"fields": {"sum": "sum"}}})
    columns = found(stage, ["sum: 1\nsum: 2"], ["t"])
    assert columns["fields"] == ['{"sum":"1"}']


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"labels": ["a", "b"]}, ["a", "b"]),
        ({"labels": ["a", "b"], "threshold": 0.95}, []),
        ({"labels": ["a", "b"], "thresholds": {"a": 0.95}}, ["b"]),
        ({"labels": ["a", "b"], "threshold": 0.95, "thresholds": {"a": 0.1}}, ["a"]),
        ({"labels": ["a", "b"], "types": {"message": {"thresholds": {"b": 1}}}}, ["a"]),
        ({"labels": ["a"], "types": {"message": {"labels": ["b"], "threshold": 0.1}}}, ["b"]),
        ({"labels": ["a", "b"], "threshold": 0.1, "types": {"message": {"threshold": 0.95}}}, []),
    ],
)
def test_thresholds(options, kept):
    [entities] = found(made(**options), ["a: 1\nb: 2"])["entities"]
    assert [entity["label"] for entity in entities] == kept


def test_no_more_than_entities_max_and_the_row_says_so():
    texts = ["a: 1\na: 2\na: 3", "a: 1", "a: 1\n" * 400]
    columns = found(made(labels=["a"], entities_max=2), texts)
    assert [len(one) for one in columns["entities"]] == [2, 1, 2]
    assert columns["entities_truncated"] == [True, False, True]


def test_another_column_can_be_read():
    stage = made(labels=["a"], column="document_text")
    assert stage.reads == ("document_text", "type")
    columns = stage.enrich(batch_of(text=["a: 1"], document_text=["a: 2"]))
    assert columns["entities"].to_pylist()[0][0]["text"] == "2"


def test_fixed_labels_need_none_to_be_named():
    stage = made(WordExtractor(["a"]), types={"noise": {"labels": []}})
    assert found(stage, ["b: 1"] * 2, ["message", "noise"])["entities"] == [[], None]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"labels": [1]}, "labels"),
        ({"labels": ["a", ""]}, "labels"),
        ({"threshold": 2.0}, "threshold 2.0"),
        ({"thresholds": {"a": "x"}}, "'x'"),
        ({"entities_max": 0}, "entities_max"),
        ({"types": {"t": {"label": []}}}, "label"),
        ({"types": {"t": []}}, "types.t"),
        ({"types": {"t": {"fields": []}}}, "fields"),
        ({"types": {"t": {"fields": {"f": 3}}}}, "fields.f"),
        ({"types": {"t": {"fields": {"f": {"label": "a", "kin": "b"}}}}}, "'kin'"),
        ({"types": {"t": {"fields": {"f": {"label": "a", "kind": "date"}}}}}, "'date'"),
        ({"types": {"t": {"fields": {"f": {"label": "a", "many": 1}}}}}, "many"),
        ({"types": {"t": {"fields": {"f": {"label": "a", "decimal": ";"}}}}}, "decimal"),
        ({"model": 1}, "model"),
    ],
)
def test_options_that_cannot_be_are_refused(options, named):
    with pytest.raises(Refuse, match="entities") as refused:
        Entities(options)
    assert named in refused.value.message


def test_a_model_that_looks_for_anything_must_be_told_for_what():
    with pytest.raises(Refuse, match="it has no labels"):
        made()
    with pytest.raises(Refuse, match="knows no label 'b'"):
        made(WordExtractor(["a"]), labels=["b"])


def test_another_model_between_two_batches_is_in_the_provenance_or_halts():
    class Swapped(WordExtractor):
        pass

    model = Swapped()
    stage = made(model, labels=["a"])
    first = stage.models
    model.ref = dataclasses.replace(model.ref, version=2)
    found(stage, ["nothing"])
    assert [ref.version for ref in (*first, *stage.models)] == [1, 2]
    model.ref, model.labels = dataclasses.replace(model.ref, version=3), ("b",)
    with pytest.raises(Halt, match="knows no label 'a'"):
        found(stage, ["nothing"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("R$ 1.234,56", 1234.56),
        ("EUR 1,234.56", 1234.56),
        ("1.234", 1234),
        ("0.125", 0.125),
        ("1,5", 1.5),
        ("$1,234,567", 1_234_567),
        ("1 234 567,8 €", 1_234_567.8),
        ("1'234.50 CHF", 1234.5),
        ("-3", -3),
        ("\u2212 5,25", -5.25),
        (".5", 0.5),
        ("10 20", 10),
        ("no number", None),
        ("9" * 19, None),
    ],
)
def test_numbers_as_people_write_them(text, value):
    assert number(text) == value


def test_a_number_s_decimal_sign_can_be_told():
    assert number("1.234", decimal=".") == 1.234
    assert number("1,234", decimal=",") == 1.234
    assert number("1.234", decimal=",") == 1234


# By a route


class Named(WordExtractor):
    """An extractor of a name; ``away`` ones fail."""

    def __init__(self, version, score, *, away=False):
        super().__init__(score=score)
        self.ref, self.away = dataclasses.replace(self.ref, version=version), away

    def extract(self, texts, labels, **how):
        if self.away:
            raise Retry("models.away", "it is away", "wait")
        return super().extract(texts, labels, **how)


def routed(one, two, models=("one", "two"), **declared):
    spec = RouteSpec(
        task="entities",
        models=list(models),
        facts={"one": Facts(accuracy=0.9), "two": Facts(accuracy=0.5)},
        **declared,
    )
    return HashModels(extractors={"one": one, "two": two}, routes={"names": spec})


class TestContractByRoute(StageContract):
    stage = Entities
    options = {"entities": {"route": "names", "labels": ["name"]}}  # noqa: RUF012
    models = routed(Named(1, 0.9), Named(2, 0.6), split={"two": 50.0})
    tolerance = 0


def sent(models, *events, **options):
    chosen = {"route": "names", "labels": ["who"], "types": {"invoice": INVOICE}, **options}
    return Pipeline(models=models).use(Entities, entities=chosen).send(*events)


def test_a_route_says_who_answered_each_event():
    first, second, empty = sent(
        routed(Named(1, 0.9), Named(2, 0.6)),
        "who: Ann",
        {"message": NOTE, "type": "invoice"},
        {"type": "View", "message": ""},
    )
    assert first["entities"][0]["text"] == "Ann"
    assert first["entities_route"]["model"] == "entities/words@1"
    assert first["entities_route"]["why"] == "score"
    assert json.loads(second["fields"])["number"] == "1001"
    assert [empty[name] for name in ("entities", "entities_route", "fields")] == [None] * 3


def test_by_language_a_model_gets_what_it_speaks():
    facts = {"one": Facts(accuracy=0.9, languages=["en"]), "two": Facts(accuracy=0.5)}
    spec = RouteSpec(task="entities", models=["one", "two"], facts=facts)
    extractors = {"one": Named(1, 0.9), "two": Named(2, 0.6)}
    models = HashModels(extractors=extractors, routes={"names": spec})
    options = {"route": "names", "labels": ["who"], "by_language": True}
    pipeline = Pipeline(models=models).use(Language, Entities, entities=options)
    rows = pipeline.send(
        "who: Ann, and this is a message in plain English words",
        "who: Ana, e esta é uma mensagem em português do Brasil, não é?",
    )
    assert [row["language"] for row in rows] == ["en", "pt"]
    assert [row["entities_route"]["model"][-1] for row in rows] == ["1", "2"]


def test_what_one_model_cannot_do_the_next_does():
    [row] = sent(routed(Named(1, 0.9, away=True), Named(2, 0.6)), "who: Ann")
    assert row["entities_route"]["model"] == "entities/words@2"
    assert row["entities_route"]["why"] == "fallback"
    assert row["entities"][0]["score"] == pytest.approx(0.6)


def test_a_shadow_is_asked_and_compared_by_places_and_labels():
    shadow = {"models": ["one"], "shadow": "two", "shadow_wait_ms_max": 60_000.0}
    models = routed(Named(1, 0.9), Named(2, 0.6), **shadow)
    [row] = sent(models, "who: Ann")
    assert row["entities_route"]["shadow_model"] == "entities/words@2"
    assert row["entities_route"]["shadow"] == "5-8:who"
    assert row["entities_route"]["shadow_confidence"] == pytest.approx(0.6)


def test_a_route_that_cannot_be_is_refused():
    with pytest.raises(Refuse, match="a model and a route"):
        Entities({"route": "names", "model": "one", "labels": ["who"]})
    with pytest.raises(Refuse, match="no labels"):
        Entities({"route": "names"})
    spec = RouteSpec(task="classify", models=["a"])
    stage = Entities({"route": "topic", "labels": ["who"]})
    with pytest.raises(Refuse, match="routed to models for classify"):
        stage.declare(HashModels(classifiers={"a": HashClassifier(["x"])}, routes={"topic": spec}))


# GLiNER in a pipeline, and what SQL makes of it


@pytest.fixture
def gliner():
    return HashModels(extractors={"tiny": extractor("span")})


def test_gliner_in_a_pipeline_finds_what_the_reference_finds(gliner):
    case = next(
        case
        for case in golden("span")
        if len(case["entities"]) > 10 and case["flat_ner"] and not case["multi_label"]
    )
    options = {"labels": case["labels"], "threshold": case["threshold"]}
    pipeline = Pipeline(models=gliner).use(Entities, entities=options)
    [row] = pipeline.send({"message": case["text"], "type": "t"})
    assert [(e["start"], e["end"], e["label"]) for e in row["entities"]] == [
        (e["start"], e["end"], e["label"]) for e in case["entities"]
    ]


@pytest.mark.parametrize("sink", [DuckSink, lambda folder: ParquetSink(str(folder / "p"))])
def test_entities_and_fields_are_queried_in_both_stores(tmp_path, sink):
    """Also in a store that is older than the stage."""
    sink = sink(tmp_path)
    sink.open().close()
    stage = made(labels=["who"], types={"invoice": INVOICE})
    texts, types = ["who: Ann\nwho: Bob", NOTE, None], ["message", "invoice", "message"]
    columns = stage.enrich(batch_of(text=texts, type=types))
    renamed = {f"x_{name}": column for name, column in columns.items()}
    rows = [event(offset, type=kind) for offset, kind in enumerate(types)]
    kinds = {name: column.type for name, column in renamed.items()}
    with sink.open(columns=kinds) as store:
        store.write([record(0, 3, rows, extra=renamed)])
        with store.reader() as reader:
            people = reader.execute(
                "select id, e.text, e.start from (select id, unnest(x_entities) as e from events) "
                "where e.label = 'who' order by e.start"
            ).fetchall()
            total = reader.execute(
                "select id, x_fields->>'number', (x_fields->>'total')::decimal(9, 2) from events "
                "where x_fields is not null"
            ).fetchall()
    assert people == [("id-0", "Ann", 5), ("id-0", "Bob", 14)]
    assert [(name, which, float(sum_)) for name, which, sum_ in total] == [
        ("id-1", "1001", 1234.56)
    ]
