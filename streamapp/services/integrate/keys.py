"""Keys: records with equal ones are of one thing; null and empty ones say nothing."""

import polars as pl
import pyarrow as pa

from streamapp.services.integrate.config import Gathered, Matching
from streamapp.services.integrate.layout import Layout
from streamapp.services.integrate.text import normal
from streamapp.services.integrate.things import first_equals


class Keys:
    """The key fields of an integration's records.

    Args:
        config: of the integration.
        layout: of its sources.
    """

    def __init__(self, config: Gathered, layout: Layout) -> None:
        given = config.matching_strategy
        how = given.keys if isinstance(given, Matching) else given
        self.fields = config.key_fields
        self.normalised = how == "normalised"
        self.columns = [f"key{number}" for number in range(len(self.fields))]
        self._texts = {
            name for name in self.fields if pa.types.is_string(layout.common.field(name).type)
        }

    def of(self, records: pl.DataFrame, place: str) -> pl.DataFrame:
        """``columns``, and ``place`` in ``records``, of those that have a key."""
        if not self.fields:
            return pl.DataFrame(schema={place: pl.UInt32})
        keys = [
            self._key(name).alias(column)
            for name, column in zip(self.fields, self.columns, strict=True)
        ]
        place_of = pl.int_range(pl.len(), dtype=pl.UInt32).alias(place)
        return records.select(*keys, place_of).drop_nulls(self.columns)

    def equal(self, rows: pl.DataFrame, pool: pl.DataFrame) -> pl.DataFrame:
        """Pairs ``left`` and ``right`` of equal keys, of two frames that ``of`` returned."""
        if not self.fields:
            return pl.DataFrame(schema={"left": pl.UInt32, "right": pl.UInt32})
        return rows.join(pool, on=self.columns).select("left", "right")

    def groups(self, keyed: pl.DataFrame) -> pl.DataFrame:
        """``place``, and ``first``, the first place of an equal key, of what ``of`` returned."""
        if not self.fields:
            return keyed.with_columns(first="place")
        keys = keyed.select(self.columns)
        hashes = keyed.select(pl.struct(self.columns).hash()).to_series()
        firsts = first_equals(hashes.to_numpy())
        if not keys.equals(keys[firsts]):  # several keys have one hash
            return keyed.select("place", pl.col("place").min().over(self.columns).alias("first"))
        return keyed.select("place", keyed["place"].gather(firsts).alias("first"))

    def _key(self, name: str) -> pl.Expr:
        found = pl.col(name)
        if name not in self._texts:
            return found
        text = normal(found) if self.normalised else found
        return pl.when(text != "").then(text)
