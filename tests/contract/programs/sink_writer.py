"""A sink's writer, to be killed: four partitions, and it says what is durable.

Usage: sink_writer.py KIND URL ROWS.  Prints ``stored PARTITION NEXT`` after each commit.
"""

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from sinks import COLUMNS, event, record, reject

from streamapp.sink import Store
from streamapp.sink.parquet import ParquetStore


def main():
    kind, url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    options = {"columns": COLUMNS, "dedup_window_events": 5000}
    if kind == "duckdb":
        store = Store.open(url, **options)
    else:
        store = ParquetStore.open(url, checkpoint_commits=17, **options)
    ends = {partition: at for (_, partition), at in store.positions().items()}
    for partition in itertools.cycle(range(4)):
        first = max(0, ends.get(partition, 0) - 7)  # a little early, as a replay would
        offsets = range(first, first + count)
        events = [event(o, source=f"s{partition}") for o in offsets if o % 50]
        dead = [reject(o) for o in offsets if o % 50 == 0]
        store.write([record(first, first + count, events, rejects=dead, partition=partition)])
        ends[partition] = first + count
        sys.stdout.write(f"stored {partition} {first + count}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
