"""What the C extension takes has the row that ``core.event`` gives; the rest it leaves."""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import pytest
from scanning import BYTES_MAX, RANGE, assert_same, is_taken, left_of

from streamapp.core.errors import Refuse
from streamapp.core.slice import Record, Slice
from streamapp.topics._scan import scan
from streamapp.topics.columns import decode_plain
from streamapp.topics.enriched import Cover, Enriched, decode, encode
from streamapp.topics.wire import decode_slice

RICH = (
    '{ "id" : 12, "type":"T", "source":"/s","conversation":"c\\u00e9","conversation_id":"d","actor":null, '
    '"time":"2024-02-29T23:59:59.999999+14:00","duration_ms":1.5e2,"message":"a\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\ud83d\\ude00é😀",'
    '"text":"t","attachments":[ {"a":1,"\\u0062":[true,false,null]} ],"x":{"y":[-0.5E-3,[]],"":{}},"k\\u0022\\u000a\\u00e9":1}\n'
).encode()  # fmt: skip


def test_a_rich_event_is_taken_whole():
    assert is_taken(RICH, key=b"k", headers=[("ce_type", b"U"), ("other", b"\xff")])
    [row] = assert_same([Record(5, 7, b"k", RICH)]).rows.to_pylist()
    assert row["text"] == 'a"\\/\b\f\n\r\tA😀é😀'
    assert row["conversation"] == "cé"
    assert json.loads(row["payload"])['k"\né'] == 1


@pytest.mark.parametrize("cut", [slice(None, -1), slice(1, None)])
def test_a_part_of_an_event_is_none(cut):
    parts = [RICH]
    while parts[-1][cut]:
        parts.append(parts[-1][cut])
    for part in parts:
        assert_same([Record(0, 7, None, part)])


@pytest.mark.parametrize("byte", [*range(256)])
def test_every_byte_in_a_string_and_outside(byte):
    one = bytes([byte])
    left_of(
        b'{"message":"' + one + b'"}', b'{"message":"1234567' + one + b'"}', b'{"x":' + one + b"}", one + b"{}",
        b"{}" + one, b'{"message":"\\' + one + b'"}', b'{"' + one + b'":1}', b'{"\\' + one + b'":1}', b'{"x":[1' + one + b"]}",
        b'{"message":"\\u00' + one + b'1"}', b'{"message":"\xed' + one + b'\x80"}', b'{"message":"\xe0' + one + b'\x80"}',
        b'{"message":"\xf0' + one + b'\x80\x80"}', b'{"message":"\xf4' + one + b'\x80\x80"}', b'{"message":"' + one + b'\x80"}',
        b'{"message":"' + one + b'\x80\x80"}', b'{"message":"' + one + b'\x80\x80\x80"}',
    )  # fmt: skip


@pytest.mark.parametrize("text", [
    "\\u0000", "\\u001f", "\\u0020", "\\u007f", "\\u0080", "\\u07ff", "\\u0800", "\\uffff", "\\ud7ff", "\\ue000", "\\uABcd",
    "\\ud800\\udc00", "\\udbff\\udfff", "\\uD83D\\uDE00", "\\u0022", "\\u005c", "\\/", "\\u000a\\u000b\\u0008\\u0009\\u000c\\u000d",
])  # fmt: skip
def test_every_escape_of_text_and_of_keys(text):
    assert is_taken(f'{{"message":"{text}","x":"{text}","{text}":"{text}","id":"1234567{text}"}}')


@pytest.mark.parametrize("text", [
    "\\ud800", "\\udc00", "\\ud800x", "\\ud800\\u0041", "\\ud800\\ud800", "\\udc00\\ud800", "\\ud83d\\ude0", "\\u12", "\\u12g4",
    "\\U0041", "\\x41", "\\'", "\\", "\\u", "\\ud83d\\", "\\ud83d\\u",
])  # fmt: skip
def test_what_is_no_escape_or_half_a_character_is_left(text):
    for value in (f'{{"message":"{text}"}}', f'{{"x":"{text}"}}', f'{{"{text}":1}}'):
        assert not is_taken(value)


@pytest.mark.parametrize("value", [
    '{"a":1,"a":1}', '{"a":1,"\\u0061":2}', '{"\\u0061":1,"a":2}', '{"id":"x","\\u0069d":"y"}', '{"x":{"a":1,"a":2}}',
    '{"x":[{"a":":"},{"a":1,"a":":"}]}', '{"x":{"\\u0061":1,"a":"\\u003a"}}', '{"attachments":{"a":1,"a":2}}',
    '{"a\\u003ab":1,"a:b":2}', '{"":1,"":2}', '{"\\n":1,"\\u000A":2}', '{"\\ud83d\\ude00":1,"😀":2}',
])  # fmt: skip
def test_a_repeated_key_is_never_taken(value):
    assert not is_taken(value)
    [reject] = assert_same([Record(0, 7, None, value.encode())]).rejects
    assert reject.code == "event.duplicate_key"


