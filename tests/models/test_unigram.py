"""Our Unigram search and the tokenizers library agree on every text."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from streamapp.models.sample import TEXTS
from streamapp.models.tokenizer import LibraryTokenizer, open_tokenizer
from streamapp.models.unigram import UnigramTokenizer, is_unigram

REAL = Path("~/.cache/streamapp/models/embed/multilingual-e5-small/1/tokenizer.json").expanduser()
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
# Scores that tie, pieces within pieces, no piece for z.
PIECES = {
    "▁": -2.0,
    "a": -3.0,
    "b": -3.0,
    "ab": -6.0,
    "aba": -6.5,
    "▁a": -4.0,
    "bb": -5.5,
    "é": -7.0,
}


def small(**changes):
    vocabulary = [[name, 0.0] for name in SPECIAL] + [list(piece) for piece in PIECES.items()]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False}
            | {"normalized": False, "special": True}
            for i, name in enumerate(SPECIAL)
        ],
        "normalizer": {"type": "NFKC"},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "</s>", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {
                name: {"id": name, "ids": [SPECIAL.index(name)], "tokens": [name]}
                for name in ("<s>", "</s>")
            },
        },
        "decoder": None,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocabulary, "byte_fallback": False},
    }
    return json.dumps(content | changes).encode()


@pytest.mark.parametrize("tokens_max", [4, 512])
@settings(max_examples=300, deadline=None)
@given(text=st.text("ab é\u0301z\uff42▁", max_size=30))
def test_a_small_vocabulary(tokens_max, text):
    content = small()
    ours = UnigramTokenizer(content, tokens_max).encode([text])
    assert ours == LibraryTokenizer(content, tokens_max).encode([text])


def test_special_pieces_in_a_text_are_text():
    tokenizer = UnigramTokenizer(small(), 512)
    assert tokenizer.pad == 1
    (ids,), _ = tokenizer.encode(["a </s> b"])
    assert ids.index(2) == len(ids) - 1


def test_what_is_not_plain_unigram_goes_to_the_library(tmp_path):
    path = tmp_path / "tokenizer.json"
    model = json.loads(small())["model"] | {"byte_fallback": True}
    for content, kind in (
        (small(), UnigramTokenizer),
        (small(post_processor=None), LibraryTokenizer),
        (small(pre_tokenizer=None), LibraryTokenizer),
        (small(model=model), LibraryTokenizer),
    ):
        path.write_bytes(content)
        assert type(open_tokenizer(path, 8)) is kind
        assert is_unigram(content) == (kind is UnigramTokenizer)


@pytest.mark.models
def test_the_real_vocabulary():
    if not REAL.is_file():
        pytest.skip("embed/multilingual-e5-small is not pulled: streamapp models pull")
    content = REAL.read_bytes()
    ours = UnigramTokenizer(content, 512)
    library = Tokenizer.from_buffer(content)
    library.no_padding()
    library.enable_truncation(512)
    texts = [*TEXTS, "word " * 600, "ﬁne  ½\u200b x\u0301", "ไทย 👩‍👩‍👧 한국어", "\x00\ud7ff"]
    found = library.encode_batch_fast(texts)
    assert ours.encode(texts) == ([one.ids for one in found], [bool(o.overflowing) for o in found])
