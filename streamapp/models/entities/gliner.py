"""GLiNER in ONNX: entities of any labels, named when it is called (arXiv:2311.08526).

Two exports are understood, both with a logit for each label: ``span`` scores every span of up to
``width_max`` words (inputs ``span_idx`` and ``span_mask``; logits of texts, words, widths, labels),
``token`` scores for every word whether an entity begins, ends, or goes on there (logits of texts,
words, labels, 3).  The tests hold both to the predictions of the reference package.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from streamapp.core.entity import Entity
from streamapp.core.errors import Refuse
from streamapp.models.entities import decode
from streamapp.models.entities.config import check_config
from streamapp.models.entities.words import Integers, Prompt, Window, Words, split, windows
from streamapp.models.manifest import EntitiesManifest
from streamapp.models.session import Session, unfit

#: What an export of each mode is fed with.
INPUTS = {
    "token": ("input_ids", "attention_mask", "words_mask", "text_lengths"),
    "span": (
        "input_ids", "attention_mask", "words_mask", "text_lengths", "span_idx", "span_mask",
    ),
}  # fmt: skip
OUTPUT = "logits"
#: Words of one text that are read; what follows is cut, and the caller is told.
TEXT_WORDS_MAX = 16_384
#: A text is cut to this many characters before it is split.
TEXT_CHARS_MAX = 1 << 20
_PROMPTS_MAX = 64

Found = tuple[list[list[Entity]], npt.NDArray[np.bool_]]


class GlinerExtractor:
    """Texts to entities.  See ``plugin.Extractor``.

    Args:
        session: the opened graph.
        manifest: how it wants to be called.
        folder: with the files that the manifest names.

    Raises:
        Refuse: the graph is no such export, or a file beside it does not fit.
    """

    labels: tuple[str, ...] = ()

    def __init__(self, session: Session, manifest: EntitiesManifest, folder: Path) -> None:
        self.ref = session.ref
        self.threshold = manifest.threshold
        self._session = session
        self._manifest = manifest
        self._tokenizer = _open_tokenizer(folder / manifest.tokenizer, manifest)
        _check_signature(session, manifest)
        check_config(folder, manifest)
        self._prompt = lru_cache(_PROMPTS_MAX)(self._new_prompt)

    def extract(
        self,
        texts: Sequence[str | None],
        labels: Sequence[str],
        *,
        threshold: float | Mapping[str, float] | None = None,
        flat: bool = True,
        multi_label: bool = False,
    ) -> Found:
        """The entities of each text by place, and whether it was too long to be read whole, (n,).

        Args:
            texts: None and what has no words has no entities.
            labels: what to look for.
            threshold: a span counts when its score is above it; the manifest's by default, and
                where labels have their own, for those that have none.
            flat: no two entities share a word; else one may lie inside another.
            multi_label: the same words may have several labels.

        Raises:
            Refuse: no labels, or one that the model cannot read.
        """
        prompt = self._prompt(tuple(labels))
        thresholds = self._thresholds(prompt.labels, threshold)
        words = split(self._tokenizer, [(t or "")[:TEXT_CHARS_MAX] for t in texts], TEXT_WORDS_MAX)
        candidates: list[list[decode.Span]] = [[] for _ in texts]
        for window, logits in self._run(words, prompt):
            candidates[window.text] += self._spans(logits, window, thresholds)
        found = [
            _entities(text or "", one, prompt.labels, spans, flat=flat, multi_label=multi_label)
            for text, one, spans in zip(texts, words, candidates, strict=True)
        ]
        cut = [w.cut or len(t or "") > TEXT_CHARS_MAX for w, t in zip(words, texts, strict=True)]
        return found, np.array(cut, np.bool_)

    def close(self) -> None:
        """The session is the registry's."""

    def measure_invariance(self, texts: Sequence[str], labels: Sequence[str]) -> float:
        """The largest difference of a logit between a text alone and with all the others."""
        prompt = self._prompt(tuple(labels))
        words = split(self._tokenizer, texts, self._manifest.words_max)
        cuts = [
            one for place, w in enumerate(words) if w for one in self._windows(place, w, prompt)
        ]
        worst = 0.0
        for window, together in zip(cuts, self._logits(words, cuts, prompt), strict=True):
            [alone] = self._logits(words, [window], prompt)
            size = window.next - window.first
            inside = _inside(size, alone.shape[1]) if self._manifest.mode == "span" else ...
            apart = np.abs(alone[:size] - together[:size])[inside]
            worst = max(worst, float(apart.max(initial=0.0)))
        return worst

    def _new_prompt(self, labels: tuple[str, ...]) -> Prompt:
        manifest = self._manifest
        prompt = Prompt(self._tokenizer, labels, manifest.entity_mark, manifest.separator_mark)
        if prompt.tokens > manifest.tokens_max // 2:
            raise Refuse(
                "entities.labels",
                f"{len(prompt.labels)} labels take {prompt.tokens} of the {manifest.tokens_max} "
                f"tokens that {manifest.full_name} reads at once",
                "name fewer or shorter labels, or different ones for each event type",
            )
        return prompt

    def _thresholds(
        self, labels: Sequence[str], given: float | Mapping[str, float] | None
    ) -> decode.Floats:
        if isinstance(given, Mapping):
            each = [given.get(label, self.threshold) for label in labels]
        else:
            each = [self.threshold if given is None else given] * len(labels)
        return np.array(each, np.float32)

    def _windows(self, text: int, words: Words, prompt: Prompt) -> list[Window]:
        room = self._manifest.tokens_max - prompt.tokens
        return windows(text, words, self._manifest.words_max, room)

    def _run(self, words: Sequence[Words], prompt: Prompt) -> Iterator[tuple[Window, Any]]:
        """Each window of each text with its logits, in any order."""
        cuts = [
            one for place, w in enumerate(words) if w for one in self._windows(place, w, prompt)
        ]
        for batch in self._batches(cuts, prompt):
            yield from zip(batch, self._logits(words, batch, prompt), strict=True)

    def _batches(self, cuts: Iterable[Window], prompt: Prompt) -> Iterator[list[Window]]:
        """Windows of about one length; of exactly one where the neighbours' padding counts."""
        batch: list[Window] = []
        for window in sorted(cuts, key=_size):
            tokens = (len(batch) + 1) * (window.tokens + prompt.tokens)
            full = len(batch) == self._manifest.batch_texts
            full = full or tokens > self._manifest.batch_tokens_max
            apart = (
                not self._manifest.batch_invariant and batch and _size(batch[0]) != _size(window)
            )
            if batch and (full or apart):
                yield batch
                batch = []
            batch.append(window)
        if batch:
            yield batch

    def _logits(self, words: Sequence[Words], batch: Sequence[Window], prompt: Prompt) -> Any:
        """One call: logits with one row for each window."""
        feeds = self._feeds(words, batch, prompt)
        logits = self._session.run(feeds, [OUTPUT])[OUTPUT]
        longest = max(one.next - one.first for one in batch)
        span = self._manifest.mode == "span"
        rest = (self._manifest.width_max, len(prompt.labels)) if span else (len(prompt.labels), 3)
        fits = logits.ndim == 4 and logits.shape[1] >= longest and logits.shape[2:] == rest
        if not fits or len(logits) != len(batch):
            raise unfit(
                self._session,
                f"logits {logits.shape}, expected {(len(batch), longest, *rest)}",
                "correct mode and width_max in the manifest",
            )
        return logits

    def _feeds(
        self, words: Sequence[Words], batch: Sequence[Window], prompt: Prompt
    ) -> dict[str, Any]:
        rows = [_row(words[one.text], one, prompt, self._manifest) for one in batch]
        sizes = np.array([one.next - one.first for one in batch], np.int64)
        shape = len(batch), max(len(ids) for ids, _ in rows)
        feeds: dict[str, Any] = {
            "input_ids": np.full(shape, _pad(self._tokenizer), np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "words_mask": np.zeros(shape, np.int64),
            "text_lengths": sizes[:, None],
        }
        for place, (ids, mask) in enumerate(rows):
            feeds["input_ids"][place, : len(ids)] = ids
            feeds["attention_mask"][place, : len(ids)] = 1
            feeds["words_mask"][place, : len(ids)] = mask
        if self._manifest.mode == "span":
            feeds |= _span_feeds(sizes, self._manifest.width_max)
        return feeds

    def _spans(
        self, logits: decode.Floats, window: Window, thresholds: decode.Floats
    ) -> list[decode.Span]:
        """What a window answers for, in words of its text."""
        size = window.next - window.first
        if self._manifest.mode == "span":
            spans = decode.of_spans(logits, size, thresholds)
        else:
            spans = decode.of_tokens(logits, size, thresholds)
        own = range(window.own_first - window.first, window.own_next - window.first)
        return [
            span._replace(first=span.first + window.first, last=span.last + window.first)
            for span in spans
            if span.first in own
        ]


def _entities(
    text: str,
    words: Words,
    labels: Sequence[str],
    spans: list[decode.Span],
    *,
    flat: bool,
    multi_label: bool,
) -> list[Entity]:
    chosen = decode.choose(spans, len(words), flat=flat, multi_label=multi_label)
    places = ((words.starts[span.first], words.ends[span.last], span) for span in chosen)
    return [
        Entity(start, end, text[start:end], labels[span.label], span.score)
        for start, end, span in places
    ]


def _size(window: Window) -> tuple[int, int]:
    return window.tokens, window.next - window.first


def _row(
    words: Words, window: Window, prompt: Prompt, manifest: EntitiesManifest
) -> tuple[list[int], Integers]:
    """A window's tokens, and for each the number of the word that it stands for, from 1, or 0."""
    bounds = words.first_token[window.first : window.next + 1]
    ids = words.ids[bounds[0] : bounds[0] + window.tokens]
    first, next_ = bounds[:-1] - bounds[0], bounds[1:] - bounds[0]
    numbers = np.arange(1, len(first) + 1)
    mask = np.zeros(len(ids), np.int64)
    if manifest.pooling == "first":
        mask[first] = numbers
    elif manifest.pooling == "last":
        mask[np.minimum(next_, len(ids)) - 1] = numbers
    else:
        mask[:] = np.repeat(numbers, next_ - first)[: len(ids)]
    whole = np.zeros(len(prompt.ids) + len(ids) + len(prompt.end), np.int64)
    whole[len(prompt.ids) : len(prompt.ids) + len(ids)] = mask
    return [*prompt.ids, *ids, *prompt.end], whole


def _span_feeds(sizes: Integers, width_max: int) -> dict[str, Any]:
    """Every span of up to ``width_max`` words that begins at a word, those past the end masked."""
    longest = int(sizes.max())
    first = np.repeat(np.arange(longest), width_max)
    last = first + np.tile(np.arange(width_max), longest)
    mask = last[None] < sizes[:, None]
    places = np.stack([first, last], axis=1)[None] * mask[..., None]
    return {"span_idx": places, "span_mask": mask}


def _inside(words: int, widths: int) -> Any:
    """Which spans of (words, widths) end within the text."""
    return np.arange(words)[:, None] + np.arange(widths)[None] < words


def _pad(tokenizer: Tokenizer) -> int:
    ids = (tokenizer.token_to_id(name) for name in ("[PAD]", "<pad>"))
    return next((place for place in ids if place is not None), 0)


def _open_tokenizer(path: Path, manifest: EntitiesManifest) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001  # the library raises nothing narrower
        raise Refuse(
            "models.tokenizer", f"{path}: {error}", "give the model's own tokenizer.json"
        ) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for mark in (manifest.entity_mark, manifest.separator_mark):
        if len(tokenizer.encode([mark], is_pretokenized=True, add_special_tokens=False).ids) != 1:
            raise Refuse(
                "models.tokenizer",
                f"{path}: {mark!r}, which parts the labels, is not one token",
                "give the tokenizer.json of the GLiNER model itself, or correct entity_mark and "
                "separator_mark in the manifest",
            )
    return tokenizer


def _check_signature(session: Session, manifest: EntitiesManifest) -> None:
    there = {tensor.name for tensor in session.inputs}
    wanted = set(INPUTS[manifest.mode])
    outputs = [tensor.name for tensor in session.outputs]
    if there != wanted:
        why = f"its inputs are {', '.join(sorted(there))}, not {', '.join(sorted(wanted))}"
    elif OUTPUT not in outputs:
        why = f"its outputs are {', '.join(outputs)}, without {OUTPUT}"
    else:
        return
    raise Refuse(
        "models.signature",
        f"{manifest.full_name} is no GLiNER export of mode {manifest.mode!r}: {why}",
        "give a uni-encoder GLiNER exported by its own export_to_onnx, and its mode (span, token)",
    )
