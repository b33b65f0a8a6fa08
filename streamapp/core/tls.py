"""How clients on this machine trust the gateway, and show it who they are."""

import re
import ssl
from pathlib import Path

from streamapp.core.errors import Refuse
from streamapp.core.settings import Settings

_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL | re.ASCII
)


def client_context(settings: Settings) -> ssl.SSLContext | None:
    """For connections to the gateway; None where the settings say nothing of TLS.

    With ``gateway_ca_file`` the gateway's name is checked, and any certificate of these authorities
    is good.  Without, only the one of ``gateway_cert_file`` is, under whatever name.

    Raises:
        Refuse: ``gateway.certificate`` a file cannot be used.
    """
    if settings.gateway_ca_file is None and settings.gateway_cert_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.gateway_ca_file is not None:
        _load(context, settings.gateway_ca_file)
    elif settings.gateway_cert_file is not None:
        _pin(context, settings.gateway_cert_file)
    if settings.gateway_client_ca_file is not None and settings.gateway_cert_file is not None:
        # Mutual TLS: what runs beside the gateway shows the gateway's own certificate.
        try:
            context.load_cert_chain(
                settings.gateway_cert_file, settings.gateway_key_file, password=""
            )
        except (OSError, ValueError) as error:
            raise _unusable(settings.gateway_cert_file, error) from None
    return context


def _load(context: ssl.SSLContext, authorities: Path) -> None:
    try:
        context.load_verify_locations(authorities)
    except OSError as error:
        raise _unusable(authorities, error) from None


def _pin(context: ssl.SSLContext, chain: Path) -> None:
    """Trust the first certificate of the file, and not those who signed it."""
    try:
        own = _CERTIFICATE.search(chain.read_text(errors="replace"))
        context.load_verify_locations(cadata=own[0] if own else "-")
    except OSError as error:
        raise _unusable(chain, error) from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False


def _unusable(path: Path, error: Exception) -> Refuse:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return Refuse("gateway.certificate", f"{path}: {reason}", "give a PEM file that can be read")
