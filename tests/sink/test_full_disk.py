"""Rows and ledger agree when the disk was full, by the file or by the WAL."""

import random
from pathlib import Path

import pytest

from streamapp.core.errors import Retry


@pytest.mark.parametrize("count", [2048, 150], ids=["past the WAL", "by the WAL"])
def test_a_full_disk_is_waited_for(make, open_store, path, file_bytes_max, count):
    """Rows fail to go to the file, or the checkpoint does, after which DuckDB gives up the file."""
    store = open_store(path)
    stored = 0

    def one(first):
        noise = random.Random(first)
        texts = [noise.randbytes(2000).hex() for _ in range(count)]
        events = [make.event(first + row, text=text) for row, text in enumerate(texts)]
        return make.record(first, first + count, events, stages=False)

    def until_full():
        nonlocal stored
        for _ in range(200):
            store.write([one(stored)])
            stored += count

    while Path(path).stat().st_size < 20_000_000:  # more than the WAL may hold
        store.write([one(stored)])
        stored += count
    file_bytes_max(Path(path).stat().st_size + 2_000_000)
    with pytest.raises(Retry, match=path) as caught:
        until_full()
    assert caught.value.code == "store.write"
    with pytest.raises(Retry):
        until_full()
    file_bytes_max(None)
    for _ in range(3):  # it may find that the file must be opened anew, and say so once
        try:
            store.write([one(stored)])
            break
        except Retry:
            continue
    rows = make.rows(store, "SELECT count(*), count(DISTINCT source_offset) FROM events")
    assert rows == [(stored + count, stored + count)]
    assert [(r.first, r.next) for r in store.ledger] == [(0, stored + count)]
