"""What a Faust app says of its broker, for our own clients and in our own words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from streamapp.transport.security import Security, Ways


@dataclass(frozen=True, slots=True)
class FaustSecurity(Security):
    """What the app's ``broker_credentials`` and ``ssl_context`` say, as Faust tells its driver."""

    ways: ClassVar[Ways] = Ways(
        "give the app another broker",
        "check the app's broker_credentials",
        "give the app an ssl_context that trusts its authority",
        "give the app broker_credentials",
        "give the app an ssl_context whose certificate has not expired, of an authority it trusts",
    )

    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments of every aiokafka client."""
        return dict(self.options)


def security_of(app: Any) -> FaustSecurity:
    """Of an app on Kafka."""
    from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

    options = credentials_to_aiokafka_auth(app.conf.broker_credentials, app.conf.ssl_context)
    return FaustSecurity(options=options)


def joined(url: Any) -> str:
    """One URL of an app's several."""
    return ",".join(str(each) for each in url).replace(",kafka+batch://", ",")