def test_an_escaped_key_names_its_field():
    assert is_taken('{"\\u0069d":"i","mess\\u0061ge":"m","tex\\u0074":"t","\\u0074ime":0}')


def test_of_two_spellings_the_first_counts_even_when_it_is_null():
    assert is_taken('{"message":null,"text":"t","conversation":"c","conversation_id":"d"}')


def nested(depth, opening='{"any":', inside="1", closing="}"):
    return opening * depth + inside + closing * depth


@pytest.mark.parametrize("depth", range(59, 68))
def test_depth(depth):
    inner = depth - 1
    for value in (nested(depth), '{"x":' + nested(inner, "[", "", "]") + "}", '{"attachments":' + nested(inner, "[") + "}",
                  '{"attachments":' + nested(inner, "[", "1", "]") + "}", nested(depth, '{"any":[', "1", "]}")):  # fmt: skip
        taken = is_taken(value)
        assert not taken or depth <= 62
    assert is_taken(nested(depth)) == (depth <= 62)


def test_no_depth_costs_the_stack():
    for opening in ("[", '{"x":', '[{"x":'):
        left_of((opening * 900).encode(), ('{"x":' + opening * 400).encode())


@pytest.mark.parametrize("number", [
    "0", "-0", "-1", "1.5", "-0.0", "1e5", "1E+5", "1e-5", "1e00005", "9" * 30, "9" * 300, "0." + "1" * 299, "1e299", "1e-299",
    "1234567890.12345678901234567890e10",
])  # fmt: skip
def test_a_number_in_range_is_kept_as_it_was_written(number):
    assert is_taken(f'{{"x":{number},"y":[{number}]}}')
    assert assert_same([Record(0, 7, None, f'{{"x":{number}}}'.encode())]).strings("payload") == [
        f'{{"x":{number}}}'
    ]


@pytest.mark.parametrize("number", [
    "1e999", "1e400", "-1e309", "1e301", "1e-999", "9" * 301, "9" * 400, "9" * 4400, "0." + "0" * 300 + "1", "1e99999999999999999999",
    "1e-99999999999999999999", "01", "-", "-a", "1.", ".5", "1.e5", "1e", "1e+", "+1", "0x1", "NaN", "Infinity", "-Infinity", "1_0",
    "00", "1a", "--1", "1.5.5", "1e5e5", "tru", "truex", "nul", "None",
])  # fmt: skip
def test_a_number_that_may_be_out_of_range_is_left(number):
    assert not is_taken(f'{{"x":{number}}}')


@pytest.mark.parametrize("value", [
    '{"id":1}', '{"id":1234567890123456789}', '{"message":42,"actor":7}', '{"time":1795336200123}', '{"time":0}', '{"time":null}',
    '{"id":null,"type":null,"source":null,"time":null,"duration_ms":null,"attachments":null,"message":null,"actor":null}',
    '{"id":"","type":"","source":"","actor":"","message":"","conversation":""}', "{}", " {\n}\t", '\r{"x"\n:\t1 , "y":[ 1 , 2 ] }',
    '{"duration_ms":0}', '{"duration_ms":0.30000000000000004}', '{"duration_ms":1e-05}', '{"duration_ms":1234.5678901234567}',
    '{"duration_ms":1e10}', '{"duration_ms":16777217}', '{"x":[]}', '{"x":{},"y":[{}]}', '{"attachments":[]}',
])  # fmt: skip
def test_what_producers_send_is_taken(value):
    assert is_taken(value, key=b"k")


@pytest.mark.parametrize("value", [
    '{"id":1.0}', '{"id":true}', '{"id":{"a":1}}', '{"id":[]}', '{"id":-1}', '{"message":-0}', '{"message":1e2}', '{"time":"now"}',
    '{"time":-1}', '{"time":1e12}', '{"time":4294967296000}', '{"time":253402300800000}', '{"time":true}', '{"time":""}',
    '{"time":"2026\\u002d11-22T09:30:00Z"}', '{"duration_ms":-1}', '{"duration_ms":"1"}', '{"duration_ms":true}', '{"duration_ms":1e39}',
    '{"duration_ms":12345678901234567890}', '{"duration_ms":1e-23}', '{"duration_ms":[]}', "[]", "7", "null", '"a"', "{} {}", "{},",
    '{"a":1', '{"a"}', '{"a":}', '{"a":1,}', "{,}", '{"x":[1,]}', '{"x":[,]}', '{"x":[1 2]}', "{a:1}", "{'a':1}", '\ufeff{"a":1}', "\v{}", "",
])  # fmt: skip
def test_what_is_unusual_is_left(value):
    assert not is_taken(value)


