"""The same work in polars, as its pages recommend: lazy readers, expressions, no loop of Python's.

python integrate_polars.py FOLDER OUT

See ``integrate_theirs.py`` for what that work is.  Pairs of names are compared by rapidfuzz's own
loop, and what hangs together is found by SciPy, as polars has neither.
"""

import json
import sys
import time
from pathlib import Path

import adbc_driver_sqlite.dbapi
import numpy as np
import polars as pl
from rapidfuzz import process
from rapidfuzz.distance import JaroWinkler
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

KEY, AMOUNT = "customer_id", "amount"
FIELDS = ["first", "last", "city", "dob", "phone", "email", "updated_at"]
TYPES = dict.fromkeys([KEY, *FIELDS], pl.String) | {AMOUNT: pl.Float64}
WEB = {"id": KEY, "given_name": "first", "surname": "last"}
BILLING = {"cust": KEY, "tel": "phone"}


def read(folder: Path) -> pl.DataFrame:
    """Records of all sources, with their place ``row``."""
    crm = pl.scan_csv(folder / "crm.csv", schema_overrides=TYPES)
    given = {name: own for own, name in WEB.items()}
    types = {given.get(name, name): kind for name, kind in TYPES.items()}
    web = pl.scan_ndjson(folder / "web.jsonl", schema=types).rename(WEB)
    with adbc_driver_sqlite.dbapi.connect(str(folder / "billing.db")) as database:
        billing = pl.read_database("select * from billing", database).rename(BILLING)
    columns = [
        KEY, *FIELDS[:3], pl.col("dob").str.to_date("%Y-%m-%d"), "phone", "email",
        pl.col("updated_at").str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us"), AMOUNT,
    ]  # fmt: skip
    sources = [source.select(columns) for source in (crm, web, billing.lazy())]
    return pl.concat(sources).with_row_index("row").collect()


def matched(every: pl.DataFrame) -> pl.DataFrame:
    """Records without a key, ``row``, and the one that each is most like, ``right``."""
    known = every.lazy().select(
        "row", "dob",
        name=pl.concat_str("first", "last", separator=" ").str.to_lowercase(),
        keyed=pl.col(KEY).is_not_null(),
    )  # fmt: skip
    others = known.select("dob", "keyed", right="row", other="name")
    lost = known.filter(~pl.col("keyed")).drop("keyed")
    pairs = lost.join(others, on="dob").filter(pl.col("row") != pl.col("right")).collect()
    scores = process.cpdist(
        pairs["name"].to_list(), pairs["other"].to_list(),
        scorer=JaroWinkler.similarity, workers=-1,
    )  # fmt: skip
    alike = pairs.lazy().with_columns(pl.Series("score", scores)).filter(pl.col("score") >= 0.9)
    ranked = alike.sort("row", "keyed", "score", "right", descending=[False, True, True, False])
    return ranked.unique("row", keep="first").select("row", "right").collect()


def things(every: pl.DataFrame, best: pl.DataFrame) -> pl.Series:
    """Of each record the number of its thing."""
    keyed = every.lazy().filter(pl.col(KEY).is_not_null())
    firsts = keyed.select("row", right=pl.col("row").first().over(KEY)).collect()
    ends = pl.concat([firsts, best]).select(pl.all().to_physical()).to_numpy()
    links = coo_array((np.ones(len(ends), np.bool_), ends.T), shape=(len(every), len(every)))
    return pl.Series(connected_components(links, directed=False)[1])


def merged(every: pl.DataFrame) -> pl.LazyFrame:
    """A row for each thing, by their first records; one has no more than one key."""
    fields = pl.col(KEY, *FIELDS, AMOUNT)
    values = fields.n_unique() - fields.has_nulls()
    # by things first: groups of what is sorted are slices, which takes half the time and memory
    newest_first = every.lazy().sort(
        "thing", "updated_at", descending=[False, True], maintain_order=True
    )
    grouped = newest_first.group_by("thing").agg(
        pl.col("row").min(),
        pl.col(KEY, *FIELDS).drop_nulls().first(),
        pl.when(pl.col(AMOUNT).count() > 0).then(pl.col(AMOUNT).sum()),
        (values > 1).name.suffix("_conflict"),
    )
    return grouped.sort("row").drop("row", "thing")


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    every = read(folder)
    every = every.with_columns(things(every, matched(every)).alias("thing"))
    result = merged(every).collect()
    result.write_parquet(out / "customers.parquet")
    seconds = time.perf_counter() - begun
    flags = result.select(pl.col("^.*_conflict$").sum()).row(0, named=True)
    conflicts = {name.removesuffix("_conflict"): count for name, count in flags.items()}
    print(json.dumps({"seconds": seconds, "things": len(result), "conflicts": conflicts}))


main()
