"""What was found, beside the pulled model."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from streamapp.models.tuned import write_tuned
from streamapp.models.tuning.measure import Measured
from streamapp.models.tuning.subjects import Subject


def record(subject: Subject, best: Measured, measured: Sequence[Measured]) -> Path:
    """Write ``tuned.json``; a variant that was chosen comes with it, one that was not goes."""
    folder = subject.folder
    for left in folder.glob("*.int8.onnx"):
        if left.name != best.tuned.variant:
            left.unlink()
    if best.tuned.variant:
        made = next(path for path in folder.glob(f".tune-*/{best.tuned.variant}"))
        made.replace(folder / best.tuned.variant)
    seen = {"chosen": best.as_dict(), "ways": [one.as_dict() for one in measured]}
    return write_tuned(folder, msgspec.structs.replace(best.tuned, measured=seen))
