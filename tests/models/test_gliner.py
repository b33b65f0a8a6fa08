"""GLiNER in ONNX: equal to the reference on every golden vector, and right where that is not."""

import json
import re
import shutil
from collections import defaultdict

import numpy as np
import pytest
from gliners import FOLDER, WordSession, extractor, golden, manifest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bge_m3 import write_tokenizer
from tokenizers import Tokenizer

from streamapp.core.errors import Halt, Refuse
from streamapp.models.entities import decode, gliner
from streamapp.models.entities.words import OVERLAP_WORDS, Prompt, Words, split, windows

MODES = ("span", "token")
LABELS = ["person", "organization", "location"]
TEXT = "Maria Curie won the Nobel Prize in Physics in 1903; she worked in Paris with Pierre."


@pytest.fixture(scope="module", params=MODES)
def mode(request):
    return request.param


@pytest.fixture(scope="module")
def tiny(mode):
    return extractor(mode)


def told(entities):
    return [(e.start, e.end, e.text, e.label, pytest.approx(e.score, abs=2e-6)) for e in entities]


def expected(case):
    return [(e["start"], e["end"], e["text"], e["label"], e["score"]) for e in case["entities"]]


def test_every_golden_vector_text_by_text(mode, tiny):
    cases = golden(mode)
    assert len(cases) == 160
    for case in cases:
        [found], [cut] = tiny.extract(
            [case["text"]],
            case["labels"],
            threshold=case["threshold"],
            flat=case["flat_ner"],
            multi_label=case["multi_label"],
        )
        assert expected(case) == told(found)
        assert not cut


def test_every_golden_vector_among_others(mode, tiny):
    asked = defaultdict(list)
    for case in golden(mode):
        how = (case["threshold"], case["flat_ner"], case["multi_label"])
        asked[tuple(case["labels"]), how].append(case)
    assert max(map(len, asked.values())) > 3
    for (labels, (threshold, flat, multi_label)), cases in asked.items():
        found, _ = tiny.extract(
            [case["text"] for case in cases],
            labels,
            threshold=threshold,
            flat=flat,
            multi_label=multi_label,
        )
        assert [expected(case) for case in cases] == [told(one) for one in found]


def test_a_text_does_not_depend_on_its_neighbours(mode, tiny):
    texts = sorted({case["text"] for case in golden(mode)})
    assert tiny.measure_invariance(texts, LABELS) < 1e-6


def test_where_neighbours_count_only_equal_shapes_share_a_call(mode):
    session = WordSession(mode)
    texts = ["a b c", "d e f", "a b", "c d e", "f a"]
    extractor(mode, session, batch_invariant=False).extract(texts, LABELS)
    assert sorted(lengths for _, _, lengths in session.shapes) == [[2, 2], [3, 3, 3]]


def test_calls_are_bounded_in_texts_and_tokens(mode):
    session = WordSession(mode)
    one = extractor(mode, session, batch_texts=4, batch_tokens_max=64)
    one.extract(["a b c d e f"] * 9 + ["a " * 40], LABELS)
    assert sum(rows for rows, _, _ in session.shapes) == 10
    for rows, tokens, _ in session.shapes:
        assert rows == 1 or (rows <= 4 and rows * tokens <= 64)


def test_texts_without_words(tiny):
    found, cut = tiny.extract([None, "", " \n\t", "\u200b\u200b"], LABELS, threshold=0.1)
    assert found == [[], [], [], []]
    assert not cut.any()


def test_a_word_without_tokens_moves_nothing(tiny):
    """The reference counts such a word on one side only, and is off by one behind it."""
    [plain], _ = tiny.extract(["Marie met Pierre"], LABELS, threshold=0.3)
    [found], _ = tiny.extract(["Marie \u200b\u200b met \u200b Pierre"], LABELS, threshold=0.3)
    assert plain
    assert [e.text.replace("\u200b", "").split() for e in found] == [e.text.split() for e in plain]
    assert [e.score for e in found] == [e.score for e in plain]


def test_places_are_characters_whatever_they_weigh(tiny):
    text = "😀 \U0001d49cngela 東京 é e\u0301 👩‍👩‍👧 fin"
    [found], _ = tiny.extract([text], LABELS, threshold=0.2, flat=False, multi_label=True)
    assert len(found) > 5
    assert all(text[e.start : e.end] == e.text for e in found)


def test_labels_may_have_thresholds_of_their_own(tiny):
    [every], _ = tiny.extract([TEXT], LABELS, threshold=0.2, flat=False, multi_label=True)
    assert {e.label for e in every} == set(LABELS)
    [some], _ = tiny.extract(
        [TEXT], LABELS, threshold=dict.fromkeys(LABELS[1:], 0.999), flat=False, multi_label=True
    )
    assert {e.label for e in some} <= {LABELS[0]}


