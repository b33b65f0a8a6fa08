"""The command line: one file per verb, imported when it is called.

A verb parses, calls the rooms below and prints.  Heavy imports (pyarrow, numpy, faust) stay inside
the functions that need them, so that ``streamapp --help`` and shell completion answer at once.
"""

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; see :func:`streamapp.cli.app.main`."""
    try:
        from streamapp.cli.app import main as run
    except KeyboardInterrupt:  # Ctrl-C while modules load
        return 130
    return run(arguments)
