"""Records that no key joins: what is compared, how, and what people decide."""

import unicodedata
from datetime import timedelta

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import JaroWinkler, Levenshtein
from table_work import TableWork, result

from streamapp.core.errors import Refuse
from streamapp.services.integrate import blocking, compare
from streamapp.services.integrate.bounds import bound, letters_of
from streamapp.services.integrate.config import Rule
from streamapp.services.integrate.match import Match
from streamapp.services.integrate.operation import Integrate
from streamapp.services.integrate.text import normal

BY_NAME = {"rules": [{"fields": ["name"]}], "blocking": [{"on": ["dob"]}], "threshold": 0.9}


def people(*rows):
    columns = list(zip(*rows, strict=True))
    fields = zip(("id", "name", "dob"), columns, strict=True)
    return pa.table({name: pa.array(values, pa.string()) for name, values in fields})


CRM = people(
    ("1", "Anna Smith", "1980-01-02"),
    ("2", "Bob Jones", "1970-05-05"),
    (None, "Cy Lee", "1990-09-09"),
)
WEB = people(
    ("2", "Robert Jones", "1970-05-05"),
    (None, "Ana Smith", "1980-01-02"),
    (None, "Cy Leee", "1990-09-09"),
)


def groups(config, work=None, **inputs):
    """The records of each thing, as (source, row)."""
    rows = result(Match, config, work, **inputs).to_pylist()
    found = {}
    for row in rows:
        found.setdefault(row["_entity"], set()).add((row["_source"], row["_row"]))
    return sorted(map(sorted, found.values()))


def alike(one, other, **rule):
    """Whether two records without a key are taken for one thing by one rule."""
    a = pa.table({"v": [one], "block": ["x"]})
    b = pa.table({"v": [other], "block": ["x"]})
    matching = {
        "rules": [{"fields": ["v"], **rule}],
        "blocking": [{"on": ["block"]}],
        "threshold": 0.85,
    }
    return len(groups({"matching_strategy": matching}, a=a, b=b)) == 1


@pytest.mark.parametrize(
    ("rule", "one", "other", "same"),
    [
        ({"by": "exact"}, "Ann", "Ann", True),
        ({"by": "exact"}, "Ann", "ann", False),
        ({"by": "normalised"}, "Élan  Vital-3", "elan vital 3!", True),
        ({"by": "normalised"}, "elan", "alan", False),
        ({"by": "jaro_winkler"}, "Martha", "MARHTA", True),
        ({"by": "jaro_winkler"}, "Martha", "Robert", False),
        ({"by": "levenshtein"}, "jonathan", "jonathon", True),
        ({"by": "levenshtein"}, "ann", "bob", False),
        ({"by": "token_set"}, "Smith, Anna Maria", "Anna Smith", True),
        ({"by": "token_set"}, "Smith Anna", "Jones Bob", False),
        ({"by": "phonetic"}, "Ashcraft", "Ashcroft", True),
        ({"by": "phonetic"}, "Ashcraft", "Pfister", False),
        ({"by": "date", "within": 30}, "2024-02-28", "2024-03-01", True),
        ({"by": "date", "within": 30}, "2024-02-28", "2025-02-28", False),
        ({"by": "number", "within": 100}, 100.0, 110.0, True),
        ({"by": "number", "within": 100}, 100.0, 150.0, False),
        ({"by": "jaro_winkler"}, None, "Ann", False),
        ({"by": "exact"}, None, None, False),
    ],
)
def test_a_comparison(rule, one, other, same):
    if one is None and other is None:
        one = other = ""
    assert alike(one, other, **rule) == same


def test_records_without_a_key_find_their_thing():
    config = {"key_fields": ["id"], "matching_strategy": BY_NAME}
    assert groups(config, crm=CRM, web=WEB) == [
        [("crm", 0), ("web", 1)], [("crm", 1), ("web", 0)], [("crm", 2), ("web", 2)]
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["left_join", "right_join", "full_outer_join", "intersection"])
def test_every_mode_matches(mode):
    config = {
        "mode": mode,
        "key_fields": ["id"],
        "matching_strategy": BY_NAME,
        "report": ["sources"],
    }
    rows = result(Integrate, config, crm=CRM, web=WEB).to_pylist()
    assert [row["_sources"] for row in rows] == [["crm", "web"]] * 3
    assert {row["id"] for row in rows} == {"1", "2", None}