def test_an_object_of_64_members_is_the_largest_taken():
    for count in (63, 64, 65):
        body = {f"k{n}": n for n in range(count)}
        assert is_taken(json.dumps(body)) == (count <= 64)
        assert is_taken(json.dumps({"x": body})) == (count <= 64)


def test_many_open_keys_and_long_escaped_ones_are_left():
    wide = {f"k{n}": n for n in range(60)}
    deep = wide
    for _ in range(12):
        deep = wide | {"next": deep}
    assert len(json.dumps(deep)) > BYTES_MAX
    records = [Record(0, 7, None, json.dumps(deep).encode())]
    assert decode_plain(records, "t", 0, event_bytes_max=10**6)[1] == records
    assert is_taken('{"' + "\\u0061" * 600 + '":1}')
    assert not is_taken('{"' + "\\u0061" * 700 + '":1}')


@pytest.mark.parametrize("field", ["id", "type", "source", "conversation", "actor"])
def test_the_limit_of_keys_is_in_characters(field):
    for one in ("a", "é", "日", "😀", "\\n", "\\u00e9", "\\ud83d\\ude00"):
        if len(one) * 513 + 20 < BYTES_MAX:
            assert is_taken(f'{{"{field}":"{one * 512}"}}')
            assert not is_taken(f'{{"{field}":"{one * 513}"}}')


@pytest.mark.parametrize("one", [b"a", "é".encode(), "😀".encode()])
def test_the_limit_of_record_keys_and_headers_is_in_characters(one):
    for count in (512, 513):
        assert is_taken("{}", key=one * count)
        for name in ("ce_id", "ce_type", "ce_source"):
            assert is_taken("{}", headers=[(name, one * count)]) == (count == 512)


@pytest.mark.parametrize(("taken", "headers"), [
    (True, []), (True, [("ce_id", b"i"), ("ce_id", b"j")]), (True, [("ce_id", b"i"), ("ce_id", None)]), (True, [("ce_id", b"")]),
    (True, [("ce_time", b"2026-01-01T00:00:00Z")]), (True, [("ce_specversion", b"1.0"), ("ce_x", b"y")]), (True, [("x", b"\xff")]),
    (True, (("ce_type", b"T"),)), (True, [("ce_source", "ção".encode())]), (True, [("cé", b"\xff")]),
    (False, [("ce_id", b"\xff")]), (False, [("ce_x", b"\xff")]), (False, [("ce_", b"\xff")]), (False, [("ce_time", b"")]),
    (False, [("ce_time", b"now")]), (False, [("ce_time", b"1795336200123")]), (False, [("ce_id", b"x" * 513)]),
])  # fmt: skip
def test_headers(taken, headers):
    assert is_taken('{"id":"e","time":0}', key=b"j", headers=headers) == taken


@pytest.mark.parametrize("headers", [[["ce_id", b"i"]], [("ce_id", bytearray(b"i"))], iter(())])
def test_records_of_another_make_are_left(headers):
    one = Record(0, 7, None, b"{}", headers)
    assert decode_plain([one], "t", 0, event_bytes_max=9)[1] == [one]


def test_values_of_another_make_are_left():
    records = [
        Record(0, 7, None, bytearray(b"{}")),
        Record(1, 7, memoryview(b"k"), b"{}"),
        Record(2, 7, None, None),
    ]
    assert decode_plain(records, "t", 0, event_bytes_max=9)[1] == records


@pytest.mark.parametrize(
    "timestamp", [2**63 - 1, -(2**63), 2**63, 253_402_300_800_000, -62_135_596_800_001]
)
def test_a_timestamp_that_no_calendar_has_is_left(timestamp):
    assert not is_taken("{}", timestamp=timestamp)


def test_a_value_of_just_the_limit_is_taken():
    assert is_taken('{"message":"' + "x" * (BYTES_MAX - 14) + '"}')
    assert not is_taken('{"message":"' + "x" * (BYTES_MAX - 13) + '"}')


def test_rows_stay_in_offset_order_whoever_decodes_them():
    shapes = [b'{"message":"a"}', b'{"message":"b","x":-0}', b"no", b'{"text":-5}']
    batch = assert_same([Record(3 * n, n, None, shapes[n % 4]) for n in range(1200)])
    assert len(batch) == 900
    assert batch.offsets().tolist() == [3 * n for n in range(1200) if n % 4 != 2]


def test_columns_outlive_their_batch():
    """Arrow may keep one of them alone."""
    texts = decode_slice(
        Slice(RANGE, [Record(0, 7, None, b'{"message":"' + b"x" * 900 + b'"}')]),
        event_bytes_max=BYTES_MAX,
    ).column("text")
    assert texts.to_pylist() == ["x" * 900]


