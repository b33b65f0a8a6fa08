"""TLS: the gateway's certificate, read again when it was renewed, and whose clients are taken."""

import logging
import ssl
from pathlib import Path

from streamapp.core.errors import Refuse
from streamapp.gateway.config import GatewayConfig

_Stamp = tuple[tuple[int, int, int], ...]
_log = logging.getLogger("streamapp.gateway")


class ServerTls:
    """An SSL context that stays, with the certificate that its files hold now.

    Args:
        chain: PEM of the certificate and those between it and its authority's.
        key: PEM of its key, without a password.
        client_ca: PEM of the authorities of clients' certificates: without one nobody comes in.

    Raises:
        Refuse: ``gateway.certificate``.
    """

    def __init__(self, chain: Path, key: Path, client_ca: Path | None = None) -> None:
        self._files = chain, key
        self._stamp = self._look()
        self.context = _context(chain, key)
        if client_ca is not None:
            try:
                self.context.load_verify_locations(client_ca)
            except OSError as error:  # SSLError is one
                raise _unusable(f"{client_ca}: {_reason(error)}") from None
            self.context.verify_mode = ssl.CERT_REQUIRED

    @classmethod
    def of(cls, config: GatewayConfig) -> "ServerTls | None":
        """As configured; None without a certificate.

        Raises:
            Refuse: ``gateway.certificate``.
        """
        if config.cert_file is None and config.key_file is None:
            if config.client_ca_file is not None:
                raise _unusable("gateway_client_ca_file is set, and gateway_cert_file is not")
            return None
        if config.cert_file is None or config.key_file is None:
            raise _unusable("of gateway_cert_file and gateway_key_file only one is set")
        return cls(config.cert_file, config.key_file, config.client_ca_file)

    def refresh(self) -> None:
        """Read the files again when they are others; to be called before a connection.

        Files that do not fit each other, such as one of two that are being replaced, change
        nothing: the certificate that was good stays.
        """
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            _context(*self._files)  # apart, for a failure would leave half of it behind
            self.context.load_cert_chain(*self._files, password="")
            _log.warning("the certificate was renewed")
        except (Refuse, OSError, ValueError) as error:
            _log.error("the certificate stays as it was: %s", error)

    def _look(self) -> _Stamp:
        found = []
        for path in self._files:
            try:
                state = path.stat()
            except OSError as error:
                raise _unusable(f"{path}: {error.strerror}") from None
            found.append((state.st_mtime_ns, state.st_ino, state.st_size))
        return tuple(found)


def _context(chain: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(chain, key, password="")
    except (OSError, ValueError) as error:
        raise _unusable(f"{chain} and {key}: {_reason(error)}") from None
    return context


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)


def _unusable(what: str) -> Refuse:
    return Refuse(
        "gateway.certificate", what, "give PEM files: certificate and key, without a password"
    )
