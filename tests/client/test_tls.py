"""Both clients against a gateway that speaks TLS."""

import ssl

import certificates
import pytest
from gateway_thread import GatewayThread

from streamapp.client import Patience, Refuse

QUICK = Patience(attempt_s=5, retry_s=1)


@pytest.fixture(scope="module")
def chain_and_key(tmp_path_factory):
    made = certificates.make(tmp_path_factory.mktemp("certificates"))
    if made is None:
        pytest.skip("TLS: no openssl on this machine")
    return made


@pytest.fixture(scope="module")
def gateway(chain_and_key):
    chain, key = chain_and_key
    with GatewayThread(cert_file=chain, key_file=key) as running:
        yield running


def test_a_trusted_gateway_is_sent_to(kind, gateway, chain_and_key):
    trusting = ssl.create_default_context(cafile=chain_and_key[0])
    with kind(gateway.url, patience=QUICK, tls=trusting) as client:
        assert gateway.url.startswith("https://")
        assert client.send_many(["hello"] * 3).accepted_count == 3
        assert client.retries == 0


def test_a_stranger_is_not(kind, gateway):
    with kind(gateway.url, patience=QUICK) as client, pytest.raises(Refuse) as told:
        client.send("hello")
    assert told.value.code == "client.certificate"
    assert "tls=" in told.value.fix
