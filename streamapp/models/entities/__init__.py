"""Texts to entities: GLiNER, which looks for any labels, and spaCy's models, which know theirs."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from streamapp.core.errors import Refuse
from streamapp.core.model import ModelRef
from streamapp.models.manifest import EntitiesManifest
from streamapp.models.sample import TEXTS
from streamapp.models.session import Session

if TYPE_CHECKING:
    from streamapp.models.entities.gliner import GlinerExtractor
    from streamapp.models.entities.spacy import SpacyExtractor

__all__ = ["open_extractor", "prove_extractor"]

#: Logits of a text alone and among others may differ by so much: float32 in another order.
APART_MAX = 1e-3


def open_extractor(
    manifest: EntitiesManifest, folder: Path, ref: ModelRef, session: Callable[[], Session]
) -> "GlinerExtractor | SpacyExtractor":
    """The extractor of a manifest.

    Args:
        manifest: of a model that is pulled.
        folder: with its files, verified.
        ref: who it is.
        session: opens it, where it is one.

    Raises:
        Refuse: the files are not what the manifest says, or a package is missing.
    """
    if manifest.format == "spacy":
        from streamapp.models.entities.spacy import SpacyExtractor

        return SpacyExtractor(ref, manifest, folder)
    from streamapp.models.entities.gliner import GlinerExtractor

    return GlinerExtractor(session(), manifest, folder)


def prove_extractor(manifest: EntitiesManifest, folder: Path, session: Session) -> None:
    """What a pull proves of GLiNER beside its signature.

    Raises:
        Refuse: a file beside the graph does not fit it, or what it finds in a text depends on the
            others of its call though the manifest says that it does not.
    """
    from streamapp.models.entities.gliner import GlinerExtractor

    extractor = GlinerExtractor(session, manifest, folder)
    apart = extractor.measure_invariance(TEXTS, ("person", "place"))
    if manifest.batch_invariant and apart > APART_MAX:
        raise Refuse(
            "models.batch_invariance",
            f"{manifest.full_name}: a text's scores depend on its batch (logits differ by "
            f"{apart:.4f}, at most {APART_MAX} is allowed)",
            "set batch_invariant = false in the manifest; only texts of one length share a call "
            "then",
        )
