"""Memory that served models share, as they declare it."""

from threading import Lock


class Budget:
    """At most ``bytes_max``; 0 is no limit.  Safe to use from any thread."""

    def __init__(self, bytes_max: int = 0) -> None:
        self.bytes_max = bytes_max
        self._taken = 0
        self._lock = Lock()

    @property
    def taken(self) -> int:
        """Bytes in use."""
        return self._taken

    def fits(self, size: int) -> bool:
        """Whether that much could ever be had."""
        return not self.bytes_max or size <= self.bytes_max

    def take(self, size: int) -> bool:
        """Take that much, when there is room."""
        with self._lock:
            if self.bytes_max and self._taken + size > self.bytes_max:
                return False
            self._taken += size
            return True

    def give(self, size: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self._taken -= size
