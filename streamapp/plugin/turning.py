"""Models whose names may change hands while stages use them."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Turning(Protocol):
    """Models of which one may take another's place, between two batches only."""

    def turn(self) -> bool:
        """Make the changes that are ready; True when there was one."""
        ...