def test_a_record_never_joins_two_keys():
    """It is as much like the one as like the other, and takes the first."""
    crm = people(("1", "Ann Lee", "1980-01-02"), ("2", "Ann Lee", "1980-01-02"))
    web = people((None, "Ann Lee", "1980-01-02"), (None, "Ann Lee", "1980-01-02"))
    config = {"key_fields": ["id"], "matching_strategy": BY_NAME}
    assert groups(config, crm=crm, web=web) == [
        [("crm", 0), ("web", 0), ("web", 1)], [("crm", 1)]
    ]  # fmt: skip


@pytest.mark.parametrize(
    "blocking",
    [
        [{"on": ["dob"]}],
        [{"on": ["prefix(name, 2)"]}],
        [{"on": ["soundex(name)", "year(dob)"]}],
        [{"sort_by": ["name"], "window": 2}],
        [{"minhash": ["name"]}],
        [{"on": ["name"]}, {"sort_by": ["reverse(name)"], "window": 1}],
    ],
)
def test_each_kind_of_blocking_brings_them_together(blocking):
    pool = people(*((str(n), f"Xaver Huber{n:03}", "1999-01-01") for n in range(50)),
                  ("1000", "Anna Smithson", "1980-01-02"))  # fmt: skip
    rows = people((None, "Anna Smitson", "1980-03-02"), (None, "Nobody Alike", "1950-01-01"))
    if blocking == [{"on": ["dob"]}]:
        rows = people((None, "Anna Smitson", "1980-01-02"), (None, "Nobody Alike", "1950-01-01"))
    matching = {**BY_NAME, "blocking": blocking}
    config = {"key_fields": ["id"], "matching_strategy": matching}
    found = [group for group in groups(config, pool=pool, rows=rows) if len(group) > 1]
    assert found == [[("pool", 50), ("rows", 0)]]


@settings(max_examples=6, deadline=None)
@given(
    st.lists(st.sampled_from(["anna", "anne", "bob", "bobby", "cy", ""]), max_size=8),
    st.integers(0, 8),
)
def test_matching_a_left_join_may_be_cut_anywhere(names, cut):
    pool = pa.table({"name": ["anna", "bob", "zoe"], "n": [1, 2, 3]})
    matching = {
        "rules": [{"fields": ["name"]}],
        "blocking": [{"sort_by": ["name"]}, {"minhash": ["name"]}],
    }
    config = {"mode": "left_join", "secondary_sources": ["pool"], "matching_strategy": matching}
    rows = pa.table({"name": pa.array(names, pa.string())})
    work = TableWork(sources={"pool": pool})
    whole = result(Integrate, config, work, rows=rows)
    parts = [result(Integrate, config, work, rows=part) for part in (rows[:cut], rows[cut:])]
    assert pa.concat_tables(parts).equals(whole)


def test_people_decide_where_it_is_unsure():
    matching = {**BY_NAME, "threshold": 0.995, "review_from": 0.9}
    config = {"key_fields": ["id"], "matching_strategy": matching}
    work = TableWork()
    assert len(groups(config, work, crm=CRM, web=WEB)) == 5
    ((unsure, reason),) = work.set_aside
    assert "unsure match" in reason
    rows = unsure.to_pylist()
    assert {(row["left_name"], row["right_name"]) for row in rows} == {
        ("Anna Smith", "Ana Smith"), ("Cy Lee", "Cy Leee")
    }  # fmt: skip
    assert all(row["decision"] is None and 0.9 <= row["score"] < 0.995 for row in rows)

    said = [
        row | {"decision": "same" if row["left_name"] == "Cy Lee" else "Different "} for row in rows
    ]
    work = TableWork(sources={"said": pa.Table.from_pylist(said)})
    found = groups({**config, "decisions": "said"}, work, crm=CRM, web=WEB)
    assert [("crm", 2), ("web", 2)] in found
    assert [("crm", 0)] in found
    assert work.set_aside == []


def test_pairs_say_how_alike_they_are():
    config = {"key_fields": ["id"], "matching_strategy": BY_NAME, "result": "pairs"}
    rows = result(Match, config, crm=CRM, web=WEB).to_pylist()
    assert [(row["left_row"], row["right_row"]) for row in rows] == [(0, 1), (1, 0), (2, 2)]
    assert rows[1]["score"] is None  # their keys are equal
    assert 0.9 <= rows[0]["score"] < 1