def test_labels_that_are_said_twice_are_one(tiny):
    once, _ = tiny.extract([TEXT], LABELS, threshold=0.3)
    assert tiny.extract([TEXT], [*LABELS, *LABELS], threshold=0.3)[0] == once


@pytest.mark.parametrize(
    "labels",
    [[], ["<<ENT>>"], ["a<<SEP>>b"], ["\u200b"], [f"label number {n}" for n in range(200)]],
)
def test_labels_that_cannot_be_read_are_refused(tiny, labels):
    with pytest.raises(Refuse, match="label") as refused:
        tiny.extract([TEXT], labels)
    assert refused.value.code == "entities.labels"


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_prompt_and_words_are_tokenised_apart_as_they_are_together(tmp_path, kind):
    """The reference encodes both as one list of words; here a prompt is made once."""
    if kind == "unigram":
        write_tokenizer(tmp_path / "tokenizer.json")
        tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        tokenizer.add_special_tokens(["<<ENT>>", "<<SEP>>"])
    else:
        tokenizer = Tokenizer.from_file(str(FOLDER / "span" / "tokenizer.json"))
    text = "where is my-parcel, São Paulo? 東京 \u200b it was sent e\u0301"
    words = re.findall(r"\w+(?:[-_]\w+)*|\S", text)
    prompt = [part for label in LABELS for part in ("<<ENT>>", label)]
    joint = tokenizer.encode([*prompt, "<<SEP>>", *words], is_pretokenized=True)
    made = Prompt(tokenizer, LABELS, "<<ENT>>", "<<SEP>>")
    [split_] = split(tokenizer, [text], 100)
    assert [*made.ids, *split_.ids, *made.end] == joint.ids


# Long texts


