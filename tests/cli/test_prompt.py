"""What is typed: statements cut out of it, completion, and where the store is."""

import re

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.cli.prompt import Names, has_words, split, statements
from streamapp.cli.sql import at
from streamapp.core.config import Settings
from streamapp.core.errors import Refuse


@pytest.mark.parametrize(
    ("text", "found", "rest"),
    [
        ("select 1; select 2", ["select 1"], " select 2"),
        ("select ';' ; -- ;\n", ["select ';'"], " -- ;\n"),
        ("select 'it''s;' ;", ["select 'it''s;'"], ""),
        ('select 1 as "a;b";x', ['select 1 as "a;b"'], "x"),
        ("select $$;$$;", ["select $$;$$"], ""),
        ("select $a$;$$;$a$;", ["select $a$;$$;$a$"], ""),
        ("/* ; */ ; ;;", [], ""),
        ("select 'open;", [], "select 'open;"),
        ("select /* open;", [], "select /* open;"),
        ("select 1 -- a;\n+ 2;", ["select 1 -- a;\n+ 2"], ""),
        ("select E'\\';' ; x", ["select E'\\';'"], " x"),
        ("select e'a''\\\\';x", ["select e'a''\\\\'"], "x"),
        ("select 'a\\'; x", ["select 'a\\'"], " x"),
        ("/* /* ; */ ; */ select 1; 2", ["/* /* ; */ ; */ select 1"], " 2"),
        ("select $é$;$é$; x", ["select $é$;$é$"], " x"),
        ("select a$b$;c$b$", ["select a$b$"], "c$b$"),
        ("select '\ud800'; x", ["select '\ud800'"], " x"),
    ],
)
def test_split(text, found, rest):
    assert split(text) == (found, rest)


@given(st.lists(st.sampled_from(["a", "'", '"', ";", "--", "\n", "/*", "*/", "$$", " "])))
def test_split_loses_nothing(pieces):
    text = "".join(pieces)
    found, rest = split(text)
    assert re.sub(r"[\s;]", "", text).endswith(re.sub(r"[\s;]", "", rest))
    for one in found:
        assert one in text
        assert split(one)[0] == []
        assert has_words(one)


@given(
    st.lists(
        st.sampled_from(
            [
                "1",
                "'",
                "E'",
                "\\",
                '"',
                ";",
                "--",
                "\n",
                "/*",
                "*/",
                "$$",
                "$a$",
                " ",
                "é",
                "select ",
            ]
        )
    )
)
def test_split_where_duckdb_does(pieces):
    text = "select " + "".join(pieces)
    try:
        said = duckdb.extract_statements(text)
    except duckdb.Error:
        return  # it is no SQL at all
    found, rest = split(text)
    assert len(found) + has_words(rest) == len(said)


def test_statements_of_a_script():
    lines = ["\\d events\n", "select 1;select\n", "\\x\n", "2;\n", "-- end\n"]
    assert list(statements(lines)) == ["\\d events", "select 1", "select\n\\x\n2"]


@pytest.mark.parametrize(
    ("before", "word", "some", "none"),
    [
        ("select * from ", "ev", "events", "every("),
        ("select * from events join ", "ne", "near(", "next_("),
        ("select ", "te", "text", "nothing"),
        ("select e.", "te", "text", "table"),
        ("select events.", "", "id", "source"),
        ("SELECT ", "WHE", "WHERE", "where"),
        ("\\d ", "", "dead", "select"),
        ("select ", "LENG", "length(", ""),
    ],
)
def test_completion(before, word, some, none):
    columns = {"events": ["id", "text"], "dead": ["source"], "near(": []}
    found = Names(columns, ["length(", "every(", "next_("]).matching(before, word)
    assert some in found
    assert none not in found


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("grpc://store:1234", "store", 1234),
        ("grpc://store", "store", 9383),
        ("grpc+tcp://[::1]:5", "::1", 5),
    ],
)
def test_url(url, host, port):
    settings = at(Settings(), url)
    assert (settings.flight_host, settings.flight_port) == (host, port)


@pytest.mark.parametrize(
    "url", ["http://x", "x", "grpc://", "grpc://a:b@x:1", "grpc://x:99999", "grpc+tls://x:1"]
)
def test_a_wrong_url(url):
    with pytest.raises(Refuse) as refused:
        at(Settings(), url)
    assert refused.value.code == "sql.url"
