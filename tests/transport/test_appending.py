"""A Produce request is the one that aiokafka writes, and its answer is read as aiokafka reads it."""

from io import BytesIO

import pytest
from aiokafka.protocol.produce import ProduceRequest, ProduceResponse_v5

from streamapp.transport.kafka.appending import Append

TOPIC, BATCH = "events.ré", b"batch" * 100


@pytest.mark.parametrize("version", range(3, 8))
def test_requests_and_answers_are_aiokafkas(version):
    found = []
    for request in (
        Append(TOPIC, 3, BATCH, 10_000),
        ProduceRequest(None, -1, 10_000, [(TOPIC, [(3, BATCH)])]),
    ):
        made = request.prepare({0: (0, version)})
        header = made.build_request_header(correlation_id=7, client_id="streamapp")
        found.append(header.encode() + made.encode())
    assert found[0] == found[1]


@pytest.mark.parametrize("version", [5, 6, 7])
def test_an_answer_says_code_and_offset(version):
    answer = ProduceResponse_v5([(TOPIC, [(3, 6, 1 << 40, -1, 5)])], 0).encode()
    made = Append(TOPIC, 3, BATCH, 10_000).prepare({0: (0, version)})
    frame = BytesIO(b"\0\0\0\7" + answer)
    assert made.parse_response_header(frame).correlation_id == 7
    ((topic, ((partition, code, offset, *_),)),) = made.RESPONSE_TYPE.decode(frame).topics
    assert (topic, partition, code, offset) == (TOPIC, 3, 6, 1 << 40)


def test_a_broker_that_knows_only_older_ones_gets_them():
    assert Append(TOPIC, 3, BATCH, 1).prepare({0: (0, 2)}).API_VERSION == 2
