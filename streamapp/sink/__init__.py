"""The store: enriched records into one DuckDB file, each source offset exactly once."""

from streamapp.sink.intake import StoredRecord, keyed
from streamapp.sink.store import Store, Written

__all__ = ["Store", "StoredRecord", "Written", "keyed"]
