"""The command line: one file per verb, imported when it is called.

A verb parses, calls the rooms below and prints.  Heavy imports (pyarrow, numpy, faust) stay inside
the functions that need them, so that ``streamapp --help`` and shell completion answer at once.
"""

from streamapp.cli.app import main

__all__ = ["main"]
