"""The second sink: partitioned Parquet in a directory or an object store, exactly once too."""

from streamapp.sink.parquet.parts import ORDER
from streamapp.sink.parquet.read import dataset, files
from streamapp.sink.parquet.store import ParquetStore

__all__ = ["ORDER", "ParquetStore", "dataset", "files"]