@pytest.mark.parametrize(
    "strategy", ["fuzzy", "jaro_winkler", "levenshtein", "token_set", "phonetic", "normalised"]
)
def test_keys_alike_by_a_strategy_s_name(strategy):
    a = pa.table({"city": ["Sankt Gallen", "Bern"], "a": [1, 2]})
    b = pa.table({"city": ["sankt-gallen", "Chur"], "b": [3, 4]})
    config = {"key_fields": ["city"], "matching_strategy": strategy}
    rows = result(Integrate, config, a=a, b=b).to_pylist()
    assert [(row["city"], row["a"], row["b"]) for row in rows] == [
        ("Sankt Gallen", 1, 3), ("Bern", 2, None), ("Chur", None, 4)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rules": []}, ["rules is empty"]),
        ({"blocking": []}, ["blocking is empty", "every record would meet every other"]),
        ({"blocking": [{}]}, ["a pass says nothing", "on, sort_by, minhash"]),
        ({"blocking": [{"on": ["day"]}]}, ["no source has 'day'"]),
        ({"blocking": [{"on": ["month(dob)"]}]}, ["no 'month'", "soundex"]),
        ({"blocking": [{"on": ["prefix(dob)"]}]}, ["is no key"]),
        ({"rules": [{"fields": ["nam"]}]}, ["rules[0].fields: no source has 'nam'", "name"]),
        ({"rules": [{"fields": ["name"], "by": "number"}]}, ["'name' is string, no number"]),
        ({"rules": [{"fields": ["name"], "weight": 0}]}, ["weight is 0"]),
        ({"review_from": 0.95}, ["review_from (0.95) is above its threshold"]),
        ({"threshold": 0}, ["threshold is 0"]),
        ({"blocking": [{"on": ["dob"], "rows_max": 1}]}, ["2 records agree in dob", "rows_max"]),
        ({"pairs_max": 1}, ["pairs, more than pairs_max (1)"]),
    ],
)
def test_a_matching_that_does_not_fit(change, words):
    config = {"key_fields": ["id"], "matching_strategy": {**BY_NAME, **change}}
    with pytest.raises(Refuse) as refused:
        groups(config, crm=CRM, web=WEB)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize("values", [[b"\xff"], [[1]], [{"a": 1}], [timedelta(1)]])
@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"key_fields": ["v"], "matching_strategy": "fuzzy"}, "rules[0].fields"),
        ({"matching_strategy": {"rules": [{"fields": ["v"], "by": "exact"}]}}, "rules[0].fields"),
        ({"matching_strategy": {"blocking": [{"on": ["v"]}]}}, "blocking"),
        ({"matching_strategy": {"blocking": [{"sort_by": ["v"]}]}}, "blocking"),
        ({"matching_strategy": {"blocking": [{"minhash": ["v"]}]}}, "blocking"),
    ],
)
def test_what_is_no_text_is_not_compared_as_one(values, config, where):
    given = config["matching_strategy"]
    if isinstance(given, dict):
        full = {"rules": [{"fields": ["name"]}], "blocking": [{"on": ["name"]}], **given}
        config = {"matching_strategy": full}
    with pytest.raises(Refuse) as refused:
        groups(config, a=pa.table({"name": ["x"], "v": values}))
    assert f"matching_strategy.{where}: 'v' is " in str(refused.value)
    assert "which is no text" in str(refused.value)


@given(st.lists(st.one_of(st.none(), st.text("aZ9 -.\x00\tÉßö李\u0301", max_size=6))))
@settings(max_examples=60, deadline=None)
def test_texts_are_made_alike_one_by_one_and_together(texts):
    """Those of ASCII are translated together, by another way than the others."""

    def plain(text):
        decomposed = unicodedata.normalize("NFKD", text)
        bare = "".join(c for c in decomposed if not unicodedata.category(c).startswith("M"))
        words = "".join(c if unicodedata.category(c)[0] in "LN" else " " for c in bare.lower())
        return " ".join(words.split())

    column = pl.DataFrame({"t": pl.Series(texts, dtype=pl.String)})
    assert column.select(normal(pl.col("t")))["t"].to_list() == [
        None if text is None else plain(text) for text in texts
    ]


