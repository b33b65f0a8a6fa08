"""What a model answered is found among what it thought and what it wrote round it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.models.llm.extract import objects
from streamapp.models.llm.thinking import DIALECTS, said, split

ANSWER = '{"intent": "refund", "note": "a } in \\" it"}'


def first(text):
    return next(objects(text), None)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.begin)
class TestEveryDialect:
    def test_a_block(self, dialect):
        text = f"{dialect.begin}maybe {{x}}{dialect.end}\n{ANSWER}"
        assert split(text) == (ANSWER, "maybe {x}")

    def test_several_blocks_are_one(self, dialect):
        text = f"{dialect.begin}a{dialect.end}x{dialect.begin}b{dialect.end}y"
        assert split(text) == ("xy", "a\nb")

    def test_a_lone_end(self, dialect):
        """The template had written the begin."""
        assert split(f"so, refund{dialect.end}{ANSWER}") == (ANSWER, "so, refund")

    def test_one_that_never_ends(self, dialect):
        assert split(f"x{dialect.begin}and then") == ("x", "and then")


def test_a_lone_end_and_a_block_behind_it():
    assert split("a</think>b<think>c</think>d") == ("bd", "a\nc")


def test_harmony():
    text = (
        "<|channel|>analysis<|message|>The user wants money.<|end|><|start|>assistant"
        f"<|channel|>final <|constrain|>json<|message|>{ANSWER}<|return|>"
    )
    assert split(text) == (ANSWER, "The user wants money.")


def test_harmony_that_never_came_to_an_answer():
    assert split("<|channel|>analysis<|message|>Hm") == ("", "Hm")


@pytest.mark.parametrize(
    "text", ["<|channel|>analysis", "<|channel|>", "<|channel|>final<|message", "<|channel|>" * 9]
)
def test_harmony_that_is_cut_before_a_channel_begins(text):
    assert split(text) == ("", text)


def _slowly(text, begin, end):
    """What one dialect's tags mean, one tag at a time from the left."""
    thought, kept = [], []
    while begin in text or end in text:
        before, _, rest = text.partition(end)
        if begin in before:  # its block may have no end
            head, _, rest = text.partition(begin)
            inner, _, text = rest.partition(end)
            kept.append(head)
            thought.append(inner)
        else:
            thought += [*kept, before]
            kept, text = [], rest
    return "".join([*kept, text]).strip(), "\n".join(
        part.strip() for part in thought if part.strip()
    )


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", "b ", "\n", "<"]), max_size=12))
def test_tags_in_any_order(parts):
    assert split("".join(parts)) == _slowly("".join(parts), "<think>", "</think>")


def test_a_million_ends_are_read_in_one_pass():
    told = split("x</think>" * 110_000 + ANSWER)  # a second pass for each would take a minute
    assert told.answer == ANSWER
    assert told.reasoning.count("x") == 110_000


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_fields_for_reasoning(field):
    assert said({"content": ANSWER, field: "hm"}) == (ANSWER, "hm")
    assert said({"content": None, field: "hm"}) == ("", "hm")


def test_reasoning_in_details_and_in_parts():
    message = {"content": "x", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}
    assert said(message) == ("x", "hm")
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
             {"type": "text", "text": ANSWER}]  # fmt: skip
    assert said({"content": parts}) == (ANSWER, "hm")


def test_what_is_no_message_says_nothing():
    assert said({}) == ("", "")
    assert said({"content": 7, "reasoning": {"a": 1}}) == ("", "")


@pytest.mark.parametrize(
    "text",
    [
        ANSWER,
        f"```json\n{ANSWER}\n```",
        f"Sure! {ANSWER} Anything else?",
        f'He said "yes. {ANSWER}',
        f"{{ is a brace. {ANSWER}",
        f'{{"draft": 1}} no, rather: {ANSWER}',
        f"{ANSWER} {{",
        f'{ANSWER} {{"intent": "can',
    ],
    ids=["bare", "fenced", "in prose", "a quote before", "a brace before", "the last counts",
         "a brace behind", "a cut one behind"],
)  # fmt: skip
def test_the_object_is_found(text):
    assert first(text) == json.loads(ANSWER)


@pytest.mark.parametrize(
    "text",
    ["", "none", '{"intent": "ref', '{"a": {"b": 1}', "[1, 2]", '{"quote": "take {} please", "in',
     "{'intent': 'refund'}", "{" * 100_000, '{"a":' * 50_000],
)  # fmt: skip
def test_half_of_one_is_none(text):
    found = list(objects(text))
    assert {"intent": "refund"} not in found
    assert all("intent" not in one for one in found)


def test_an_object_within_a_string_is_none():
    outer = {"text": 'ignore all of it: {"intent": "cancel"}', "intent": "refund"}
    assert list(objects(f"x {json.dumps(outer)} y")) == [outer]


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(), _json, max_size=4),
    st.text(st.characters(exclude_characters='{}"', exclude_categories=["Cs"])),
    st.booleans(),
)
def test_any_object_in_any_prose(value, prose, ascii_only):
    text = f"{prose}{json.dumps(value, ensure_ascii=ascii_only)}{prose}"
    assert first(text) == value


@given(st.text())
def test_any_text_is_taken_apart(text):
    split(text)
    list(objects(text))
