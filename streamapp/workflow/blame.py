"""Where a stage of a user's failed, for messages that need no traceback."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamapp.core.errors import Refuse, StreamappError


@contextmanager
def blamed(stage: str, method: str) -> Iterator[None]:
    """Whatever a stage's method raises before the first batch is a Refuse that says where.

    Raises:
        Refuse: for anything but our own errors, which pass.
    """
    try:
        yield
    except StreamappError:
        raise
    except Exception as error:
        raise Refuse(
            "stage.start",
            f"stage {stage!r} fails in {method}: {type(error).__name__}: {error}"
            f" ({place_of(error)})",
            f"mend it there, or what [stages.{stage}] gives it",
        ) from error


def place_of(error: BaseException) -> str:
    """``file.py:12``: the innermost line that is not an installed package's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename]
    last = (own or frames)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"