def test_splink_learns_what_each_agreement_says():
    pytest.importorskip("splink")
    names = [
        f"{first} {last}"
        for first in ("anna", "bert", "cleo", "dora")
        for last in ("lee", "kurz", "moser", "nagy")
    ]
    a = pa.table(
        {"name": names, "dob": [f"19{n:02}-01-01" for n in range(16)], "city": ["x", "y"] * 8}
    )
    b = a.set_column(0, "name", pa.array([name[:-1] + "x" for name in names]))
    matching = {
        "rules": [
            {"fields": ["name"]}, {"fields": ["dob"], "by": "exact"}, {"fields": ["city"], "by": "exact"}
        ],
        "blocking": [{"on": ["dob"]}, {"on": ["prefix(name, 5)"]}],
        "method": "splink",
    }  # fmt: skip
    found = groups({"matching_strategy": matching}, a=a, b=b)
    assert found == [[("a", row), ("b", row)] for row in range(16)]
    with pytest.raises(Refuse, match="splink learns from all records at once"):
        result(Integrate, {"mode": "left_join", "matching_strategy": matching}, a=a, b=b)


def test_pieces_of_any_size_give_the_same_pairs(monkeypatch):
    config = {"matching_strategy": {**BY_NAME, "compare": "all"}, "result": "pairs"}
    whole = result(Match, config, crm=CRM, web=WEB)
    assert whole.num_rows == 2
    monkeypatch.setattr(blocking, "_PAIRS_AT_ONCE", 1)
    assert result(Match, config, crm=CRM, web=WEB).equals(whole)


WORDS = st.text("abcde 09éжß漢", max_size=12)


@given(st.lists(st.tuples(WORDS, WORDS | st.none()), min_size=1, max_size=40))
def test_no_text_is_more_alike_than_its_letters_let_it_be(pairs):
    sides = [letters_of(pl.Series(texts, dtype=pl.String)) for texts in zip(*pairs, strict=True)]
    scorers = {
        "jaro_winkler": JaroWinkler.similarity, "levenshtein": Levenshtein.normalized_similarity,
    }  # fmt: skip
    for by, scorer in scorers.items():
        most = bound(by, *sides)
        for (one, other), limit in zip(pairs, most, strict=True):
            assert np.isnan(limit) if not one or not other else scorer(one, other) <= limit + 1e-6


NAMES = st.sampled_from(["", "anna", "ana", "bob", "жанна", "anna lee", "lee anna", "bobby"])


@given(st.lists(st.tuples(NAMES, NAMES | st.none()), min_size=2, max_size=12), st.floats(0.3, 1))
def test_pairs_that_are_not_compared_would_not_have_been_alike_enough(records, least):
    rules = [
        Rule(fields=("a",), by="jaro_winkler", weight=2),
        Rule(fields=("b",), by="levenshtein"),
        Rule(fields=("b",), by="exact", weight=0.5),
    ]
    likeness = compare.Likeness(rules, {"a": pa.string(), "b": pa.string()}, 0.5)
    frame = pl.DataFrame(records, {"a": pl.String, "b": pl.String}, orient="row")
    prepared = likeness.prepared(frame)
    places = pl.int_range(len(frame), dtype=pl.UInt32, eager=True)
    every = pl.DataFrame({"left": places}).join(pl.DataFrame({"right": places}), how="cross")
    kept = likeness.hopeful(prepared, prepared, every, least)
    left, right = (prepared.values[every[side]] for side in ("left", "right"))
    alike = every.filter(pl.Series(likeness.scores(left, right) >= least))
    assert alike.join(kept, on=["left", "right"], how="anti").is_empty()


def test_what_cannot_be_alike_enough_is_not_compared(monkeypatch):
    compared = []
    scores = compare.Likeness.scores

    def counting(self, left, right):
        compared.append(len(left))
        return scores(self, left, right)

    monkeypatch.setattr(compare.Likeness, "scores", counting)
    names = ["Anna Smith", "Ana Smith", "Bob Jones", "Cy Lee", "Kurt Vogel"]
    rows = people(*((None, name, "1980-01-02") for name in names))
    assert len(groups({"matching_strategy": BY_NAME}, a=rows)) == 4
    assert sum(compared) == 1
