"""What the server proves itself with."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from streamapp.core.config import Settings
from streamapp.core.errors import Refuse


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM of the server's certificate (with those between it and the authority's) and of its key.

    Source: https://grpc.io/docs/guides/auth/.
    """

    chain: bytes
    key: bytes

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """The one that the settings name; None when they name none.

        Raises:
            Refuse: only one of the two files is named, or as ``read``.
        """
        chain, key = settings.flight_cert_file, settings.flight_key_file
        if chain is None and key is None:
            return None
        if chain is None or key is None:
            raise Refuse(
                "flight.certificate",
                "of flight_cert_file and flight_key_file only one is set",
                "set both for TLS, or none",
            )
        return cls.read(chain, key)

    @classmethod
    def read(cls, chain: Path, key: Path) -> Self:
        """From files.

        Raises:
            Refuse: one cannot be read, is no PEM, or the key is not the certificate's.
        """
        certificate = cls(_read(chain), _read(key))
        try:  # gRPC would start all the same, and fail every client
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key, password="")
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            raise Refuse(
                "flight.certificate",
                f"{chain} and {key} are no certificate with its key: {reason}",
                "give PEM files; the key without a password",
            ) from None
        return certificate


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refuse(
            "flight.certificate", f"{path}: {error.strerror}", "check the path and its mode"
        ) from None
