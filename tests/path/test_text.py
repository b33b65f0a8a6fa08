"""The stage ``text`` in a project: its columns from the log to SQL, equal to the operation's."""

import shutil

import pytest
from machine import Machine

from streamapp.services import call
from streamapp.topics import catalogue

pytestmark = [pytest.mark.models, pytest.mark.timeout(400)]
TEXTS = {
    "e0": "The old red wine was remarkably good. I love this bottle!",
    "e1": "Das ist ein sehr schönes Dokument über das Wetter in Hamburg.",
    "e2": "A remarkable 😀 picture; the critics admired every scene of the film.",
}
SQL = (
    "SELECT id, words, sentences, characters, syllables, readability.smog AS smog,"
    " keywords[1].text AS best, keywords[1].score AS score, language FROM events ORDER BY id"
)


def test_columns_of_the_stage_come_back_by_sql(tmp_path):
    topics = tmp_path / "topics"
    shutil.copytree(catalogue.defaults("topics"), topics)
    (topics / "workflow.toml").write_text('[workflow]\nstages = ["language", "embed", "text"]\n')
    machine = Machine(tmp_path / "home", topics_dir=topics).start()
    try:
        for name, text in TEXTS.items():
            machine.post_until_taken({"id": name, "message": text})
        machine.wait_rows(len(TEXTS))
        found = machine.rows(SQL)
    finally:
        machine.stop()
    documents = [{"text": text} for text in TEXTS.values()]
    config = {"extract_keywords": True, "keywords_max": 5}
    for row, said in zip(found, call("text.analyze", documents, **config).to_pylist(), strict=True):
        id_, words, sentences, characters, *of_english, language = row.values()
        assert [words, sentences, characters] == [
            said["words"], said["sentences"], said["characters"]
        ], id_  # fmt: skip
        best = said["keywords"][0]
        expected = [said["syllables"], said["readability"]["smog"], best["text"], best["score"]]
        assert of_english == (expected if language == "en" else [None] * 4)
    assert [row["language"] for row in found] == ["en", "de", "en"]
