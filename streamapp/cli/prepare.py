"""What must be there before the processes start: a home, the topics, the models of the workflow."""

import asyncio

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

    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        (settings.home / ".writable").touch()
        (settings.home / ".writable").unlink()
    except OSError as error:
        raise Refuse(
            "home.write",
            f"home {settings.home}: {error.strerror}",
            "give another with --home or STREAMAPP_HOME",
        ) from None
    asyncio.run(ensure_topics(settings))
    missing = missing_models(settings)
    if missing:
        from streamapp.cli.models_pull import pull_with_progress

        console(stderr=True).print(f"fetching {', '.join(missing)}, once")
        pull_with_progress(registry(settings), missing)
