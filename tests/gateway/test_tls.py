import asyncio
import ssl
import subprocess
import warnings

import aiohttp
import certificates
import pytest

from streamapp.cli.checks import _port
from streamapp.cli.up import _connector
from streamapp.core.config import Settings, gateway_url
from streamapp.core.errors import Refuse
from streamapp.core.tls import client_context
from streamapp.gateway import GatewayConfig
from streamapp.gateway.tls import ServerTls
from streamapp.screen.summary import read_numbers


@pytest.fixture
def made(tmp_path):
    """``made("name")``: the (certificate, key) of that name."""

    def make(name="server"):
        pair = certificates.make(tmp_path, name)
        if pair is None:
            pytest.skip("openssl: not on this machine")
        return pair

    return make


def trusting(chain, *own):
    context = ssl.create_default_context(cafile=chain)
    if own:
        context.load_cert_chain(*own)
    return context


async def health(gate, context, name="127.0.0.1"):
    """The certificate's name, and the version of TLS, when the gateway answers."""
    port = int(gate.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=name
    )
    try:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        if not (await reader.read()).startswith(b"HTTP/1.1 200 "):
            raise ConnectionError
        subject = dict(part[0] for part in writer.get_extra_info("peercert")["subject"])
        return subject["commonName"], writer.get_extra_info("ssl_object").version()
    finally:
        writer.close()


async def test_the_gateway_speaks_tls(start, made):
    chain, key = made()
    gate = await start(cert_file=chain, key_file=key)
    assert gate.url.startswith("https://")
    async with gate.http.post(gate.url + "/ingest", json={"a": 1}, ssl=trusting(chain)) as answer:
        assert (answer.status, (await answer.json())["status"]) == (200, "received")
    assert await health(gate, trusting(chain)) == ("server", "TLSv1.3")
    with pytest.raises(ssl.SSLCertVerificationError):  # who does not know it
        await health(gate, ssl.create_default_context())


@pytest.mark.parametrize(("version", "taken"), [("1_1", False), ("1_2", True), ("1_3", True)])
async def test_nothing_below_tls_1_2_is_spoken(start, made, version, taken):
    chain, key = made()
    gate = await start(cert_file=chain, key_file=key)
    context = trusting(chain)
    context.set_ciphers("ALL:@SECLEVEL=0")  # else this side would not even ask
    with warnings.catch_warnings(action="ignore"):  # that one is old
        context.minimum_version = ssl.TLSVersion[f"TLSv{version}"]
        context.maximum_version = ssl.TLSVersion[f"TLSv{version}"]
    if taken:
        assert await health(gate, context) == ("server", f"TLSv{version.replace('_', '.')}")
    else:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await health(gate, context)


async def test_who_speaks_no_tls_is_hung_up_on(start, made):
    chain, key = made()
    gate = await start(cert_file=chain, key_file=key, headers_s_max=0.3)
    address = gate.url.removeprefix("https://").split(":")
    for said in (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"", b"\x16\x03\x01"):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(said)
        assert b"HTTP/1.1" not in await reader.read()  # a handshake that stalls ends, too
        writer.close()
    assert await health(gate, trusting(chain))


async def test_mutual_tls_takes_clients_of_the_named_authority_only(start, made):
    chain, key = made()
    ours, our_key = made("ours")
    other, other_key = made("other")
    gate = await start(cert_file=chain, key_file=key, client_ca_file=ours)
    assert await health(gate, trusting(chain, ours, our_key))
    for context in (trusting(chain), trusting(chain, other, other_key)):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await health(gate, context)
    assert gate.producer.records == []


async def test_a_renewed_certificate_is_served_without_a_restart(start, made, caplog):
    chain, key = made()
    newer, newer_key = made("newer")
    gate = await start(cert_file=chain, key_file=key)
    both = trusting(chain)
    both.load_verify_locations(newer)
    assert (await health(gate, both))[0] == "server"
    newer.replace(chain)  # between the two renames they do not fit each other
    assert (await health(gate, both))[0] == "server"
    assert "stays as it was" in caplog.text
    newer_key.replace(key)
    assert (await health(gate, both))[0] == "newer"
    chain.unlink()
    assert (await health(gate, both))[0] == "newer"


