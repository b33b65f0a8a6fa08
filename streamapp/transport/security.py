"""How a client proves to a broker who it is, and the other way round."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from streamapp.core.errors import Refuse

PROTOCOLS = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class Ways(NamedTuple):
    """What errors tell to do, in the words of who gave the address and what goes with it."""

    broker: str = "name another with STREAMAPP_BROKER"
    login: str = "check STREAMAPP_BROKER_SECURITY, _SASL_MECHANISM, _USERNAME and _PASSWORD"
    authority: str = "name the authority's PEM file with STREAMAPP_BROKER_CA_FILE"
    protocol: str = "set STREAMAPP_BROKER_SECURITY"
    certificate: str = (
        "set STREAMAPP_BROKER_CERT_FILE and _KEY_FILE to a certificate of an authority that it"
        " trusts, not expired"
    )

    @property
    def unreachable(self) -> str:
        """Of a broker that does not answer."""
        return f"start it, or {self.broker}; nothing is lost by waiting"


@dataclass(frozen=True, slots=True)
class Security:
    """What Kafka calls ``security.protocol`` and what goes with it.

    ``ca_file`` holds the certificates to trust instead of the system's; ``cert_file`` and
    ``key_file`` are the client's own; all are PEM.  A host name is always checked.

    Raises:
        Refuse: something is missing, or does not go together.
    """

    ways: ClassVar[Ways] = Ways()

    protocol: str = "plaintext"
    mechanism: str = "PLAIN"
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything connects."""
        _one_of("broker_security", self.protocol, PROTOCOLS)
        _one_of("broker_sasl_mechanism", self.mechanism, MECHANISMS)
        if self.sasl and not (self.username and self.password):
            raise Refuse(
                "broker.security",
                f"broker_security = {self.protocol} without a user name or a password",
                "set STREAMAPP_BROKER_USERNAME and STREAMAPP_BROKER_PASSWORD",
            )
        if not self.sasl and (self.username or self.password):
            raise Refuse(
                "broker.security",
                f"a broker user name or password is set, but broker_security = {self.protocol}"
                " would not send it",
                "set STREAMAPP_BROKER_SECURITY to sasl_ssl (or sasl_plaintext)",
            )
        if not self.tls and (self.ca_file or self.cert_file or self.key_file):
            raise Refuse(
                "broker.security",
                f"a broker certificate is set, but broker_security = {self.protocol} has no TLS",
                "set STREAMAPP_BROKER_SECURITY to ssl or sasl_ssl",
            )
        if bool(self.cert_file) != bool(self.key_file):
            raise Refuse(
                "broker.security",
                "broker_cert_file and broker_key_file belong together",
                "set both, or none",
            )

    @property
    def sasl(self) -> bool:
        """True when a user name and a password are sent."""
        return self.protocol.startswith("sasl")

    @property
    def tls(self) -> bool:
        """True when the connection is encrypted."""
        return self.protocol.endswith("ssl")

    def ssl_context(self) -> ssl.SSLContext | None:
        """For the connection; None without TLS.

        Raises:
            Refuse: a file cannot be read or is no PEM.
        """
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                # An empty password: OpenSSL must not ask for one on the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
        except OSError as error:  # ssl.SSLError too
            files = ", ".join(str(f) for f in (self.ca_file, self.cert_file, self.key_file) if f)
            raise Refuse(
                "broker.certificate",
                f"cannot use {files or 'the certificates of this system'}: {error}",
                "give readable PEM files; the key without a password",
            ) from error
        return context

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments of every aiokafka client."""
        options: dict[str, Any] = {"security_protocol": self.protocol.upper()}
        if self.tls:
            options["ssl_context"] = self.ssl_context()
        if self.sasl:
            options["sasl_mechanism"] = self.mechanism
            options["sasl_plain_username"] = self.username
            options["sasl_plain_password"] = self.password
        return options


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise Refuse(
            "broker.security", f"{name} = {value!r} is not known", f"give one of {', '.join(known)}"
        )


PLAINTEXT = Security()
