"""Pairwise precision and recall of ``integrate.match``, keys not looked at.

python integrate_quality.py FOLDER
"""

import json
import sqlite3
import sys
from pathlib import Path

import pandas as pd

COLUMNS = {"given_name": "first", "surname": "last", "tel": "phone"}
FIELDS = ["first", "last", "city", "dob", "phone", "email"]


def read(folder: Path) -> pd.DataFrame:
    """All records with ``source`` and ``row``, and whose each is in ``person``."""
    with sqlite3.connect(folder / "billing.db") as database:
        billing = pd.read_sql("select * from billing", database)
    frames = {
        "crm": pd.read_csv(folder / "crm.csv", dtype={"phone": str}),
        "web": pd.read_json(folder / "web.jsonl", lines=True, dtype=False),
        "billing": billing,
    }
    every = [
        frame.rename(columns=COLUMNS)[FIELDS]
        .astype("string")
        .assign(source=name, row=range(len(frame)))
        for name, frame in frames.items()
    ]
    truth = pd.read_parquet(folder / "truth.parquet")[["source", "row", "person"]]
    return pd.concat(every, ignore_index=True).merge(truth, on=["source", "row"])


def judged(things: pd.Series, persons: pd.Series) -> dict[str, float]:
    """Of the pairs of records that were put into one thing, those of one person; and the reverse."""
    both = pd.DataFrame({"thing": things.to_numpy(), "person": persons.to_numpy()})
    right = _pairs(both.groupby(["thing", "person"]).size())
    return {
        "precision": right / max(1, _pairs(both.groupby("thing").size())),
        "recall": right / max(1, _pairs(both.groupby("person").size())),
    }


def _pairs(sizes: pd.Series) -> int:
    return int((sizes * (sizes - 1) // 2).sum())


def ours(every: pd.DataFrame) -> dict[str, float]:
    from streamapp.services import call

    matching = {
        "rules": [
            {"fields": ["first"], "by": "jaro_winkler", "weight": 1, "least": 0.7},
            {"fields": ["last"], "by": "jaro_winkler", "weight": 2, "least": 0.7},
            {"fields": ["dob"], "by": "levenshtein", "weight": 2, "least": 0.75},
            {"fields": ["email"], "by": "levenshtein", "weight": 1},
            {"fields": ["phone"], "by": "exact", "weight": 1},
        ],
        "blocking": [
            {"on": ["dob", "prefix(last, 1)"]},
            {"on": ["phone"]},
            {"on": ["email"]},
            {"on": ["soundex(last)", "first", "year(dob)"]},
            {"sort_by": ["email"], "window": 3},
        ],
        "threshold": 0.86,
    }
    found = call("integrate.match", every[FIELDS], matching_strategy=matching)
    return judged(found.column("_entity").to_pandas(), every["person"])


if __name__ == "__main__":
    print(json.dumps(ours(read(Path(sys.argv[1])))))
