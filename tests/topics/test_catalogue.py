"""The shipped catalogue loads; every bad declaration names its file and reason."""

import shutil

import pytest

from streamapp.core.errors import Refuse
from streamapp.topics import catalogue
from streamapp.topics.catalogue import DEAD, ENRICHED, RAW, TWIN


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(catalogue.defaults("topics"), tmp_path / "topics")


def test_the_shipped_topics_load():
    topics = catalogue.load()
    assert {RAW, ENRICHED, DEAD} <= set(topics.topics)
    assert topics[ENRICHED].record_bytes_max > 2 * topics[RAW].record_bytes_max


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"', "missing required field"),
        ('name = "x"\nabout = ""\npartitions = 0\nrecord_bytes_max = 2000', "partitions = 0"),
        ('name = "x"\nabout = ""\npartitions = 1\nrecord_bytes_max = 1', "record_bytes_max = 1"),
        ('name = "x"\nabout = ""\npartitions = "4"\nrecord_bytes_max = 2000', "partitions"),
        ('name = "x"\nabout = ""\npartitions = 1\nrecord_bytes_max = 2000\ncolour = 1', "colour"),
        (
            'name = "events.raw"\nabout = ""\npartitions = 4\nrecord_bytes_max = 2000',
            "declared twice",
        ),
        ("name = ", "zz.toml:1:"),
    ],
)
def test_a_bad_declaration_names_file_and_reason(folder, text, message):
    (folder / "zz.toml").write_text(text)
    with pytest.raises(Refuse) as caught:
        catalogue.load(folder)
    assert message in caught.value.message
    assert "zz.toml" in caught.value.message


def test_a_missing_topic_names_those_there_are(folder):
    (folder / "events.dead.toml").unlink()
    with pytest.raises(Refuse) as caught:
        catalogue.load(folder)
    assert "events.dead" in caught.value.message
    assert "events.raw" in caught.value.fix


def test_raw_and_enriched_have_the_same_partitions(folder):
    path = folder / "events.raw.toml"
    path.write_text(path.read_text().replace("partitions = 4", "partitions = 8"))
    with pytest.raises(Refuse, match="events.enriched has 4 partitions and events.raw has 8"):
        catalogue.load(folder)


def test_an_optional_topic_is_there_when_it_is_wanted(folder):
    assert TWIN not in catalogue.load().topics
    assert catalogue.load(wanted={TWIN})[TWIN].partitions == catalogue.load()[ENRICHED].partitions
    path = folder / f"{TWIN}.toml"
    path.write_text(path.read_text().replace("partitions = 4", "partitions = 8"))
    catalogue.load(folder)
    with pytest.raises(Refuse, match=f"{TWIN} has 8 partitions and events.raw has 4"):
        catalogue.load(folder, {TWIN})
    path.unlink()
    with pytest.raises(Refuse, match=f"no topic is called '{TWIN}'"):
        catalogue.load(folder, {TWIN})[TWIN]


@pytest.mark.parametrize("name", [DEAD, ENRICHED])
def test_a_bad_record_must_fit_where_it_goes(folder, name):
    """Else the first one of full size would stop the worker at every start."""
    path = folder / f"{name}.toml"
    text = path.read_text()
    line = next(line for line in text.splitlines() if line.startswith("record_bytes_max"))
    path.write_text(text.replace(line, "record_bytes_max = 2_097_152"))
    with pytest.raises(Refuse, match=f"{name} takes 2097152 bytes") as caught:
        catalogue.load(folder)
    assert "2113536 or more" in caught.value.fix


@pytest.mark.parametrize(
    ("declared", "code", "message"),
    [
        ('validate = "perhaps"', "topic.declaration", "perhaps"),
        ('validate = "reject"', "topic.validate", "without a schema"),
        (
            'schema = "event.v1.json"\nvalidate = "dead-letter"',
            "topic.validate",
            "no topic for dead letters",
        ),
        (
            'schema = "event.v1.json"\nvalidate = "dead-letter"\ndead_letter = "events.raw"',
            "topic.validate",
            "no topic for dead letters",
        ),
        (
            'schema = "event.v1.json"\nvalidate = "dead-letter"\ndead_letter = "events.dead"',
            "topic.record_bytes_max",
            "events.dead takes 2162688",
        ),
    ],
)
def test_what_is_validated_has_a_schema_and_somewhere_to_go(folder, declared, code, message):
    (folder / "zz.toml").write_text(
        f'name = "zz"\nabout = ""\npartitions = 1\nrecord_bytes_max = 3_000_000\n{declared}\n'
    )
    with pytest.raises(Refuse) as caught:
        catalogue.load(folder)
    assert caught.value.code == code
    assert message in caught.value.message


def test_what_the_gateways_share_is_kept_for_ever():
    for name in ("system.schemas", "system.config"):
        topic = catalogue.load()[name]
        assert topic.compacted
        assert topic.retention_days is topic.retention_bytes is None
        assert topic.partitions == 1
