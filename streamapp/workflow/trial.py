"""What a workflow's intents are worth: its answers to labelled texts beside the labels."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from msgspec import structs

from streamapp.core.batch import Batch
from streamapp.core.errors import Refuse
from streamapp.core.ranges import OffsetRange
from streamapp.models.heads.calibration import UNKNOWN as NO_LABEL
from streamapp.models.heads.calibration import threshold_of
from streamapp.models.heads.logistic import Places
from streamapp.plugin import Models, Stage, StatefulStage
from streamapp.workflow.blame import blamed
from streamapp.workflow.order import order
from streamapp.workflow.spec import Workflow, make_stages
from streamapp.workflow.state import PartitionState
from streamapp.workflow.texts import EmbedTexts, text_embedder

#: The stages that it takes to answer.
STAGES = ("embed", "intent")
UNKNOWN = "unknown"
_ROWS = 512
_TENTHS = 10


class Answer(NamedTuple):
    """``intent`` is None where the stage has nothing to go by."""

    intent: str | None
    confidence: float


class LabelScore(NamedTuple):
    """``precision`` and ``recall`` are NaN where nothing was answered so, or has that label."""

    label: str
    examples: int
    precision: float
    recall: float


class Threshold(NamedTuple):
    """``confidence_min`` for ``[stages.intent]``; shares of other examples that it is worth."""

    confidence_min: float
    coverage: float
    precision: float


class Mistake(NamedTuple):
    """How often ``intent`` was answered where ``label`` is right."""

    label: str
    intent: str
    times: int


class Score(NamedTuple):
    """Shares, 0 to 1.

    ``coverage``: of the examples that have a label, how many get an answer; ``precision``: of the
    answers, how many are right; ``accuracy``: of the examples that have a label, how many get the
    right answer; ``refused``: of the examples without a label, how many get none (NaN: there are
    none); ``error``: between confidence and truth of the answers, in ten bins (ECE).
    """

    examples: int
    accuracy: float
    coverage: float
    precision: float
    refused: float
    error: float
    labels: list[LabelScore]
    mistakes: list[Mistake]


def embedding(workflow: Workflow, models: Models, model: str | None = None) -> EmbedTexts:
    """What embeds texts as the workflow's stage ``embed`` does; its defaults where it runs none.

    Args:
        workflow: its other stages do not run.
        models: the registry.
        model: in place of the one that the workflow names.

    Raises:
        Refuse: the stage refuses its options, or the model is unknown.
    """
    options = dict(workflow.options.get("embed", {})) | ({"model": model} if model else {})
    alone = Workflow(path=workflow.path, stages=("embed",), options={"embed": options})
    stages = make_stages(alone)
    for stage in stages:
        with blamed(stage.name, "declare"):
            stage.declare(models)
    found = text_embedder(stages, models)
    assert found is not None  # noqa: S101  # the stage writes ``embedding`` from the text alone
    return found


def answers(
    workflow: Workflow,
    models: Models,
    texts: Sequence[str],
    done: Callable[[int], None] = lambda _rows: None,
) -> list[Answer]:
    """What the workflow's stages ``embed`` and ``intent`` say of texts.

    Args:
        workflow: its other stages do not run.
        models: the registry.
        texts: any number.
        done: told of each part's rows.

    Raises:
        Refuse: the workflow has no such stages, or they cannot be opened.
    """
    if missing := [name for name in STAGES if name not in workflow.stages]:
        raise Refuse(
            "intents.workflow",
            f"{workflow.path} runs no stage {missing[0]!r}",
            "add it to [workflow] stages, or name a head with --head",
        )
    options = {name: workflow.options.get(name, {}) for name in STAGES}
    made = make_stages(Workflow(path=workflow.path, stages=STAGES, options=options))
    for stage in made:
        with blamed(stage.name, "declare"):
            stage.declare(models)
    stages = order(made)
    try:
        for stage in stages:
            with blamed(stage.name, "open"):
                stage.open(models)
        return list(_answers(stages, texts, done))
    finally:
        for stage in stages:
            stage.close()


def _answers(
    stages: Sequence[Stage], texts: Sequence[str], done: Callable[[int], None]
) -> Iterator[Answer]:
    state = PartitionState(cap=1)
    for first in range(0, len(texts), _ROWS):
        part = texts[first : first + _ROWS]
        batch, overlay = _batch(part, first), state.overlay()
        for stage in stages:
            if isinstance(stage, StatefulStage):
                columns = stage.enrich(batch, overlay.view(stage.name))
            else:
                columns = stage.enrich(batch)
            batch = batch.with_columns(columns)
        overlay.commit()
        intents = batch.strings("intent")
        sure = batch.rows.column("intent_confidence").fill_null(0).to_pylist()
        yield from map(Answer, intents, sure)
        done(len(part))


def _batch(texts: Sequence[str], first: int) -> Batch:
    """Events that are nothing but their texts, each a conversation of its own."""
    offsets = range(first, first + len(texts))
    ids = [str(offset) for offset in offsets]
    columns = {"text": texts, "id": ids, "conversation": ids}
    arrays = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    arrays["source_offset"] = pa.array(offsets, pa.int64())
    return Batch(pa.RecordBatch.from_pydict(arrays), OffsetRange("", 0, first, first + len(texts)))


def without_thresholds(workflow: Workflow) -> Workflow:
    """The same workflow, whose stage ``intent`` is always sure: what ``calibrated`` wants."""
    intent = dict(workflow.options.get("intent", {})) | {"margin_min": 0.0, "confidence_min": 0.0}
    return structs.replace(workflow, options={**workflow.options, "intent": intent})


def calibrated(
    given: Sequence[Answer],
    labels: Sequence[str | None],
    precision: float,
    groups: Places | None = None,
) -> Threshold | None:
    """The lowest confidence at and above which so many answers are right.

    It is found on all answers; what it is worth, on each half by the threshold of the other.

    Args:
        given: answers of a workflow without thresholds.
        labels: the right ones, None for a text that has none.
        precision: the share that shall be right.
        groups: a number for each answer, (n,): those of one number are to repeats of one text,
            which are in one half; default: each is to another.

    Returns:
        None where no threshold does that.
    """
    sure = np.array([one.confidence for one in given], np.float32)
    right = np.array([one.intent == label for one, label in zip(given, labels, strict=True)])
    every = np.arange(len(sure))
    halves = (every if groups is None else groups) % 2
    found = _least(sure, right, every, precision)
    answered = np.zeros(len(sure), bool)
    for half in (0, 1):
        least = _least(sure, right, every[halves != half], precision)
        if found is None or least is None:
            return None
        rows = every[halves == half]
        answered[rows] = sure[rows] >= np.float32(least)
    labelled = np.array([label is not None for label in labels])
    return Threshold(
        float(found or 0),
        _share(answered[labelled].tolist()),
        _share(right[answered].tolist()),
    )


def _least(sure: Any, right: Any, rows: Any, precision: float) -> float | None:
    return threshold_of(sure[rows, None], np.where(right[rows], 0, NO_LABEL), precision)


def score(given: Sequence[Answer], labels: Sequence[str | None]) -> Score:
    """Answers beside the right labels; None is the label of a text that has none."""
    intents = [UNKNOWN if one.intent is None else one.intent for one in given]
    pairs = list(zip(intents, labels, strict=True))
    labelled = [(intent, label) for intent, label in pairs if label is not None]
    answered = [intent != UNKNOWN for intent in intents]
    right = [intent == label for intent, label in pairs]
    return Score(
        examples=len(pairs),
        accuracy=_share([intent == label for intent, label in labelled]),
        coverage=_share([intent != UNKNOWN for intent, _ in labelled]),
        precision=_share([good for good, said in zip(right, answered, strict=True) if said]),
        refused=_share([intent == UNKNOWN for intent, label in pairs if label is None]),
        error=_distance([one.confidence for one in given], right, answered),
        labels=_by_label(pairs),
        mistakes=_mistakes(pairs),
    )


def _by_label(pairs: Sequence[tuple[str, str | None]]) -> list[LabelScore]:
    """Worst recall first."""
    said, have = Counter(intent for intent, _ in pairs), Counter(label for _, label in pairs)
    right = Counter(intent for intent, label in pairs if intent == label)
    names = {name for name in [*said, *have] if name is not None and name != UNKNOWN}
    found = [
        LabelScore(
            name, have[name], _ratio(right[name], said[name]), _ratio(right[name], have[name])
        )
        for name in names
    ]
    return sorted(found, key=lambda one: (np.nan_to_num(one.recall, nan=2.0), one.label))


def _mistakes(pairs: Sequence[tuple[str, str | None]]) -> list[Mistake]:
    """Most frequent first."""
    wrong = Counter(
        (label or UNKNOWN, intent) for intent, label in pairs if intent not in (UNKNOWN, label)
    )
    return [Mistake(*pair, times) for pair, times in sorted(wrong.items(), key=_often)]


def _often(item: tuple[Any, int]) -> tuple[int, Any]:
    return -item[1], item[0]


def _distance(sure: Sequence[float], right: Sequence[bool], answered: Sequence[bool]) -> float:
    rows = np.array(answered, bool)
    if not rows.any():
        return float("nan")
    shown = np.array(sure, float)[rows]
    tenth = np.minimum((shown * _TENTHS).astype(int), _TENTHS - 1)
    gaps = np.bincount(tenth, shown - np.array(right, float)[rows], minlength=_TENTHS)
    return float(np.abs(gaps).sum() / len(shown))


def _share(of: Sequence[bool]) -> float:
    return _ratio(sum(of), len(of))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
