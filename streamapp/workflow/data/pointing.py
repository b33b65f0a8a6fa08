"""A place in a JSON document, like ``data.items``: names and numbers with dots between."""

from typing import Any

import msgspec

from streamapp.core.errors import Refuse


def value_at(document: Any, path: str) -> Any:
    """What is there, or None where nothing is."""
    for name in path.split(".") if path else ():
        if isinstance(document, dict):
            document = document.get(name)
        elif isinstance(document, list) and name.isdigit() and int(name) < len(document):
            document = document[int(name)]
        else:
            return None
    return document


def array_at(data: bytes, path: str, origin: str) -> list[msgspec.Raw]:
    """The elements of the array at ``path``, each as it stands; an object is an array of one.

    Raises:
        Refuse: the document is no JSON, or has no array there.
    """
    raw = msgspec.Raw(data)
    for name in path.split(".") if path else ():
        members = _decode(raw, dict[str, msgspec.Raw], origin, path)
        if name not in members:
            raise Refuse(
                "data.records",
                f"{origin}: there is no {name!r} on the way to {path!r}",
                f"it has {', '.join(list(members)[:20]) or 'nothing'}",
            )
        raw = members[name]
    if bytes(memoryview(raw)[:100]).lstrip()[:1] == b"{":
        _decode(raw, dict[str, msgspec.Raw], origin, path)
        return [raw]
    found: list[msgspec.Raw] = _decode(raw, list[msgspec.Raw], origin, path)
    return found


def _decode(raw: msgspec.Raw, kind: Any, origin: str, path: str) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise Refuse(
            "data.records",
            f"{origin}: {error}",
            f"correct the option records, which is {path!r}" if path else "set the option records",
        ) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refuse("data.json", f"{origin}: {error}", "check that it is whole") from None
