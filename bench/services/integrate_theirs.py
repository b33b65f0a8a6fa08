"""The same work in pandas, columns at a time: no loop but the one over pairs of names.

python integrate_theirs.py FOLDER OUT usual|fastest

Its result has the rows and the values of ours, in the same order (``integrate_same.py`` looks at
each): records of three sources, of one thing where their keys are equal; one without a key is of
that of the most similar name (Jaro-Winkler, 0.9 or more) among all records of the same date of
birth, one with a key before one without, the earlier before the later; what follows from both is
joined, too.  A thing has the newest value of each field, the sum of its amounts, and, for each
column, whether its records disagree in it.  Both lower the case of names; ours also takes accents
and punctuation off, which these records have none of.  Ours has a list of the columns in conflict,
this a column of truth values for each, which is what pandas has for it.

``usual`` reads as pandas does when nothing more is said, and calls rapidfuzz for each pair.
``fastest`` is what pandas' pages recommend for speed: Arrow's readers and ADBC, and rapidfuzz's own
loop over pairs.
"""

import json
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import adbc_driver_sqlite.dbapi
import numpy as np
import pandas as pd
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet  # noqa: F401  # imported before the clock, as all of ours is
from rapidfuzz import process
from rapidfuzz.distance import JaroWinkler
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

KEY, TIMES = "customer_id", ["dob", "updated_at"]
FIELDS = ["first", "last", "city", "dob", "phone", "email", "updated_at"]
QUERY = "select * from billing"


def read_usual(folder: Path) -> list[pd.DataFrame]:
    crm = pd.read_csv(folder / "crm.csv", dtype={"phone": str}, parse_dates=TIMES)
    web = pd.read_json(folder / "web.jsonl", lines=True, dtype=False)
    web[TIMES] = web[TIMES].apply(pd.to_datetime)
    with closing(sqlite3.connect(folder / "billing.db")) as database:
        billing = pd.read_sql(QUERY, database, parse_dates=TIMES)
    return [crm, web, billing]


def read_fastest(folder: Path) -> list[pd.DataFrame]:
    crm = pd.read_csv(folder / "crm.csv", dtype={"phone": str}, parse_dates=TIMES, engine="pyarrow")
    web = pd.read_json(folder / "web.jsonl", lines=True, engine="pyarrow")
    with closing(adbc_driver_sqlite.dbapi.connect(str(folder / "billing.db"))) as database:
        billing = pd.read_sql(QUERY, database, parse_dates=TIMES)
    return [crm, web, billing]


def scores_usual(left: pd.Series, right: pd.Series) -> list[float]:
    return [JaroWinkler.similarity(one, other) for one, other in zip(left, right, strict=True)]


def scores_fastest(left: pd.Series, right: pd.Series) -> np.ndarray:
    scorer = JaroWinkler.similarity
    return process.cpdist(left.tolist(), right.tolist(), scorer=scorer, workers=-1)


WAYS = {"usual": (read_usual, scores_usual), "fastest": (read_fastest, scores_fastest)}


def matched(every: pd.DataFrame, scores: object) -> pd.DataFrame:
    """Records without a key, ``left``, and the one that each is most like, ``right``."""
    known = pd.DataFrame({
        "dob": every["dob"],
        "name": (every["first"] + " " + every["last"]).str.lower(),
        "right": every.index,
        "keyed": every[KEY].notna(),
    })  # fmt: skip
    lost = known.loc[~known["keyed"], ["dob", "name", "right"]].rename(columns={"right": "left"})
    pairs = lost.merge(known, on="dob", suffixes=("", "_right"))
    pairs = pairs[pairs["left"] != pairs["right"]]
    pairs["score"] = scores(pairs["name"], pairs["name_right"])
    order = ["left", "keyed", "score", "right"]
    best = pairs[pairs["score"] >= 0.9].sort_values(order, ascending=[True, False, False, True])
    return best.drop_duplicates("left")


def things(every: pd.DataFrame, best: pd.DataFrame) -> np.ndarray:
    """Of each record its thing: 0, 1, 2 in the order of their first records."""
    keyed = pd.Series(every.index, every.index)[every[KEY].notna()]
    firsts = keyed.groupby(every[KEY]).transform("first")
    ends = (
        np.concatenate([firsts.index, best["left"]]),
        np.concatenate([firsts, best["right"]]),
    )
    links = coo_array((np.ones(len(ends[0]), np.bool_), ends), shape=(len(every), len(every)))
    return pd.factorize(connected_components(links, directed=False)[1])[0]


def merged(every: pd.DataFrame) -> pd.DataFrame:
    newest_first = every.sort_values("updated_at", ascending=False, kind="stable")
    grouped = newest_first.groupby("thing")
    found = grouped[FIELDS].first()  # that is not null
    found[KEY] = every.groupby("thing")[KEY].first()
    found["amount"] = grouped["amount"].sum(min_count=1)
    values = grouped[[KEY, *FIELDS, "amount"]].nunique()
    return found.join((values > 1).add_suffix("_conflict"))


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    read, scores = WAYS[sys.argv[3]]
    out.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    crm, web, billing = read(folder)
    web = web.rename(columns={"id": KEY, "given_name": "first", "surname": "last"})
    billing = billing.rename(columns={"cust": KEY, "tel": "phone"})
    every = pd.concat([crm, web, billing], ignore_index=True)
    del crm, web, billing
    every["thing"] = things(every, matched(every, scores))
    result = merged(every)
    result.to_parquet(out / "customers.parquet", index=False)
    seconds = time.perf_counter() - begun
    flags = result.filter(like="_conflict").sum()
    conflicts = {name.removesuffix("_conflict"): int(count) for name, count in flags.items()}
    print(json.dumps({"seconds": seconds, "things": len(result), "conflicts": conflicts}))


main()
