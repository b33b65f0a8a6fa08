"""pyarrow without pandas, until somebody imports it: 27 MB and 0.3 s of each process.

pyarrow imports pandas, where it is installed, to look at the first list that it is given.  It asks
once, and again when a DataFrame is wanted.
"""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pyarrow as pa


def leave_out() -> None:
    """Let pyarrow ask now, and find nothing; who imports pandas later is told of to pyarrow."""
    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _Nowhere())
    try:
        pa.array([None])
    finally:
        sys.meta_path[0] = _Later()


class _Nowhere:
    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name == "pandas":
            raise ModuleNotFoundError(f"{name} is left out", name=name)
        return None


class _Later:
    """pandas as it is; once it is there, pyarrow takes a Series for what it is."""

    def find_spec(self, name: str, *rest: Any) -> ModuleSpec | None:
        if name != "pandas":
            return None
        others = (one.find_spec(name, *rest) for one in sys.meta_path if one is not self)
        spec = next(filter(None, others), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                sys.meta_path[:] = [one for one in sys.meta_path if one is not self]
                pa.array([None]).to_pandas()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
