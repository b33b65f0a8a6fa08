"""Who may come in at a test's broker, and what they may do there: certificates, listeners, ACLs."""

import subprocess
from typing import NamedTuple

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Int8, Int16, Int32, Schema, String

#: Users of the SASL listeners and their passwords; ``admin`` may do all, ``guest`` nothing.
USERS = {"admin": "admin-secret", "guest": "guest-secret"}
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

_AUTHORIZED = """
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:admin
"""
_SASL = """
listener.name.{name}.sasl.enabled.mechanisms={mechanisms}
listener.name.{name}.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required {users};
listener.name.{name}.scram-sha-256.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.{name}.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
"""
_TLS = """
listener.name.{name}.ssl.keystore.type=PEM
listener.name.{name}.ssl.keystore.location={pem}
"""
_MUTUAL = """
listener.name.mutual.ssl.truststore.type=PEM
listener.name.mutual.ssl.truststore.location={authority}
listener.name.mutual.ssl.client.auth=required
listener.name.mutual.ssl.principal.mapping.rules=RULE:^CN=(.*)$/$1/
"""


def listeners(*, sasl, authority):
    """Lines of the broker's settings for the listeners ``sasl``, ``tls``, ``sasltls``, ``mutual``.

    ``authority``: None for the first alone.
    """
    users = " ".join(f'user_{user}="{word}"' for user, word in USERS.items())
    text = _AUTHORIZED if sasl or authority else ""
    for name in ("sasl", "sasltls") if authority else ("sasl",):
        if sasl:
            text += _SASL.format(name=name, users=users, mechanisms=",".join(MECHANISMS))
    if authority:
        pem = authority.issue("127.0.0.1").both
        for name in ("tls", "sasltls", "mutual"):
            text += _TLS.format(name=name, pem=pem)
        text += _MUTUAL.format(authority=authority.pem)
    return text


class Issued(NamedTuple):
    """PEM files: a certificate, its key, and one that has both."""

    certificate: str
    key: str
    both: str


class Authority:
    """Issues certificates for 127.0.0.1 and localhost, by openssl."""

    def __init__(self, folder, name="authority"):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self.pem, self._key = folder, folder / f"{name}.pem", folder / f"{name}.key"
        _openssl("req", "-x509", *_NEW_KEY, "-days", "2", "-subj", f"/CN={name}",
                 "-keyout", self._key, "-out", self.pem)  # fmt: skip

    def issue(self, name, days=2):
        """One for ``CN=name``; with days below zero it has expired."""
        paths = [self._folder / f"{name}{days}.{kind}" for kind in ("pem", "key", "both", "csr")]
        certificate, key, both, asked = paths
        _openssl("req", "-new", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", asked,
                 "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")  # fmt: skip
        _openssl("x509", "-req", "-in", asked, "-CA", self.pem, "-CAkey", self._key,
                 "-CAcreateserial", "-copy_extensions", "copy", "-days", str(days),
                 "-out", certificate)  # fmt: skip
        both.write_text(key.read_text() + certificate.read_text())
        return Issued(certificate, key, both)


_NEW_KEY = ("-newkey", "rsa:2048", "-noenc")


def _openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


#: Numbers of the protocol, and the operations that tests allow.
_KINDS = {"topic": 2, "group": 3, "cluster": 4}
_OPERATIONS = {
    "read": 3, "write": 4, "create": 5, "delete": 6, "describe": 8, "describe_configs": 10,
    "idempotent_write": 12,
}  # fmt: skip
_LITERAL, _PREFIXED, _ALLOW = 3, 4, 3


class _Made(Response):
    API_KEY, API_VERSION = 30, 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("results", Array(("error_code", Int16), ("error_message", String("utf-8")))),
    )


class _Make(RequestStruct):
    API_KEY, API_VERSION = 30, 1
    RESPONSE_TYPE = _Made
    SCHEMA = Schema(
        (
            "creations",
            Array(
                ("kind", Int8),
                ("name", String("utf-8")),
                ("pattern", Int8),
                ("principal", String("utf-8")),
                ("host", String("utf-8")),
                ("operation", Int8),
                ("permission", Int8),
            ),
        )
    )


class _Allow(Request[_Make]):
    API_KEY = 30

    def __init__(self, creations):
        self._creations = creations

    def build(self, request_struct_class):
        return request_struct_class(self._creations)


async def allow(bootstrap, user, **rules):
    """Allow a user what each rule says: ``topic=[("events.*", "read", "write")]``.

    A name that ends in ``*`` stands for all that begin so, ``*`` alone for all.
    """
    creations = [
        (_KINDS[kind], *_pattern(name), f"User:{user}", "*", _OPERATIONS[operation], _ALLOW)
        for kind, each in rules.items()
        for name, *operations in each
        for operation in operations
    ]
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        answer = await client.send(client.get_random_node(), _Allow(creations))
        assert not any(code for code, _ in answer.results), answer
    finally:
        await client.close()


def _pattern(name):
    if name != "*" and name.endswith("*"):
        return name[:-1], _PREFIXED
    return name, _LITERAL
