"""spaCy's pipelines as extractors: labels that they were trained on, such as PERSON and ORG.

What is fetched is the pipeline's wheel, proven like any file; it is unpacked to load it and nothing
in it is run.  A pipeline gives no score, so a found entity has that of its label: how many of those
that the pipeline named so were right in its makers' tests (``ents_per_type`` of its meta.json).
"""

import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from streamapp.core.entity import Entity
from streamapp.core.errors import Refuse
from streamapp.core.model import ModelRef
from streamapp.models.entities.gliner import Found
from streamapp.models.manifest import EntitiesManifest

#: spaCy's memory grows with the text; what follows is cut, and the caller is told.
TEXT_CHARS_MAX = 100_000
#: What a wheel may unpack to.
UNPACKED_BYTES_MAX = 2 << 30
#: Parts of a pipeline that entities do not need.
_NOT_NEEDED = ("parser", "tagger", "attribute_ruler", "lemmatizer", "senter", "morphologizer")


class SpacyExtractor:
    """Texts to entities.  See ``plugin.Extractor``.

    Args:
        ref: who it is.
        manifest: ``model`` is the wheel; ``labels`` those it is allowed, all when empty.
        folder: with the wheel.

    Raises:
        Refuse: spaCy is not installed or of another version, the wheel holds no pipeline with
            entities, or the manifest names a label that it does not know.
    """

    def __init__(self, ref: ModelRef, manifest: EntitiesManifest, folder: Path) -> None:
        self.ref = ref
        self._manifest = manifest
        self._pipeline = _load(folder / manifest.model, manifest)
        known = tuple(self._pipeline.get_pipe("ner").labels)
        self.labels: tuple[str, ...] = tuple(manifest.labels) or known
        _check_labels(self.labels, known, manifest)
        self._scores = _scores(self._pipeline.meta, known)

    def extract(
        self,
        texts: Sequence[str | None],
        labels: Sequence[str],
        *,
        threshold: float | Mapping[str, float] | None = None,
        flat: bool = True,  # noqa: ARG002  # spaCy's never overlap
        multi_label: bool = False,  # noqa: ARG002
    ) -> Found:
        """As ``plugin.Extractor.extract``.

        Raises:
            Refuse: a label that the pipeline was not trained on.
        """
        wanted = self._wanted(labels, threshold)
        given = [(text or "")[:TEXT_CHARS_MAX] for text in texts]
        pipeline, batch = self._pipeline, self._manifest.batch_texts
        found = [
            [
                Entity(e.start_char, e.end_char, e.text, e.label_, self._scores[e.label_])
                for e in document.ents
                if e.label_ in wanted
            ]
            for document in pipeline.pipe(given, batch_size=batch)
        ]
        return found, np.array([len(text or "") > TEXT_CHARS_MAX for text in texts], np.bool_)

    def close(self) -> None:
        """Nothing to free."""

    def _wanted(
        self, labels: Sequence[str], threshold: float | Mapping[str, float] | None
    ) -> frozenset[str]:
        """Labels whose entities count."""
        asked = labels or self.labels
        _check_labels(asked, self.labels, self._manifest)
        each = threshold if isinstance(threshold, Mapping) else {}
        rest = threshold if isinstance(threshold, float | int) else self._manifest.threshold
        return frozenset(one for one in asked if self._scores[one] > each.get(one, rest))


def _scores(meta: Mapping[str, Any], labels: Sequence[str]) -> dict[str, float]:
    """The precision of each label; of all labels where one has none."""
    measured = meta.get("performance") or {}
    each = measured.get("ents_per_type") or {}
    return {
        label: float((each.get(label) or {}).get("p") or measured.get("ents_p") or 1.0)
        for label in labels
    }


def _check_labels(labels: Sequence[str], known: Sequence[str], manifest: EntitiesManifest) -> None:
    for label in labels:
        if label not in known:
            raise Refuse(
                "entities.labels",
                f"{manifest.full_name} knows no label {label!r}",
                f"it knows {', '.join(known)}; GLiNER models look for any label",
            )


def _load(wheel: Path, manifest: EntitiesManifest) -> Any:
    try:
        import spacy
    except ImportError:
        raise Refuse(
            "models.requires",
            f"{manifest.full_name} needs spaCy, which is not installed",
            "pip install 'streamapp[ner]'",
        ) from None
    with _unpacked(wheel) as folder:
        try:
            pipeline = spacy.load(folder, exclude=list(_NOT_NEEDED))
        except Exception as error:
            raise Refuse(
                "models.spacy",
                f"{wheel}: spaCy {spacy.__version__} cannot load it: {error}",
                "give a pipeline of the installed spaCy's version",
            ) from error
    if "ner" not in pipeline.pipe_names:
        raise Refuse(
            "models.spacy",
            f"{wheel}: the pipeline has {', '.join(pipeline.pipe_names)}, and no ner",
            "give one that names entities",
        )
    return pipeline


@contextmanager
def _unpacked(wheel: Path) -> Iterator[Path]:
    """The folder in a wheel that holds its pipeline, until it is loaded."""
    try:
        with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as scratch:
            configs = [name for name in archive.namelist() if name.endswith("/config.cfg")]
            size = sum(member.file_size for member in archive.infolist())
            if len(configs) != 1 or size > UNPACKED_BYTES_MAX:
                raise Refuse(
                    "models.spacy",
                    f"{wheel} has {len(configs)} pipelines in {size} bytes",
                    f"give a wheel with one, of at most {UNPACKED_BYTES_MAX} bytes",
                )
            archive.extractall(scratch)  # never outside of scratch: it drops `..` and roots
            yield (Path(scratch) / configs[0]).parent
    except (OSError, zipfile.BadZipFile) as error:
        raise Refuse("models.spacy", f"{wheel}: {error}", "pull it again") from None
