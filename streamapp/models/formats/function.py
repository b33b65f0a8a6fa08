"""A Python callable as a Session: ``function = "module:name"`` in the manifest.

The callable gets the inputs as keyword arguments, NumPy arrays as the signature says, and returns
a mapping of output names to what NumPy makes an array of.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from streamapp.core.errors import Halt, Refuse, Reject, StreamappError
from streamapp.core.model import ModelRef
from streamapp.models.manifest import Manifest
from streamapp.models.session import (
    DTYPES,
    Array,
    Feeds,
    Tensor,
    checked_feeds,
    chosen_outputs,
    fits,
    parse_signature,
)

Function = Callable[..., Mapping[str, Any]]


class FunctionSession:
    """A Session on a callable.

    Args:
        ref: who it is.
        function: inputs by name to outputs by name; it may be called from several threads at once.
        inputs: what it takes.
        outputs: what it gives; the arrays are held to that.
        memory_bytes: what it is charged for.
    """

    def __init__(
        self,
        ref: ModelRef,
        function: Function,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        memory_bytes: int = 0,
    ) -> None:
        self.ref = ref
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.memory_bytes = memory_bytes
        self._function: Function | None = function

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """As ``Session.run``; an error that is not ours is a Reject with its text."""
        names = chosen_outputs(self.ref, self.outputs, outputs)
        given = checked_feeds(self.ref, self.inputs, feeds)
        if self._function is None:
            raise Halt("models.closed", f"{self.ref} is closed", "open it again")
        try:
            found = self._function(**given)
        except StreamappError:
            raise
        except Exception as error:
            what = f"{self.ref} raised {type(error).__name__}: {error}"
            raise Reject("models.function", what, "correct the function") from error
        return {name: self._taken(name, found) for name in names}

    def close(self) -> None:
        """Forget the callable."""
        self._function = None

    def _taken(self, name: str, found: Mapping[str, Any]) -> Array:
        """One output as the array that is declared."""
        tensor = next(output for output in self.outputs if output.name == name)
        if not isinstance(found, Mapping) or name not in found:
            there = ", ".join(found) if isinstance(found, Mapping) else type(found).__name__
            raise self._wrong(f"gave {there or 'nothing'}, not {name!r}")
        try:
            array = np.asarray(found[name], DTYPES[tensor.dtype])
        except (TypeError, ValueError) as error:
            raise self._wrong(f"gave {name} that is no {tensor}: {error}") from None
        if not fits(tensor, array):
            shape = Tensor(name, tensor.dtype, array.shape)
            raise self._wrong(f"gave {name} = {shape}, its manifest says {tensor}")
        return array

    def _wrong(self, why: str) -> Halt:
        return Halt("models.function", f"{self.ref} {why}", "correct the function or [outputs]")


def open_function(ref: ModelRef, manifest: Manifest) -> FunctionSession:
    """The session of a manifest of format ``function``.

    Raises:
        Refuse: the module cannot be imported or has no such callable, or the manifest declares no
            inputs or outputs.
    """
    module, _, name = manifest.function.partition(":")
    try:
        function = getattr(import_module(module), name)
    except Exception as error:  # noqa: BLE001  # a module may raise anything when it is imported
        raise Refuse(
            "models.function",
            f"{manifest.full_name}: {manifest.function}: {type(error).__name__}: {error}",
            "install the package that has it, or correct function",
        ) from None
    if not callable(function):
        raise Refuse(
            "models.function",
            f"{manifest.full_name}: {manifest.function} is a {type(function).__name__}",
            "name something that can be called",
        )
    for kind in ("inputs", "outputs"):
        if not getattr(manifest, kind):
            raise Refuse(
                "models.signature", f"{manifest.full_name} declares no {kind}", f"write [{kind}]"
            )
    inputs, outputs = parse_signature(manifest.inputs), parse_signature(manifest.outputs)
    return FunctionSession(ref, function, inputs, outputs)