@pytest.mark.parametrize("time", [
    "2026-11-22T09:30:00Z", "2026-11-22T09:30:00.1Z", "2026-11-22T09:30:00.123Z", "2026-11-22T09:30:00.12345+00:00",
    "2026-11-22T09:30:00.123456-11:30", "2026-11-22T09:30:00.1234567Z", "2026-11-22T09:30:00.999999999+14:00",
    "2026-11-22T09:30:00", "2026-11-22 09:30:00.123", "2024-02-29T23:59:59+23:59", "0002-01-01T00:00:00-23:59",
    "9998-12-31T23:59:59Z", "1969-12-31T23:59:59.999999Z", "2000-02-29T00:00:00Z",
])  # fmt: skip
def test_a_time_as_the_runtimes_write_it_is_taken(time):
    assert is_taken(f'{{"time":"{time}"}}', headers=[("ce_time", time.encode())])


@pytest.mark.parametrize("time", [
    "2026-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2026-00-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-04-31T00:00:00Z",
    "2026-01-00T00:00:00Z", "2026-11-22T24:00:00Z", "2026-11-22T09:60:00Z", "2026-11-22T09:30:60Z", "2026-11-22T09:30:00+24:00",
    "2026-11-22T09:30:00+01:60", "2026-11-22T09:30:00.Z", "2026-11-22T09:30:00.1234567890Z", "2026-11-22T09:30:00z",
    "2026-11-22T09:30:00ZZ", "2026-11-22T09:30:00+0100", "2026-11-22T09:30:00+01", "2026-11-22T09:30", "2026-11-22", "20261122T093000Z",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0000-01-01T00:00:00Z", "2026-W47-7T09:30:00Z", "-026-11-22T09:30:00Z",
])  # fmt: skip
def test_a_time_that_is_none_or_unusual_is_left(time):
    assert not is_taken(f'{{"time":"{time}"}}')
    assert not is_taken("{}", headers=[("ce_time", time.encode())])


def test_a_null_header_is_no_attribute():
    """Kafka has them; a reject keeps them, and the enriched record can be read again."""
    headers = [("ce_id", None), ("ce_type", b"T"), ("other", None)]
    records = [Record(i, 1, None, b'{"message":"m"}', headers) for i in range(3)]
    batch = assert_same([*records, Record(3, 1, None, b"no", headers)])
    assert batch.strings("type") == ["T"] * 3
    value, said = encode(
        Enriched(Cover(topic="t", partition=0, first=0, next=4), batch.rows, (), batch.rejects)
    )
    [reject] = decode(Record(0, 0, None, value, said)).rejects
    assert list(reject.headers) == headers


def test_a_missing_extension_is_told_with_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "streamapp.topics._scan", None)
    monkeypatch.delitem(sys.modules, "streamapp.topics.columns")
    with pytest.raises(Refuse) as caught:
        import_module("streamapp.topics.columns")
    assert caught.value.code == "topics.not_built"
    assert "pip install" in caught.value.fix


def test_the_lists_given_to_the_extension_must_be_of_one_length():
    with pytest.raises(ValueError, match="as many keys"):
        scan((b"{}",), (), ((),), (0,), (0,), b"t", b"t-0-", 10)
    with pytest.raises(TypeError):
        scan([b"{}"], (None,), ((),), (0,), (0,), b"t", b"t-0-", 10)


def test_what_is_borrowed_is_given_back():
    value, key, header = (b"%d" % time.monotonic_ns() for _ in range(3))
    headers = [("ce_id", header), ("ce_id", header), ("ce_time", b"now"), ("ce_type", header)]
    records = [Record(n, 7, key, value, headers[: n % 5]) for n in range(50)]
    before = [sys.getrefcount(one) for one in (value, key, header)]
    for size in (1, 50):
        decode_plain(records[:size], "t", 0, event_bytes_max=100)
    assert [sys.getrefcount(one) for one in (value, key, header)] == before


def test_rows_that_arrow_does_not_take_are_freed():
    """A leak of 2 MB each time would be seen."""
    value = b'{"message":"' + b"x" * 10**6 + b'"}'
    before = resident_mb()
    for _ in range(200):
        scan((value,), (None,), ((),), (0,), (7,), b"t", b"t-0-", 10**7)
        decode_plain([Record(0, 7, None, value)], "t", 0, event_bytes_max=10**7)
    assert resident_mb() - before < 100


def resident_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_threads_may_decode_at_once():
    """A large slice is read without the interpreter lock."""
    records = [Record(n, 7, b"k", RICH, [("ce_type", b"%d" % n)]) for n in range(500)]
    expected = decode_slice(Slice(RANGE, records), event_bytes_max=BYTES_MAX).rows
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(
            lambda _: decode_slice(Slice(RANGE, records), event_bytes_max=BYTES_MAX), range(40)
        )
        assert all(batch.rows.equals(expected) for batch in found)
