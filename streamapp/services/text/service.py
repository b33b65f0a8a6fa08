"""``NlpService``: documents that are kept, and asked about.

::

    from streamapp.services import Document, NlpService

    service = NlpService()
    await service.add_document(Document("doc1", "Important Report", "This is a critical document."))
    analysis = await service.analyze_document("doc1")
    print(analysis.sentiment, analysis.keywords)
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from streamapp.plugin import Refuse
from streamapp.services.text.analyzer import Wanted
from streamapp.services.text.columns import CHARS_MAX
from streamapp.services.text.keywords import Keyword
from streamapp.services.text.many import analyze_texts
from streamapp.services.text.measures import Readability
from streamapp.services.text.sets import sets_of, similarities_to

#: More documents belong into a table, and to the operations on tables.
DOCUMENTS_MAX = 100_000


@dataclass(frozen=True)
class Document:
    """A text with a name; what is analyzed is its content."""

    id: str
    title: str
    content: str


@dataclass(frozen=True)
class Sentiment:
    """VADER's numbers; ``label`` is ``negative``, ``neutral`` or ``positive``."""

    label: str
    #: -1 to 1.
    compound: float
    #: Shares of the text, which sum to 1.
    negative: float
    neutral: float
    positive: float


@dataclass(frozen=True)
class Analysis:
    """What a document is like.

    What only makes sense of English is None for a document in another language.
    """

    document_id: str
    words: int
    sentences: int
    characters: int
    syllables: int | None
    readability: Readability | None
    #: ISO 639-1, and its probability; both None without text.
    language: str | None
    language_confidence: float | None
    sentiment: Sentiment | None
    #: Best first.
    keywords: tuple[Keyword, ...]


@dataclass(frozen=True)
class Similar:
    """A document that is like another, and the share of words that they have in common."""

    document_id: str
    similarity: float


class NlpService:
    """Documents in memory, analyzed when they are asked about.

    Args:
        processes: at work at once on many documents; see ``analyze_documents``.
        keywords_max: of one document.
        documents_max: that are kept.
    """

    def __init__(
        self, processes: int = 1, keywords_max: int = 10, documents_max: int = DOCUMENTS_MAX
    ) -> None:
        self._processes, self._documents_max = processes, documents_max
        self._wanted = Wanted(
            sentiment=True, keywords=True, language=True, keywords_max=keywords_max
        )
        self._documents: dict[str, Document] = {}

    async def add_document(self, document: Document) -> None:
        """Keep a document, in place of one with the same id.

        Raises:
            Refuse: it is too long, or there are too many.
        """
        if len(document.content) > CHARS_MAX:
            raise Refuse(
                "text.document",
                f"document {document.id!r} is longer than {CHARS_MAX:,} characters",
                "cut it into parts",
            )
        if document.id not in self._documents and len(self._documents) >= self._documents_max:
            raise Refuse(
                "text.documents",
                f"there are {self._documents_max:,} documents already",
                "remove some, or use text.analyze on a table",
            )
        self._documents[document.id] = document

    async def remove_document(self, document_id: str) -> None:
        """Forget a document.

        Raises:
            Refuse: there is none of that id.
        """
        del self._documents[self.document(document_id).id]

    def document(self, document_id: str) -> Document:
        """The document of that id.

        Raises:
            Refuse: there is none.
        """
        found = self._documents.get(document_id)
        if found is None:
            near = get_close_matches(document_id, self._documents, 1)
            raise Refuse(
                "text.unknown",
                f"no document has the id {document_id!r}",
                f"did you mean {near[0]!r}?" if near else "add it first",
            )
        return found

    async def analyze_document(self, document_id: str) -> Analysis:
        """All about one document.

        Raises:
            Refuse: there is none of that id.
        """
        [analysis] = await self.analyze_documents([document_id])
        return analysis

    async def analyze_documents(self, document_ids: Iterable[str] | None = None) -> list[Analysis]:
        """All about several documents, in their order; without ids, about all.

        Many are spread over ``processes``, which a program may only ask for that begins with
        ``if __name__ == "__main__"``.

        Raises:
            Refuse: there is none of one of these ids.
        """
        ids = list(self._documents) if document_ids is None else list(document_ids)
        chosen = [self.document(document_id) for document_id in ids]
        return await asyncio.to_thread(self._analyzed, chosen)

    async def similar_documents(
        self, document_id: str, count: int = 10, similarity_min: float = 0.0
    ) -> list[Similar]:
        """The documents that share the most words with one (Jaccard), most alike first.

        Raises:
            Refuse: there is none of that id.
        """
        self.document(document_id)
        documents = list(self._documents.values())
        found = await asyncio.to_thread(_compared, documents, document_id)
        likely = (one for one in found if one.similarity >= max(similarity_min, 1e-9))
        return sorted(likely, key=lambda one: -one.similarity)[:count]

    def _analyzed(self, documents: Sequence[Document]) -> list[Analysis]:
        texts = [document.content for document in documents]
        rows = [
            row
            for table in analyze_texts(texts, self._wanted, self._processes)
            for row in table.to_pylist()
        ]
        return [_analysis(one.id, row) for one, row in zip(documents, rows, strict=True)]


def _analysis(document_id: str, row: dict[str, Any]) -> Analysis:
    label, shares, compound = (
        row.pop(name) for name in ("sentiment_label", "sentiment_shares", "sentiment")
    )
    measured, keywords = row.pop("readability"), row.pop("keywords")
    return Analysis(
        document_id,
        readability=measured and Readability(**measured),
        sentiment=shares and Sentiment(label, compound, **shares),
        keywords=tuple(Keyword(**one) for one in keywords or ()),
        **row,
    )


def _compared(documents: Sequence[Document], document_id: str) -> list[Similar]:
    """How alike all others are to one."""
    place = next(n for n, document in enumerate(documents) if document.id == document_id)
    alike = similarities_to(sets_of([document.content for document in documents], 1), place)
    return [
        Similar(document.id, float(similarity))
        for number, (document, similarity) in enumerate(zip(documents, alike, strict=True))
        if number != place
    ]
