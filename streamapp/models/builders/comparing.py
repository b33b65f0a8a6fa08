"""A built model beside its original: the same rows through both, and how far the outputs are."""

import re
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from streamapp.core.errors import Refuse, Reject
from streamapp.core.model import ModelRef
from streamapp.models.builders import Built
from streamapp.models.formats.onnx import OnnxSession
from streamapp.models.manifest import Manifest
from streamapp.models.session import Array, Tensor

#: Rows that are drawn where the manifest has no example.
ROWS = 64
_SEED = 20261122
#: The original: feeds to outputs, both by the built model's names.
Original = Callable[[Mapping[str, Array]], Mapping[str, Array]]


def compared(manifest: Manifest, folder: Path, original: Original, packages: list[str]) -> Built:
    """What to record of a build.

    Args:
        manifest: has the example, or inputs to draw rows for.
        folder: where the built model is.
        original: what it was built from.
        packages: that built it.

    Raises:
        Refuse: an output is further from the original's than the manifest's tolerance.
    """
    assert manifest.build is not None  # noqa: S101  # it was just built
    ref = ModelRef(manifest.task, manifest.name, manifest.version, "")
    session = OnnxSession(ref, folder / manifest.model)
    try:
        feeds = feeds_for(manifest, session.inputs)
        got = session.run(feeds)
        expected = original(feeds)
    except Reject as error:
        raise Refuse(
            "models.example",
            f"{manifest.full_name} does not run on its own example: {error.message}",
            "correct [example] in the manifest",
        ) from None
    finally:
        session.close()
    worst = 0.0
    for name, array in expected.items():
        apart = distance(array, got[name])
        worst = max(worst, apart)
        if not apart <= manifest.build.tolerance:
            raise Refuse(
                "models.conversion",
                f"{manifest.full_name}: output {name!r} of the built model is {apart:.3g} from the "
                f"original's, {manifest.build.tolerance:g} is allowed",
                "set tolerance in [build] if that is good enough, or convert it yourself",
            )
    rows = min(len(array) for array in feeds.values())
    return Built(by=", ".join(map(_with_version, packages)), difference=worst, rows=rows)


def feeds_for(manifest: Manifest, inputs: tuple[Tensor, ...]) -> dict[str, Array]:
    """The manifest's example, else rows that are drawn, the same ones each time.

    Raises:
        Refuse: no rows can be drawn for these inputs.
    """
    from streamapp.models.proving import example_of

    if feeds := example_of(manifest, inputs):
        return feeds
    random = np.random.default_rng(_SEED)
    drawn: dict[str, Array] = {}
    for tensor in inputs:
        if not tensor.dtype.startswith("float") or -1 in tensor.shape[1:]:
            raise Refuse(
                "models.example",
                f"{manifest.full_name}: no rows can be drawn for {tensor.name} = {tensor}",
                "give [example] in the manifest: what is built is compared on it",
            )
        shape = (ROWS if tensor.shape[0] < 0 else tensor.shape[0], *tensor.shape[1:])
        drawn[tensor.name] = random.standard_normal(shape).astype(tensor.dtype)
    return drawn


def distance(one: Array, other: Array) -> float:
    """The largest absolute difference; infinite between other shapes, labels or a NaN and a number.

    Numbers above 1 count by their relative difference: float32 has no other.
    """
    if one.shape != other.shape:
        return float("inf")
    if one.dtype.kind in "OUST" or other.dtype.kind in "OUST":
        same = np.asarray(one, object).astype(str) == np.asarray(other, object).astype(str)
        return 0.0 if same.all() else float("inf")
    a, b = one.astype(np.float64), other.astype(np.float64)
    if (np.isnan(a) != np.isnan(b)).any():
        return float("inf")
    apart = np.abs(a - b) / np.maximum(1.0, np.abs(a))
    return float(np.nanmax(apart, initial=0.0)) if apart.size else 0.0


def needs(manifest: Manifest, extra: str, error: ImportError) -> Refuse:
    """The error for a builder whose packages are not here."""
    assert manifest.build is not None  # noqa: S101  # a builder asks
    return Refuse(
        "models.builder",
        f"{manifest.full_name} is built by {manifest.build.builder}: {error}",
        f'run `pip install "streamapp[{extra}]"`; what is pulled then needs it no more',
    )


def _with_version(package: str) -> str:
    try:
        return f"{package} {re.split('[+]', version(package))[0]}"
    except PackageNotFoundError:
        return package
