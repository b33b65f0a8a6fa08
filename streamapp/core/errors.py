"""What went wrong, ordered by what the caller does next.

    StreamappError
    ├── Refuse   a declaration is wrong: do not start
    ├── Retry    the outside does not answer: keep the batch and try again
    ├── Reject   this event is bad: dead-letter it with its address and go on
    └── Halt     our own invariant broke: stop, commit nothing

Every error names the input and the reason in its message, and the way out in ``fix``.  ``code`` is
a dotted, stable id (``config.port``, ``event.json``) for logs, metrics, dead letters and ``--json``
output.
"""


class StreamappError(Exception):
    """Base of all our errors; raise one of the four below.

    Args:
        code: dotted stable id, ``noun.reason``.
        message: what was wrong with which input, one line.
        fix: what the reader can do about it, one line; empty when nothing can be done.
    """

    #: Process exit code when the error reaches the command line (sysexits.h has no better match).
    exit_code = 1

    def __init__(self, code: str, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} ({self.fix})" if self.fix else self.message

    def __reduce__(self) -> tuple[type["StreamappError"], tuple[str, str, str]]:
        return type(self), (self.code, self.message, self.fix)


class Refuse(StreamappError):
    """A declaration (setting, file, manifest, argument) is wrong: do not start."""

    exit_code = 2


class Retry(StreamappError):
    """Something outside does not answer now: keep the batch, wait, try again."""

    exit_code = 75  # EX_TEMPFAIL


class Reject(StreamappError):
    """One event is bad: dead-letter it with its address and go on with the others."""

    exit_code = 65  # EX_DATAERR


class Halt(StreamappError):
    """Our own invariant broke: stop the process, commit nothing."""

    exit_code = 70  # EX_SOFTWARE