def test_files_that_cannot_serve_are_refused_at_the_start(made, tmp_path):
    chain, key = made()
    _, other_key = made("other")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    absent = tmp_path / "absent.pem"
    for files in ((chain, other_key), (broken, key), (key, key), (absent, key), (chain, absent),
                  (chain, key, broken), (chain, key, absent)):  # fmt: skip
        with pytest.raises(Refuse) as refused:
            ServerTls(*files)
        assert refused.value.code == "gateway.certificate"
    for config in (
        GatewayConfig(cert_file=chain),
        GatewayConfig(key_file=key),
        GatewayConfig(client_ca_file=chain),
    ):
        with pytest.raises(Refuse, match="is set"):
            ServerTls.of(config)
    assert ServerTls.of(GatewayConfig()) is None


def test_a_key_with_a_password_asks_nobody(made, tmp_path):
    chain, key = made()
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "ec", "-aes128", "-passout", "pass:secret", "-in", key, "-out", locked],
        check=True, capture_output=True,
    )  # fmt: skip
    with pytest.raises(Refuse, match=r"locked\.key"):
        ServerTls(chain, locked)


async def test_clients_of_this_machine_trust_the_gateway_s_own_certificate(start, made):
    """Under any name; and nobody else's, also not that of who is called the same."""
    chain, key = made()
    settings = Settings(gateway_cert_file=chain, gateway_key_file=key)
    assert gateway_url(settings) == "https://127.0.0.1:9382"
    gate = await start(cert_file=chain, key_file=key)
    assert await health(gate, client_context(settings))
    impostor = made("other")
    gate = await start(cert_file=impostor[0], key_file=impostor[1])
    with pytest.raises(ssl.SSLCertVerificationError):
        await health(gate, client_context(settings))


async def test_clients_check_the_name_with_authorities_of_their_own(start, made):
    chain, key = made()
    settings = Settings(gateway_ca_file=chain)
    gate = await start(cert_file=chain, key_file=key)
    assert await health(gate, client_context(settings))
    with pytest.raises(ssl.SSLCertVerificationError):
        await health(gate, client_context(settings), name="elsewhere.example")


async def test_clients_of_this_machine_pass_mutual_tls(start, made):
    chain, key = made()
    files = {"cert_file": chain, "key_file": key, "client_ca_file": chain}
    gate = await start(**files)
    settings = Settings(**{f"gateway_{name}": path for name, path in files.items()})
    assert await health(gate, client_context(settings))


def test_what_clients_cannot_read_is_named(tmp_path):
    assert client_context(Settings()) is None
    for name in ("gateway_ca_file", "gateway_cert_file"):
        with pytest.raises(Refuse, match=r"absent\.pem"):
            client_context(Settings(**{name: tmp_path / "absent.pem"}))
    (tmp_path / "empty.pem").touch()
    for name in ("gateway_ca_file", "gateway_cert_file"):
        with pytest.raises(Refuse, match=r"empty\.pem"):
            client_context(Settings(**{name: tmp_path / "empty.pem"}))


async def test_up_and_doctor_see_a_gateway_that_speaks_tls(start, made):
    chain, key = made()
    gate = await start(cert_file=chain, key_file=key)
    port = int(gate.url.rpartition(":")[2])
    settings = Settings(gateway_port=port, gateway_cert_file=chain, gateway_key_file=key)
    async with aiohttp.ClientSession(connector=_connector(settings)) as http:
        assert (await read_numbers(http, settings)).ready["gateway"] is True
    found = await _port(settings, "gateway_port", "127.0.0.1")
    assert (found.status, found.detail) == ("ok", f"{port} is served by streamapp")
