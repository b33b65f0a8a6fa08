"""``multipart/form-data`` (RFC 7578): an event and the files that belong to it."""

import re
from email.message import Message
from typing import NamedTuple

from streamapp.gateway.problem import ProblemError

FORM = "multipart/form-data"
_PARTS_MAX = 64
_HEADER_BYTES_MAX = 4096
#: Of a Content-Type, or of a part's headers: email takes the square of their number.
_PARAMETERS_MAX = 16
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{1,70}(?<! )")


class Part(NamedTuple):
    """One field; ``filename`` and ``media`` "" where they are not said."""

    name: str
    filename: str
    media: str
    content: bytes


def parts_of(content_type: str, body: bytes) -> list[Part]:
    """The fields of a form.

    Raises:
        ProblemError: 400 ``request.form``.
    """
    _require_few_parameters(content_type.count(";"))
    boundary = _parameters(content_type).get_param("boundary", "")
    if not isinstance(boundary, str) or not _BOUNDARY.fullmatch(boundary):
        raise _broken("the Content-Type has no boundary")
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode(), _PARTS_MAX + 2)
    if len(pieces) - 2 > _PARTS_MAX:
        raise _broken(f"it has more than {_PARTS_MAX} parts")
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise _broken("its last boundary is missing: it is cut off")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    """One field.

    Raises:
        ProblemError: it is none.
    """
    head, end, content = piece.partition(b"\r\n\r\n")
    line_end, _, head = head.partition(b"\r\n")
    if not end or line_end.strip(b" \t") or len(head) > _HEADER_BYTES_MAX:
        raise _broken("a part has no headers, or too many")
    _require_few_parameters(head.count(b";"))
    headers = Message()
    try:
        for line in head.decode().split("\r\n"):
            field, colon, value = line.partition(":")
            if not colon:
                raise _broken("a part's header has no colon")
            headers[field.strip()] = value.strip()
    except UnicodeDecodeError:
        raise _broken("a part's headers are not UTF-8") from None
    if headers.get("Content-Transfer-Encoding", "binary").lower() not in {"binary", "8bit", "7bit"}:
        raise _broken("a part has a Content-Transfer-Encoding; send bytes as they are")
    name = headers.get_param("name", "", "Content-Disposition")
    filename = headers.get_param("filename", "", "Content-Disposition")
    if not isinstance(name, str) or not isinstance(filename, str) or not name:
        raise _broken("a part's Content-Disposition has no plain name")
    return Part(name, filename, headers.get("Content-Type", ""), content)


def _require_few_parameters(count: int) -> None:
    if count > _PARAMETERS_MAX:
        raise _broken(f"its headers have more than {_PARAMETERS_MAX} parameters")


def _parameters(content_type: str) -> Message:
    headers = Message()
    headers["Content-Type"] = content_type
    return headers


def _broken(what: str) -> ProblemError:
    return ProblemError(
        400,
        "request.form",
        f"the form cannot be read: {what}",
        "see RFC 7578; curl -F event='{...};type=application/json' -F file=@photo.png does it",
    )
