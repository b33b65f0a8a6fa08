"""Writes three sources of one population: a CSV file, JSON lines and a SQLite table.

python integrate_records.py FOLDER RECORDS

Two fifths of the records are in the CSV file, each with its key; the others' keys are missing in
one of ten.  Names, dates of birth and e-mails have typing errors, a tenth of the cities another
value, some telephone numbers are missing.  ``truth.parquet`` says whose record each is.
"""

import json
import sqlite3
import string
import sys
from pathlib import Path

import numpy as np
import pandas as pd

SEED = 3
FIRST = (
    "James Mary Robert Patricia John Jennifer Michael Linda David Elizabeth William Barbara Richard "
    "Susan Joseph Jessica Thomas Sarah Charles Karen Christopher Lisa Daniel Nancy Matthew Betty "
    "Anthony Sandra Mark Margaret Donald Ashley Steven Kimberly Andrew Emily Paul Donna Joshua "
    "Michelle Kenneth Carol Kevin Amanda Brian Melissa George Deborah Timothy Stephanie"
)
SYLLABLES = (
    "an ber cor dal es fin gar hol ing jon kel lor man nor ost per quin ros son ter und vik wel xan "
    "yor zim ham ford ley ton"
)
CITIES = (
    "London Paris Berlin Madrid Rome Vienna Prague Dublin Lisbon Oslo Athens Warsaw Zurich Geneva "
    "Munich Hamburg Milan Naples Porto Lyon"
)
#: Shares of the records, and of those without a key.
SOURCES = {"crm": (0.40, 0.0), "web": (0.36, 0.1), "billing": (0.24, 0.1)}
#: What the sources call the common columns.
NAMES = {
    "web": {"customer_id": "id", "first": "given_name", "last": "surname"},
    "billing": {"customer_id": "cust", "phone": "tel"},
}
TYPOS = {"first": 0.06, "last": 0.06, "email": 0.06, "dob": 0.04}


def population(count: int, rng: np.random.Generator) -> pd.DataFrame:
    syllables = SYLLABLES.split()
    last = ["".join(rng.choice(syllables, rng.integers(2, 4))).title() for _ in range(6000)]
    days = pd.to_timedelta(rng.integers(0, 25_000, count), "D")
    people = pd.DataFrame({
        "person": np.arange(count),
        "first": rng.choice(FIRST.split(), count),
        "last": rng.choice(last, count),
        "city": rng.choice(CITIES.split(), count),
        "dob": (pd.Timestamp("1940-01-01") + days).strftime("%Y-%m-%d"),
        "phone": np.char.add("+", rng.integers(10**9, 10**10, count).astype(str)),
    })  # fmt: skip
    tail = people["person"].astype(str).str[-3:]
    people["email"] = (
        people["first"].str[0] + "." + people["last"] + tail + "@example.org"
    ).str.lower()
    return people


def typo(text: str, rng: np.random.Generator) -> str:
    """A letter left out, two exchanged, or another one; of a date another day of its month."""
    place, kind = int(rng.integers(1, len(text) - 1)), rng.integers(0, 3)
    if text[:4].isdigit():
        return f"{text[:-2]}{rng.integers(1, 29):02}"
    if kind == 0:
        return text[:place] + text[place + 1 :]
    if kind == 1:
        return text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    return text[:place] + str(rng.choice(list(string.ascii_lowercase))) + text[place + 1 :]


def records(
    people: pd.DataFrame, count: int, without_key: float, rng: np.random.Generator
) -> pd.DataFrame:
    found = people.sample(count, random_state=rng).reset_index(drop=True)
    found["customer_id"] = "C" + found["person"].astype(str).str.zfill(7)
    found.loc[rng.random(count) < without_key, "customer_id"] = None
    for column, share in TYPOS.items():
        hit = rng.random(count) < share
        found.loc[hit, column] = [typo(text, rng) for text in found.loc[hit, column]]
    hit = rng.random(count) < 0.1
    found.loc[hit, "city"] = rng.choice(CITIES.split(), hit.sum())
    found.loc[rng.random(count) < 0.08, "phone"] = None
    seconds = pd.to_timedelta(rng.integers(0, 300 * 86_400, count), "s")
    found["updated_at"] = (pd.Timestamp("2026-01-01") + seconds).astype(str)
    found["amount"] = rng.gamma(2, 50, count).round(2)
    return found


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    rng = np.random.default_rng(SEED)
    people = population(int(count * 0.6), rng)
    truth = []
    for name, (share, without_key) in SOURCES.items():
        found = records(people, round(count * share), without_key, rng)
        row = np.arange(len(found))
        truth.append(found[["person", "customer_id"]].assign(source=name, row=row))
        written = found.drop(columns="person").rename(columns=NAMES.get(name, {}))
        if name == "crm":
            written.to_csv(folder / "crm.csv", index=False)
        elif name == "web":
            written.to_json(folder / "web.jsonl", orient="records", lines=True)
        else:
            with sqlite3.connect(folder / "billing.db") as database:
                written.to_sql("billing", database, index=False)
    pd.concat(truth).to_parquet(folder / "truth.parquet")
    print(json.dumps({"records": sum(map(len, truth))}))


if __name__ == "__main__":
    main()
