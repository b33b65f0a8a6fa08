"""What is written as TOML is read back as it was."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.errors import Halt
from streamapp.models.toml import write_toml

texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = texts | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False)
values = st.recursive(
    scalars | st.lists(scalars, max_size=4),
    lambda inner: (
        st.dictionaries(texts, inner, max_size=3)
        | st.lists(st.dictionaries(texts, inner, max_size=3), min_size=1, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(texts, values, max_size=5))
def test_it_comes_back(content):
    assert tomllib.loads(write_toml(content)) == content


def test_it_reads_well():
    content = {"name": "x", "n": 1, "below": {"a b": True}, "files": [{"k": 1.5}, {"k": 2.0}]}
    assert write_toml(content) == (
        'name = "x"\nn = 1\n\n[below]\n"a b" = true\n\n[[files]]\nk = 1.5\n\n[[files]]\nk = 2.0\n'
    )
    assert write_toml({"long": ["x" * 40] * 3}).count("\n") == 5
    assert write_toml({"nothing": None}) == "\n"


def test_what_toml_does_not_have_is_an_error_of_ours():
    with pytest.raises(Halt, match="bytes"):
        write_toml({"x": b"y"})
