"""NlpService, and many texts in processes."""

import subprocess
import sys

import pytest

from streamapp.core.errors import Refuse
from streamapp.services import Document, NlpService
from streamapp.services.text import service as module
from streamapp.services.text.many import CHUNK, analyze_texts

REPORT = Document(
    "doc1", "Important Report", "This is a critical document with high priority content."
)


@pytest.fixture
async def service():
    service = NlpService()
    await service.add_document(REPORT)
    return service


async def test_a_document_is_analyzed(service):
    analysis = await service.analyze_document("doc1")
    assert analysis.document_id == "doc1"
    assert (analysis.words, analysis.sentences, analysis.language) == (9, 1, "en")
    assert analysis.sentiment.label == "negative"  # "critical" is a bad word of the lexicon
    assert [one.text for one in analysis.keywords] == ["high priority content", "critical document"]
    assert analysis.readability.flesch == pytest.approx(37.9, abs=0.05)


async def test_documents_are_analyzed_in_order_and_a_new_one_takes_the_old_one_s_place(service):
    await service.add_document(Document("doc0", "", ""))
    await service.add_document(Document("doc1", "", "Good news!"))
    found = await service.analyze_documents()
    assert [(one.document_id, one.words) for one in found] == [("doc1", 2), ("doc0", 0)]
    assert found[1].readability is None
    assert found[1].keywords == ()


async def test_documents_that_are_alike(service):
    await service.add_document(Document("twin", "", REPORT.content.upper()))
    await service.add_document(Document("other", "", "Another document."))
    await service.add_document(Document("none", "", "Bread?"))
    found = await service.similar_documents("doc1")
    assert [(one.document_id, round(one.similarity, 3)) for one in found] == [
        ("twin", 1.0), ("other", 0.1)
    ]  # fmt: skip
    assert len(await service.similar_documents("doc1", similarity_min=0.5)) == 1


async def test_one_that_is_not_there_is_named(service):
    for ask in (service.analyze_document, service.remove_document, service.similar_documents):
        with pytest.raises(Refuse, match=r"no document has the id 'doc' .did you mean 'doc1'"):
            await ask("doc")
    await service.remove_document("doc1")
    with pytest.raises(Refuse, match="add it first"):
        await service.analyze_document("doc1")


async def test_there_are_limits(monkeypatch):
    service = NlpService(documents_max=1)
    await service.add_document(REPORT)
    await service.add_document(REPORT)
    with pytest.raises(Refuse, match="there are 1 documents already"):
        await service.add_document(Document("doc2", "", ""))
    monkeypatch.setattr(module, "CHARS_MAX", 3)
    with pytest.raises(Refuse, match="document 'doc1' is longer than 3 characters"):
        await service.add_document(REPORT)


PROGRAM = f"""
from streamapp.services.text.analyzer import Wanted
from streamapp.services.text.many import analyze_texts

if __name__ == "__main__":
    texts = [f"word {{n}} " * (n % 7) for n in range({3 * CHUNK + 5})]
    parts = list(analyze_texts(texts, Wanted(), processes=2))
    assert [part.num_rows for part in parts] == [{CHUNK}, {CHUNK}, {CHUNK}, 5]
    alone = list(analyze_texts(texts, Wanted()))
    assert all(one.equals(other) for one, other in zip(parts, alone, strict=True))
    print("equal")
"""


def test_processes_give_the_same_in_the_same_order(tmp_path):
    """In a program of its own, as processes import the main module again."""
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")], capture_output=True, text=True, check=False
    )
    assert done.stdout == "equal\n", done.stderr


def test_a_program_that_cannot_be_imported_anew_is_told_what_to_do(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM.replace('if __name__ == "__main__":', "if True:"))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")], capture_output=True, text=True, check=False
    )
    assert "Refuse: a process ended before it was done" in done.stderr


def test_no_texts_are_no_tables():
    from streamapp.services.text.analyzer import Wanted

    assert list(analyze_texts([], Wanted())) == []
