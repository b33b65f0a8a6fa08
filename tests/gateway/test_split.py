import json

from hypothesis import given
from hypothesis import strategies as st

from streamapp.gateway.split import split

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.lists(documents, min_size=1), st.sampled_from([None, 1]), st.booleans())
def test_an_array_comes_apart_into_its_elements(values, indent, ascii_only):
    body = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    pieces = split(body, "application/json", events_max=1_000)
    assert [line for line, _ in pieces] == list(range(1, len(values) + 1))
    assert [json.loads(piece) for _, piece in pieces] == values
    assert all(piece in body for _, piece in pieces)


@given(st.lists(st.sampled_from([b"", b" ", b"\r", b"{}", b'{"a": 1}', b"x y "])))
def test_lines_are_numbered_as_splitting_would(lines):
    body = b"\n".join(lines)
    expected = [(n, line.strip()) for n, line in enumerate(lines, 1) if line.strip()]
    if expected:
        assert split(body, "application/x-ndjson", events_max=1_000) == expected
