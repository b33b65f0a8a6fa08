"""Our own processes do without pandas, which pyarrow imports, where it is installed, for any list.

That is 0.3 s and 27 MB a process.  pyarrow asks for it once, and again when a DataFrame is wanted,
so ``to_pandas`` goes on to work.  Not for processes that run others' code: until then
``pyarrow.array`` takes a Series for any sequence, in which NaN is no null.
"""

import sys
from importlib.machinery import ModuleSpec

import pyarrow as pa


class _Nowhere:
    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name == "pandas":
            raise ModuleNotFoundError(f"{name} is left out", name=name)
        return None


def leave_out() -> None:
    """Let pyarrow ask now, and find nothing."""
    if "pandas" in sys.modules:
        return
    nowhere = _Nowhere()
    sys.meta_path.insert(0, nowhere)
    try:
        pa.array([None])
    finally:
        sys.meta_path.remove(nowhere)
