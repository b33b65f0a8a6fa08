"""Names of services and operations: which there are, what else they go by, and what was meant."""

from collections.abc import Mapping
from types import MappingProxyType

from streamapp.core.errors import Refuse
from streamapp.plugin.installed import suggest
from streamapp.plugin.registered import PYTHON, known

#: What services also go by.
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "heihachi": "audio",
        "gospel": "text",
        "purpose": "pipeline",
        "combine": "integrate",
        "model-router": "infer",
    }
)


def plain_service(service: str) -> str:
    """The plain name of a service: ``text`` for ``gospel``; any other name as it is."""
    return ALIASES.get(service, service)


def operation_name(service: str, operation: str) -> str:
    """The name an operation is registered by: ``text.analyze`` for ``gospel``, ``analyze``.

    The service ``python`` has every ``MODULE:FUNCTION`` of the project.

    Raises:
        Refuse: ``workflow.service`` or ``workflow.operation``: there is none, with what was
            probably meant.
    """
    installed = known()
    plain = plain_service(service)
    name = f"{plain}.{operation}"
    if name in installed or name.startswith(PYTHON):
        return name
    own = [other.partition(".")[2] for other in installed if other.startswith(f"{plain}.")]
    if own:
        why = f"service {service!r} has no operation {operation!r}"
        raise Refuse("workflow.operation", why, suggest(operation, own, "it has"))
    services = sorted({other.partition(".")[0] for other in installed})
    if plain in ALIASES.values():
        why = f"service {service!r} has no operation {operation!r}: none of its own is installed"
        raise Refuse("workflow.operation", why, suggest(operation, installed, "installed are"))
    why = f"there is no service {service!r}"
    raise Refuse("workflow.service", why, suggest(service, (*services, *ALIASES), "there are"))


__all__ = ["ALIASES", "operation_name", "plain_service", "suggest"]
