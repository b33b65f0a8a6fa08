"""Faust's own driver connects as our clients do."""

import ssl

import faust
import pytest
from machine import free_ports

from streamapp.agents.app import make_app
from streamapp.agents.log import log_of
from streamapp.core.errors import Retry
from streamapp.transport import Security


@pytest.fixture
def credentials_of(tmp_path):
    def credentials(security):
        app = make_app(
            "tested", "kafka+batch://h1:1,h2", tmp_path,
            web_bind="127.0.0.1", web_port=0, drain_s=1, security=security,
        )  # fmt: skip
        assert [url.host for url in app.conf.broker] == ["h1", "h2"]
        return app.conf.broker_credentials

    return credentials


def test_in_the_clear_there_are_none(credentials_of):
    assert credentials_of(None) is None
    assert credentials_of(Security()) is None


@pytest.mark.parametrize("protocol", ["sasl_plaintext", "sasl_ssl"])
def test_sasl(credentials_of, protocol):
    found = credentials_of(Security(protocol, "SCRAM-SHA-512", "ann", "s3cret"))
    assert isinstance(found, faust.SASLCredentials)
    assert (found.username, found.password) == ("ann", "s3cret")
    assert (found.mechanism.value, found.protocol.value) == ("SCRAM-SHA-512", protocol.upper())
    assert "s3cret" not in repr(found)


def test_tls(credentials_of):
    found = credentials_of(Security("ssl"))
    assert isinstance(found, faust.SSLCredentials)
    assert found.context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("scheme", ["kafka", "kafka+batch"])
async def test_somebody_s_own_app_is_told_of_what_it_set_itself(scheme):
    """It may know nothing of our settings."""
    app = faust.App("shop", broker=f"{scheme}://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(Retry) as silent:
        await log_of(app).admin().start()
    assert (
        silent.value.fix == "start it, or give the app another broker; nothing is lost by waiting"
    )
    assert "STREAMAPP_" not in str(silent.value)