def test_long_texts_are_read_in_windows_as_if_they_were_whole(mode):
    text = " ".join(chr(97 + (n * n * 7 + n // 3) % 26) for n in range(300))
    in_one, in_many = WordSession(mode, width=6), WordSession(mode, width=6)
    options = {"width_max": 6, "config": ""}
    asked = {"threshold": 0.55, "flat": False, "multi_label": True}
    wide = extractor(mode, in_one, words_max=1000, tokens_max=9000, **options)
    narrow = extractor(mode, in_many, words_max=90, **options)
    [whole], _ = wide.extract([text], LABELS, **asked)
    [parts], [cut] = narrow.extract([text], LABELS, **asked)
    assert len(in_one.shapes) == 1
    assert max(max(lengths) for _, _, lengths in in_many.shapes) <= 90
    assert not cut
    assert len(whole) > 50
    assert whole == parts


def test_a_window_has_room_for_its_tokens(mode):
    session = WordSession(mode)
    long = "donaudampfschifffahrtsgesellschaft " * 60 + "x" * 5000
    extractor(mode, session, tokens_max=64).extract([long], LABELS)
    assert len(session.shapes) > 3
    assert max(tokens for _, tokens, _ in session.shapes) <= 64


def test_a_text_that_is_too_long_says_so(tiny, monkeypatch):
    monkeypatch.setattr(gliner, "TEXT_WORDS_MAX", 5)
    found, cut = tiny.extract(["a b c d e", "a b c d e f", None], LABELS, threshold=0.2)
    assert cut.tolist() == [False, True, False]
    assert all(entity.end <= 9 for entity in found[1])


@st.composite
def words_of(draw):
    counts = draw(st.lists(st.integers(1, 40), min_size=1, max_size=400))
    return Words(
        starts=list(range(len(counts))),
        ends=list(range(len(counts))),
        ids=[0] * sum(counts),
        first_token=np.cumsum([0, *counts]),
        cut=False,
    )


@given(words_of(), st.integers(1, 100), st.integers(4, 200))
@settings(max_examples=60, deadline=None)
def test_windows_share_out_the_words(words, words_max, tokens_max):
    found = windows(7, words, words_max, tokens_max)
    owned = [word for one in found for word in range(one.own_first, one.own_next)]
    assert owned == list(range(len(words)))
    for one in found:
        assert one.text == 7
        assert one.first <= one.own_first <= one.own_next <= one.next
        assert one.next - one.first <= words_max
        assert one.tokens <= tokens_max


@given(st.integers(1, 2000), st.integers(10, 400))
@settings(deadline=None)
def test_a_word_stands_away_from_an_edge_that_is_not_the_text_s(count, words_max):
    words = Words([0] * count, [0] * count, [0] * count, np.arange(count + 1), cut=False)
    room = min(OVERLAP_WORDS, words_max // 3) // 2
    for one in windows(0, words, words_max, 10_000):
        assert one.own_first - one.first >= room or one.first == 0
        assert one.next - one.own_next >= room or one.next == count


# Decoding, against the reference's rules written plainly


def plainly_chosen(candidates, *, flat, multi_label):
    def clash(one, other):
        if one[:2] == other[:2]:
            return not multi_label
        if one[0] > other[1] or other[0] > one[1]:
            return False
        nested = (one[0] <= other[0] and one[1] >= other[1]) or (
            other[0] <= one[0] and other[1] >= one[1]
        )
        return flat or not nested

    kept = []
    for span in sorted(candidates, key=lambda one: -one.score):
        if not any(clash(span, other) for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda one: one.first)


@st.composite
def candidates(draw):
    scores = st.sampled_from([0.5, 0.6, 0.7, 0.8])
    places = st.tuples(st.integers(0, 11), st.integers(0, 11)).map(sorted)
    spans = draw(st.lists(st.tuples(places, st.integers(0, 2), scores), max_size=40))
    unique = {(*place, label): score for place, label, score in spans}
    return [decode.Span(*where, score) for where, score in unique.items()]


@given(candidates(), st.booleans(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_surest_spans_that_may_stay_together(spans, flat, multi_label):
    how = {"flat": flat, "multi_label": multi_label}
    assert decode.choose(spans, 12, **how) == plainly_chosen(spans, **how)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from([0.2, 0.5, 0.7]))
@settings(max_examples=60, deadline=None)
def test_spans_of_a_token_model(seed, words, threshold):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (words + 2, 2, 3)).astype(np.float32)  # two rows are padding
    least = np.float32(threshold)
    start, end, inside = decode.sigmoid(logits[:words]).transpose(2, 0, 1)
    plain = [
        (s, e, c, float(min(*inside[s : e + 1, c], start[s, c], end[e, c])))
        for s in range(words)
        for c in range(2)
        for e in range(s, words)
        if start[s, c] > least and end[e, c] > least and (inside[s : e + 1, c] >= least).all()
    ]
    assert decode.of_tokens(logits, words, np.full(2, least)) == plain


def test_too_many_candidates_leave_the_surest(monkeypatch):
    monkeypatch.setattr(decode, "CANDIDATES_MAX", 3)
    logits = np.array([0.1, 3, 0.2, 2, 1], np.float32)[:, None, None]
    found = decode.of_spans(logits, 5, np.zeros(1, np.float32))
    assert [span.first for span in found] == [1, 3, 4]


# What does not fit together


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"max_width": 8}, "width_max"),
        ({"max_len": 512}, "words_max"),
        ({"ent_token": "[E]"}, "entity_mark"),
        ({"sep_token": "[S]"}, "separator_mark"),
        ({"subtoken_pooling": "mean"}, "pooling"),
        ({"span_mode": "token_level"}, "mode"),
        ({"labels_encoder": "bert"}, "bi-encoder"),
        ({"relations_layer": "biaffine"}, "relations"),
        ({"words_splitter_type": "jieba"}, "jieba"),
        ({"max_len": "many"}, "max_len"),
    ],
)
def test_a_config_that_says_something_else_is_refused(tmp_path, change, name):
    shutil.copytree(FOLDER / "span", tmp_path / "m")
    path = tmp_path / "m" / "gliner_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(Refuse, match=name) as refused:
        gliner.GlinerExtractor(WordSession("span"), manifest("span"), tmp_path / "m")
    assert refused.value.code == "models.config"


def test_a_graph_of_the_other_mode_is_refused(mode):
    [other] = set(MODES) - {mode}
    with pytest.raises(Refuse, match="span_idx|words_mask") as refused:
        extractor(mode, WordSession(other))
    assert refused.value.code == "models.signature"


def test_a_graph_with_another_width_halts_and_names_the_manifest():
    with pytest.raises(Halt, match=r"logits \(1, 2, 7, 3\)") as halted:
        extractor("span", WordSession("span", width=7)).extract(["a b"], LABELS)
    assert "width_max" in halted.value.fix


def test_a_tokenizer_of_another_model_is_refused(mode):
    with pytest.raises(Refuse, match="not one token") as refused:
        extractor(mode, WordSession(mode), entity_mark="[ENT]", config="")
    assert refused.value.code == "models.tokenizer"


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(Refuse, match="tokenizer.json"):
        gliner.GlinerExtractor(WordSession("span"), manifest("span"), tmp_path)
    shutil.copy(FOLDER / "span" / "tokenizer.json", tmp_path)
    with pytest.raises(Refuse, match="gliner_config.json"):
        gliner.GlinerExtractor(WordSession("span"), manifest("span"), tmp_path)
