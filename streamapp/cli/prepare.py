"""What must be there before the processes start: a home, the topics, the models of the workflow."""

import asyncio
from pathlib import Path

from streamapp.cli.output import console
from streamapp.core.config import Settings
from streamapp.core.errors import Refuse


def prepare(settings: Settings) -> None:
    """Make the home, create missing topics, fetch missing models (with progress).

    Raises:
        Refuse: the home cannot be written, a topic exists with other partitions, a model does not
        match.
        Retry: the broker or a model's source does not answer.
    """
    from streamapp.compose import ensure_topics, missing_models, registry

    make_home(settings.home)
    asyncio.run(ensure_topics(settings))
    missing = missing_models(settings)
    if missing:
        from streamapp.cli.models_pull import pull_with_progress

        console(stderr=True).print(f"fetching {', '.join(missing)}, once")
        pull_with_progress(registry(settings), missing)


def make_home(home: Path) -> None:
    """Make the home's folder.

    Raises:
        Refuse: it cannot be made, or written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        (home / ".writable").touch()
        (home / ".writable").unlink()
    except OSError as error:
        reason = "this is a file, not a folder" if home.is_file() else error.strerror
        raise Refuse(
            "home.write", f"home {home}: {reason}", "give another with --home or STREAMAPP_HOME"
        ) from None
