import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.errors import Refuse
from streamapp.workflow.graph.expressions import fill, holds, names_in, parse

VALUES = {"params": {"limit": 5, "name": "x"}, "rows": {"nlp-analysis": 3, "b": 0}, "lang": "de"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("params.limit > 3", True),
        ("params.limit > 3 and rows.b > 0", False),
        ("rows.b > 0 or not rows.b", True),
        ('rows["nlp-analysis"] == 3', True),
        ('lang in ["de", "fr"]', True),
        ("lang not in ('de', 'fr')", False),
        ("0 < params.limit <= 5", True),
        ("params.limit * 2 - 1 == 9", True),
        ("-params.limit < 0", True),
        ("params.limit % 2 == 1", True),
        ("true_ == 1", None),
        ("params.limt > 3", None),
        ("rows > 3", None),
        ("params.name > 3", None),
        ("params.limit / rows.b > 3", None),
        ("'a' * 1000000000 == ''", None),
    ],
)
def test_conditions(text, expected):
    if expected is None:
        with pytest.raises(Refuse, match="when"):
            holds(text, VALUES)
    else:
        assert holds(text, VALUES) is expected


@pytest.mark.parametrize(
    "text",
    ["open('x')", "().__class__", "[x for x in y]", "lambda: 1", "a = 1", "", "1 +", "f'{x}'",
     "rows[0]", "x" * 3000, "-" * 1_900 + "1", "1" + " + 1" * 400, "2 ** 9999999", "(yield)",
     "a if b else c", "\0"],
)  # fmt: skip
def test_nothing_is_called(text):
    with pytest.raises(Refuse, match="when"):
        holds(text, VALUES)


@settings(max_examples=50)
@given(st.text(alphabet="rows.params[]'\"()+-*/%<>=! andornotin0123_,\n", max_size=60))
def test_any_text_is_a_condition_or_is_refused(text):
    try:
        assert holds(text, VALUES) in {True, False}
    except Refuse as error:
        assert error.code == "workflow.when"


def test_names_of_a_condition():
    tree = parse('rows["a-b"] > params.limit and lang == "x"')
    assert set(names_in(tree)) == {("rows", "a-b"), ("params", "limit"), ("lang",)}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${params.limit}", 5),
        ("at most ${params.limit} of ${lang}", "at most 5 of de"),
        ({"a": ["${ lang }", 3]}, {"a": ["de", 3]}),
        ("$${lang}", "${lang}"),
        ("5 $", "5 $"),
        ("${env:X}", "${env:X}"),
    ],
)
def test_templates(value, expected):
    assert fill(value, VALUES) == expected


def test_a_template_without_a_value_says_what_there_is():
    with pytest.raises(Refuse, match="there is no 'params.limt'") as caught:
        fill("${params.limt}", VALUES)
    assert "params.limit" in caught.value.fix


def test_secrets_are_read_where_they_are_used():
    asked = []

    def secret(name):
        asked.append(name)
        return "s3cret"

    assert fill({"k": "Bearer ${env:TOKEN}"}, {}, secret) == {"k": "Bearer s3cret"}
    assert asked == ["env:TOKEN"]
