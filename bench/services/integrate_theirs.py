"""The same in pandas: columns at a time where pandas has a way, and rapidfuzz for names.

python integrate_theirs.py FOLDER OUT
"""

import json
import sqlite3
import sys
import time
from pathlib import Path

import pandas as pd
from rapidfuzz.distance import JaroWinkler

KEY = "customer_id"
FIELDS = ["first", "last", "city", "dob", "phone", "email"]


def read(folder: Path) -> list[pd.DataFrame]:
    crm = pd.read_csv(folder / "crm.csv", dtype={"phone": str}, parse_dates=["dob", "updated_at"])
    web = pd.read_json(folder / "web.jsonl", lines=True, dtype=False)
    web = web.rename(columns={"id": KEY, "given_name": "first", "surname": "last"})
    for name in ("dob", "updated_at"):
        web[name] = pd.to_datetime(web[name])
    with sqlite3.connect(folder / "billing.db") as database:
        billing = pd.read_sql("select * from billing", database, parse_dates=["dob", "updated_at"])
    return [crm, web, billing.rename(columns={"cust": KEY, "tel": "phone"})]


def matched(found: pd.DataFrame, crm: pd.DataFrame) -> pd.Series:
    """Keys of records without one: born on the same day, of the most similar name."""
    lost = found[found[KEY].isna()].reset_index()
    known = crm[[KEY, "first", "last", "dob"]]
    pairs = lost.merge(known, on="dob", suffixes=("", "_known"))
    left, right = (
        pairs["first"] + " " + pairs["last"],
        pairs["first_known"] + " " + pairs["last_known"],
    )
    pairs["score"] = [
        JaroWinkler.similarity(one.lower(), other.lower())
        for one, other in zip(left, right, strict=True)
    ]
    best = pairs[pairs["score"] >= 0.9].sort_values("score", ascending=False, kind="stable")
    return best.drop_duplicates("index").set_index("index")[f"{KEY}_known"]


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    begun = time.perf_counter()
    crm, *others = read(folder)
    for found in others:
        found[KEY] = found[KEY].fillna(matched(found, crm))
    every = pd.concat([crm, *others], ignore_index=True)
    keyed = every[every[KEY].notna()].sort_values("updated_at", kind="stable")
    things = keyed.groupby(KEY)
    newest = {name: (name, "last") for name in [*FIELDS, "updated_at"]}  # the last that is not null
    merged = things.agg(**newest, amount=("amount", "sum")).reset_index()
    conflicts = things[FIELDS].nunique().gt(1)
    merged = merged.join(conflicts.add_suffix("_conflict").reset_index(drop=True))
    out.mkdir(parents=True, exist_ok=True)
    result = pd.concat([merged, every[every[KEY].isna()]], ignore_index=True)
    result.to_parquet(out / "customers.parquet", index=False)
    seconds = time.perf_counter() - begun
    found = {name: int(count) for name, count in conflicts.sum().items()}
    print(json.dumps({"seconds": seconds, "things": len(result), "conflicts": found}))


main()
