"""Keys go where Kafka's own clients send them."""

import pytest
from aiokafka.partitioner import murmur2 as theirs
from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.errors import Reject
from streamapp.transport.clients import Outgoing, TopicSpec
from streamapp.transport.routing import murmur2, partition_of, route


@given(st.binary(max_size=80))
def test_a_key_is_hashed_as_kafkas_clients_hash_it(key):
    assert murmur2(key) == theirs(key) & 0xFFFFFFFF


def test_keys_go_to_the_partitions_that_javas_client_chooses():
    # Utils.murmur2 of these is in Kafka's own UtilsTest.
    assert murmur2(b"21") == -973932308 & 0xFFFFFFFF
    assert murmur2(b"foobar") == -790332482 & 0xFFFFFFFF
    assert murmur2(b"a-little-bit-long-string") == -985981536 & 0xFFFFFFFF
    assert partition_of(b"21", 7) == (-973932308 & 0x7FFFFFFF) % 7
    assert partition_of(b"21", 1) == 0


@pytest.mark.parametrize(
    "header", [("n", "text"), (b"n", b"v"), ("n", None), ("n", 1), (None, b"")]
)
def test_a_header_that_a_log_cannot_give_back_is_refused(header):
    with pytest.raises(Reject, match="a header is str with bytes, not "):
        route(TopicSpec("t", 1, 1_000), Outgoing(b"v", None, [("good", b"v"), header]), 0)
