"""The registry of models as settings and the project declare it."""

from pathlib import Path
from typing import TYPE_CHECKING

from streamapp.core.config import Settings, find_project
from streamapp.core.project import read_secret
from streamapp.topics import catalogue as topics

if TYPE_CHECKING:
    from streamapp.models import Registry


def declared_registry(settings: Settings) -> "Registry":
    """The models that are declared, and where their files are kept.

    Without ``models_dir`` those as installed, behind the ones that were added under ``home``.
    """
    from streamapp.models import Registry
    from streamapp.models.source import Places

    project = find_project(Path.cwd())
    folder = project.parent if project else Path.cwd()
    return Registry(
        settings.models_dir or [settings.models_own, topics.defaults("models")],
        settings.models_cache,
        threads=settings.threads or None,
        embedding_model=settings.embedding_model,
        tokenizer_model=settings.tokenizer_model,
        secret=lambda reference: read_secret(reference, folder),
        places=Places(
            settings.hf_url, settings.hf_token, settings.mlflow_url, settings.mlflow_token
        ),
    )
