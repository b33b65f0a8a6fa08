"""The client is small to import: a program that sends events needs no more of us."""

import subprocess
import sys

import pytest

HEAVY = {"faust", "mode", "pyarrow", "duckdb", "onnxruntime", "click", "numpy"}


@pytest.mark.parametrize(("name", "more"), [("Client", {"aiohttp"}), ("AsyncClient", set())])
def test_what_it_loads(name, more):
    code = f"import sys; from streamapp.client import {name}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {module.partition(".")[0] for module in done.stdout.split()}
    assert not loaded & (HEAVY | more)


def test_a_name_that_is_not_there():
    import streamapp.client

    with pytest.raises(AttributeError, match="Clientt"):
        _ = streamapp.client.Clientt
