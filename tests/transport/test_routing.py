"""Keys go where Kafka's own clients send them."""

from aiokafka.partitioner import murmur2 as theirs
from hypothesis import given
from hypothesis import strategies as st

from streamapp.transport.routing import murmur2, partition_of


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
