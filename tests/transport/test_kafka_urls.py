"""URLs and security settings: what is taken, and what is refused with which words."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.errors import Refuse
from streamapp.transport import Security, open_admin, open_producer, open_reader
from streamapp.transport.kafka.address import hosts_of


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("kafka+batch://h", ["h:9092"]),
        ("kafka://h:1/", ["h:1"]),
        ("kafka+batch://h1:1,H2,h1:1", ["h1:1", "h2:9092"]),
        ("kafka+batch://[::1]:7,[fe80::1%eth0]", ["[::1]:7", "[fe80::1%eth0]:9092"]),
        ("kafka+batch://broker-1.example.com.:65535", ["broker-1.example.com.:65535"]),
    ],
)
def test_hosts(url, hosts):
    assert list(hosts_of(url)) == hosts


@pytest.mark.parametrize(
    "url",
    [
        "kafka+batch://", "kafka+batch://h:0", "kafka+batch://h:65536",
        "kafka+batch://h,", "kafka+batch://h:x", "kafka+batch://h/topic", "kafka+batch://h?acks=1",
        "kafka+batch://::1", "kafka+batch://h h", "kafka+batch://h:٣", "kafka+batch://-h",
        "kafka+batch://h;h", "kafka+batch://" + ",".join(f"h{n}" for n in range(65)),
    ],
)  # fmt: skip
def test_others_are_refused(url):
    with pytest.raises(Refuse) as refused:
        open_producer(url)
    assert refused.value.code == "broker.url"


@given(st.text(max_size=40))
def test_any_text_is_taken_or_refused(text):
    try:
        hosts = hosts_of(f"kafka+batch://{text}")
    except Refuse:
        return
    assert all(1 <= int(host.rpartition(":")[2]) <= 65535 for host in hosts)


@pytest.mark.parametrize("open_", [open_producer, open_reader, open_admin])
def test_a_password_in_a_url_is_refused_and_not_repeated(open_):
    with pytest.raises(Refuse) as refused:
        open_("kafka+batch://ann:s3cret@h:9092")
    assert refused.value.code == "broker.userinfo"
    assert "s3cret" not in str(refused.value)
    assert "STREAMAPP_BROKER_PASSWORD" in refused.value.fix


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"protocol": "tls"}, "'tls' is not known"),
        ({"protocol": "sasl_ssl", "username": "ann"}, "STREAMAPP_BROKER_PASSWORD"),
        ({"username": "ann", "password": "x"}, "sasl_ssl"),
        ({"ca_file": "ca.pem"}, "STREAMAPP_BROKER_SECURITY to ssl"),
        ({"protocol": "ssl", "cert_file": "c.pem"}, "belong together"),
        ({"mechanism": "GSSAPI"}, "SCRAM-SHA-256"),
    ],
)
def test_security_that_does_not_go_together_is_refused(options, word):
    with pytest.raises(Refuse, match=word):
        Security(**options)


def test_a_certificate_that_is_none_is_refused(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    for path in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises(Refuse, match="PEM") as refused:
            open_reader("kafka+batch://h", Security("ssl", ca_file=path))
        assert str(path) in refused.value.message


def test_tls_checks_certificate_and_host_name():
    context = Security("ssl").ssl_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_password_is_not_shown():
    assert "s3cret" not in repr(Security("sasl_ssl", username="ann", password="s3cret"))


def test_the_embedded_log_refuses_users_it_does_not_have(tmp_path):
    with pytest.raises(Refuse, match="no users"):
        open_reader(f"local://{tmp_path}", Security("sasl_ssl", username="a", password="b"))
    open_reader(f"local://{tmp_path}", Security())
