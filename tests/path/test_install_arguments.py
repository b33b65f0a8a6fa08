"""What streamapp.install takes, and what it refuses before anything connects."""

import faust
import pytest

import streamapp
from streamapp.agents.log import log_of
from streamapp.core.config import load
from streamapp.core.errors import Refuse
from streamapp.guest import _houses
from streamapp.plugin import stage
from streamapp.stages.language import Language
from streamapp.transport import configure, options_of


@stage("loud", version=1, reads=["text"], writes={"loud": "string"})
def loud(text):
    return {"loud": text.upper()}


@pytest.fixture
def app(tmp_path):
    return faust.App("mine", broker=f"local://{tmp_path}/log")


def test_it_adds_to_what_the_app_configured(app):
    configure(app, coalesce={"mine"}, batch_events_max=9)
    topic = streamapp.install(app, source=app.topic("orders", partitions=3), stages=[loud])
    assert topic.get_topic_name() == "orders.enriched"
    assert options_of(app).coalesce == {"mine", "orders"}
    assert options_of(app).batch_events_max == 9


def test_stages_come_by_name_by_function_by_class_and_made(app):
    made = Language({"languages": ["en", "pt"]})
    streamapp.install(app, source="a", stages=["language", loud])
    streamapp.install(
        app, source="b", stages=[Language], options={"language": {"languages": ["en", "pt"]}}
    )
    streamapp.install(app, source="c", stages=[made, loud], enriched="d", dead="e")


@pytest.mark.parametrize(
    ("source", "arguments", "why"),
    [
        ("a", {"stages": ["langauge"]}, "no stage is called 'langauge' .did you mean 'language'"),
        ("a", {"stages": ["language", Language]}, "'language' is named twice"),
        ("a", {"stages": []}, "no stages"),
        ("a", {"stages": [3]}, "3 is no stage"),
        ("a", {"stages": ["language"], "options": {"embed": {}}}, "options for 'embed'"),
        ("a", {"stages": ["language"], "options": {"language": {"x": 1}}}, "no option 'x'"),
        ("a", {"stages": ["embed", "intent"]}, r"stages.intent.labels.*options={'NAME': "),
        ("a", {"stages": [Language({})], "options": {"language": {}}}, "is made already"),
        ("a", {"stages": ["sentiment"]}, "reads 'language', which no stage"),
        (["a", "b"], {"stages": [loud]}, "is not one topic"),
        ("", {"stages": [loud]}, "source '' is no topic"),
        ("a", {"stages": "language"}, "stages='language' is no list"),
        ("a", {"stages": loud}, "is no list"),
        ("a", {"stages": [loud], "enriched": 3}, "enriched=3 is no topic's name"),
        ("a", {"stages": [loud], "dead": ["b"]}, "dead=.'b'. is no topic's name"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(app, source, arguments, why):
    topic = source if isinstance(source, str) else app.topic(*source)
    with pytest.raises(Refuse, match=why):
        streamapp.install(app, source=topic, **arguments)


@pytest.mark.parametrize("source", [3, None, ["orders"], b"orders"])
def test_a_source_that_is_no_topic_is_refused(app, source):
    with pytest.raises(Refuse, match="is no topic") as caught:
        streamapp.install(app, source=source, stages=[loud])
    assert caught.value.code == "install.source"


@pytest.mark.parametrize(
    "arguments",
    [
        {"source": "q", "enriched": "out"},  # another's enriched topic
        {"source": "q", "enriched": "q"},
        {"source": "q", "dead": "q"},
        {"source": "q", "enriched": "x", "dead": "x"},
        {"source": "q", "enriched": "x", "dead": "x.json", "json_twin": True},
        {"source": "q", "enriched": "r"},
        {"source": "q", "dead": "out"},
        {"source": "q", "dead": "out.json"},
        {"source": "out"},
        {"source": "r"},
    ],
)
def test_topics_of_all_installations_are_different(app, arguments):
    streamapp.install(app, source="r", stages=[loud], enriched="out", json_twin=True)
    before = options_of(app).coalesce, len(app.agents)
    with pytest.raises(Refuse, match=r"topic '.+' is the .+ and the .+ of install") as caught:
        streamapp.install(app, stages=[loud], **arguments)
    assert caught.value.code == "install.topics"
    assert (options_of(app).coalesce, len(app.agents)) == before
    streamapp.install(app, source="s", stages=[loud])


@pytest.mark.parametrize(
    ("asked", "set_to", "twin"),
    [
        (None, "true", "a.enriched.json"),
        (None, "false", ""),
        (False, "true", ""),
        (True, "false", "a.enriched.json"),
    ],
)
def test_the_json_twin_follows_the_setting_unless_it_is_said(app, asked, set_to, twin):
    settings, _ = load({"json_twin": set_to}, environ={})
    streamapp.install(app, source="a", stages=[loud], json_twin=asked, settings=settings)
    assert [route.twin for route in _houses[app].routes] == [twin]


@pytest.mark.parametrize(
    ("broker", "url"),
    [
        ("kafka://a:1;b", "kafka+batch://a:1,b:9092"),
        ("kafka+batch://[::1]:7", "kafka+batch://[::1]:7"),
        ("local:///tmp/a%20log", "local:///tmp/a%20log"),
    ],
)
def test_our_clients_read_the_log_that_the_app_names(broker, url):
    assert log_of(faust.App("mine", broker=broker)).url == url


def test_they_log_in_as_the_app_does():
    login = faust.SASLCredentials(username="ana", password="secret", mechanism="SCRAM-SHA-256")
    log = log_of(faust.App("mine", broker="kafka://a", broker_credentials=login))
    assert log.security.client_options() == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": "ana",
        "sasl_plain_password": "secret",
        "ssl_context": None,
    }
    assert "secret" not in repr(log)


@pytest.mark.parametrize("scheme", ["kafka", "kafka+batch", "aiokafka", "memory"])
def test_a_broker_that_names_a_user_is_refused_and_not_repeated(scheme):
    app = faust.App("mine", broker=f"{scheme}://b;ana:s3cret@a")
    with pytest.raises(Refuse, match="names a user") as caught:
        log_of(app)
    assert caught.value.code == "broker.userinfo"
    assert "s3cret" not in str(caught.value)


def test_a_broker_that_is_no_log_is_refused():
    with pytest.raises(Refuse, match="cannot work on broker 'memory:"):
        streamapp.install(faust.App("mine", broker="memory://"), source="a", stages=[loud])


def test_kafka_transactions_are_refused():
    app = faust.App("mine", broker="kafka://a", processing_guarantee="exactly_once")
    with pytest.raises(Refuse, match="does not take part in Kafka transactions"):
        streamapp.install(app, source="a", stages=[loud])


def test_a_source_is_installed_once(app):
    streamapp.install(app, source="orders", stages=[loud])
    with pytest.raises(Refuse, match="topic 'orders' is the source of .+ and the source"):
        streamapp.install(app, source="orders", stages=["language"])
