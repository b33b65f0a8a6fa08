"""Large attachments are kept once by content, atomically, and the event refers to them."""

import asyncio
import base64
import errno
import json
import os
import random
import tracemalloc
from hashlib import sha256
from pathlib import Path

import pytest
from aiohttp import FormData

from streamapp.core.clock import SYSTEM
from streamapp.core.errors import Halt, Retry
from streamapp.gateway.attachments import INLINE_BYTES_MAX, attachments_of
from streamapp.gateway.blobs import Cloud, Folder, sweep
from streamapp.gateway.forms import parts_of
from streamapp.gateway.problem import ProblemError

LARGE = random.Random(18).randbytes(64) * ((INLINE_BYTES_MAX // 64) + 1)
SMALL = b"\x89PNG small"
DIGEST = sha256(LARGE).hexdigest()


def coded(data):
    return base64.b64encode(data).decode()


@pytest.fixture
async def keeping(start, tmp_path):
    return await start(attachments_url=str(tmp_path / "kept"))


@pytest.fixture
def kept(tmp_path):
    """Names of what is kept, and of unfinished writes."""

    def names():
        return sorted(path.name for path in (tmp_path / "kept").rglob("*") if path.is_file())

    return names


def referred(gate, index=-1):
    return json.loads(gate.producer.values[index])["attachments"]


async def test_large_base64_is_kept_and_referred_to_and_small_stays(keeping, kept):
    event = {
        "message": "see",
        "attachments": [
            {"name": "a.bin", "content_type": "image/png", "data_base64": coded(LARGE)},
            {"name": "b.bin", "data_base64": coded(SMALL)},
        ],
    }
    status, _ = await keeping.post("/ingest", event)
    assert status == 200
    large, small = referred(keeping)
    assert large == {
        "name": "a.bin",
        "sha256": DIGEST,
        "bytes": len(LARGE),
        "content_type": "image/png",
        "url": f"/v1/attachments/{DIGEST}",
    }
    assert small == event["attachments"][1]
    assert kept() == [DIGEST]
    async with keeping.http.get(keeping.url + large["url"]) as answer:
        assert (answer.status, await answer.read()) == (200, LARGE)
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        tag = answer.headers["ETag"]
    async with keeping.http.get(
        keeping.url + large["url"], headers={"If-None-Match": tag}
    ) as again:
        assert again.status == 304


async def test_a_data_url_is_base64_too(keeping, kept):
    data = "data:image/gif;base64," + coded(LARGE)
    await keeping.post("/ingest", {"attachments": {"data": data}})
    assert referred(keeping)["content_type"] == "image/gif"
    assert kept() == [DIGEST]


async def test_other_bytes_of_the_event_stay_as_they_were(keeping):
    body = b'{ "n": 1.50, "attachments": [{"data":"%b"}] ,"z":null}' % coded(LARGE).encode()
    await keeping.post("/ingest", body)
    value = keeping.producer.values[-1]
    assert value.startswith(b'{ "n": 1.50, "attachments": [{"sha256":')
    assert value.endswith(b'}] ,"z":null}')


async def test_the_same_content_is_kept_once(keeping, kept):
    for name in ("a", "b"):
        await keeping.post("/ingest", {"attachments": [{"name": name, "data": coded(LARGE)}]})
    async with keeping.http.post(keeping.url + "/v1/attachments", data=LARGE) as answer:
        assert answer.status == 201
        assert answer.headers["Location"] == f"/v1/attachments/{DIGEST}"
        assert (await answer.json())["sha256"] == DIGEST
    assert kept() == [DIGEST]


async def test_large_text_that_is_no_base64_is_refused(keeping, kept):
    event = {"attachments": [{"data": "?" * len(LARGE) * 2}]}
    status, said = await keeping.post("/ingest", json.dumps(event).encode())
    assert (status, said["code"]) == (400, "event.attachment")
    assert "attachments[0].data" in said["error"]
    assert kept() == []


@pytest.mark.parametrize("lines", [True, False])
async def test_of_many_events_each_has_its_own(keeping, kept, lines):
    events = [
        {"message": "small"},
        {"message": "large", "attachments": [{"data": coded(LARGE)}]},
        {"message": "bad", "attachments": [{"data": "?" * len(LARGE) * 2}]},
    ]
    body = "\n".join(map(json.dumps, events)) if lines else json.dumps(events)
    media = "application/x-ndjson" if lines else "application/json"
    status, said = await keeping.post("/v1/events", body.encode(), headers={"Content-Type": media})
    assert status == 207
    assert [line["status"] for line in said["events"]] == ["received", "received", "rejected"]
    assert referred(keeping)[0]["sha256"] == DIGEST
    assert kept() == [DIGEST]


def form(event, **files):
    data = FormData()
    data.add_field("event", json.dumps(event), content_type="application/json")
    for name, content in files.items():
        data.add_field("file", content, filename=name, content_type="image/png")
    return data


@pytest.mark.parametrize("path", ["/ingest", "/v1/events"])
async def test_a_form_brings_files(keeping, kept, path):
    data = form({"message": "see"}, large=LARGE, small=SMALL)
    async with keeping.http.post(keeping.url + path, data=data) as answer:
        assert answer.status == 200, await answer.text()
    large, small = referred(keeping)
    assert (large["name"], large["sha256"], large["content_type"]) == ("large", DIGEST, "image/png")
    assert small == {
        "name": "small",
        "content_type": "image/png",
        "data_base64": coded(SMALL),
    }
    assert json.loads(keeping.producer.values[-1])["message"] == "see"
    assert kept() == [DIGEST]


@pytest.mark.parametrize("path", ["/ingest", "/v1/events"])
async def test_a_form_that_is_sent_again_has_another_boundary_and_is_the_same(keeping, path):
    answers = []
    for content in (LARGE, LARGE, LARGE[1:]):
        async with keeping.http.post(
            keeping.url + path, data=form({"message": "see"}, large=content),
            headers={"Idempotency-Key": "k"},
        ) as answer:  # fmt: skip
            answers.append(answer.status)
    assert answers == [200, 200, 422]
    ids = {keeping.producer.headers(n)["ce_id"] for n in range(2)}
    assert len(ids) == 1


PART = b'--b\r\nContent-Disposition: form-data; name="event"\r\n\r\n{}'


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("multipart/form-data", PART + b"\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", PART),
        ("multipart/form-data; boundary=b", PART + b"\r\n--b\r\nContent-Disp"),
        ("multipart/form-data; boundary=b", PART + b"\r\n" + PART + b"\r\n--b--"),
        ("multipart/form-data; boundary=b", b"--b\r\nname\r\n\r\n{}\r\n--b--"),
        ("multipart/form-data; boundary=b", b"--b--\r\n"),
        ("multipart/form-data; boundary=b", PART.replace(b"{}", b"[]") + b"\r\n--b--"),
        ("multipart/form-data; boundary=b", (PART + b"\r\n") * 65 + b"--b--"),
    ],
)
async def test_a_form_that_cannot_be_read_is_refused(keeping, kept, media, body):
    status, said = await keeping.post("/ingest", body, headers={"Content-Type": media})
    assert (status, said["code"]) == (400, "request.form")
    assert not keeping.producer.records
    assert kept() == []


def test_a_form_is_read_in_no_more_time_than_its_size_needs():
    """Python's reader of parameters takes the square of their number."""
    many = 'form-data; name="a"' + ";" * 17
    body = f"--b\r\nContent-Disposition: {many}\r\n\r\nx\r\n--b--".encode()
    with pytest.raises(ProblemError, match="parameters"):
        parts_of("multipart/form-data; boundary=b", body)
    with pytest.raises(ProblemError, match="parameters"):
        parts_of("multipart/form-data; boundary=b" + ";" * 17, body.replace(b";" * 17, b""))
    tracemalloc.start()
    try:
        with pytest.raises(ProblemError, match="more than 64 parts"):
            parts_of("multipart/form-data; boundary=b", b"--b\r\n" * 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


async def test_half_a_body_leaves_nothing(keeping, kept):
    head = b"POST /v1/attachments HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    _, writer = await asyncio.open_connection(*keeping.address)
    writer.write(head + b"x" * 600_000)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with asyncio.timeout(30):
        while keeping.gateway.life.requests or keeping.gateway.budget.bytes:
            await asyncio.sleep(0.01)
    assert kept() == []


async def test_a_full_disk_is_507_and_leaves_nothing(keeping, kept, monkeypatch):
    real = os.fsync

    def full(file):
        if Path(f"/proc/self/fd/{file}").resolve().parent.name == ".drafts":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file)

    monkeypatch.setattr(os, "fsync", full)
    event = {"attachments": [{"data": coded(LARGE)}]}
    status, said = await keeping.post("/ingest", event)
    assert (status, said["code"]) == (507, "attachment.full")
    assert str(Path.cwd().anchor + "tmp") not in json.dumps(said)
    assert kept() == []
    assert not keeping.producer.records
    monkeypatch.undo()
    status, _ = await keeping.post("/ingest", event)
    assert (status, kept()) == (200, [DIGEST])


async def test_all_together_have_a_limit(start, tmp_path, kept):
    gate = await start(
        attachments_url=str(tmp_path / "kept"), attachments_bytes_max=len(LARGE) + 10
    )
    for data, wanted in [(LARGE, 201), (LARGE[1:], 507), (b"tiny", 201)]:
        async with gate.http.post(gate.url + "/v1/attachments", data=data) as answer:
            assert answer.status == wanted
    assert len(kept()) == 2


@pytest.mark.parametrize("name", ["x", DIGEST.upper(), DIGEST, "..%2F..%2Fetc%2Fpasswd"])
async def test_what_is_not_there_is_404(keeping, name):
    status, said = await keeping.get(f"/v1/attachments/{name}")
    assert (status, said["code"] in {"attachment.unknown", "request.path"}) == (404, True), said


async def test_a_gateway_that_keeps_none_says_so(gate):
    async with gate.http.post(gate.url + "/ingest", data=form({"a": 1}, large=LARGE)) as answer:
        assert (answer.status, (await answer.json())["code"]) == (415, "attachment.none")


def test_what_is_damaged_is_not_handed_out(tmp_path):
    folder = Folder(tmp_path)
    digest = folder.put(b"content")
    path = tmp_path / digest[:2] / digest
    path.write_bytes(b"contens")
    with pytest.raises(Halt, match=digest):
        folder.read(digest)


async def test_one_that_is_damaged_stops_no_gateway_and_heals(keeping, tmp_path):
    _, kept = await keeping.post("/v1/attachments", b"content")
    path = tmp_path / "kept" / kept["sha256"][:2] / kept["sha256"]
    path.write_bytes(b"contens")
    status, said = await keeping.get(kept["url"])
    assert (status, said["code"]) == (500, "attachment.damaged")
    assert str(tmp_path) not in str(said)
    assert keeping.gateway.life.fault is None
    assert (await keeping.post("/v1/attachments", b"content"))[1] == kept
    async with keeping.http.get(keeping.url + kept["url"]) as answer:
        assert (answer.status, await answer.read()) == (200, b"content")


async def test_answers_that_nobody_reads_are_bounded_and_hinder_no_events(start, tmp_path):
    gate = await start(attachments_url=str(tmp_path), inflight_bytes_max=64 << 20)
    _, kept = await gate.post("/v1/attachments", bytes(12 << 20))
    reader, writer = await asyncio.open_connection(*gate.address, limit=1 << 10)
    writer.write(f"GET {kept['url']} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    status, said = await gate.get(kept["url"])
    assert (status, said["code"]) == (429, "gateway.busy")
    assert (await gate.post("/ingest", {"message": "hello"}))[0] == 200
    writer.transport.abort()
    async with asyncio.timeout(10):
        while True:
            async with gate.http.get(gate.url + kept["url"]) as answer:
                if answer.status == 200:
                    assert len(await answer.read()) == 12 << 20
                    return


@pytest.mark.parametrize("text", ["", '"%s",' % ("A" * 1_000_000)])
@pytest.mark.parametrize(
    ("form", "lines"), [('{"attachments":[%s]}', None), ("%s", True), ("[%s]", False)]
)
async def test_what_is_too_large_anyway_is_not_taken_apart(tmp_path, form, lines, text):
    attachments = attachments_of(str(tmp_path), 0, SYSTEM, event_bytes_max=1 << 20)
    between = "\n" if lines else ","
    body = (form % (text + '"attachments"' + f"{between}{{}}" * 1_300_000)).encode()
    tracemalloc.start()
    try:
        if lines is None:
            assert await attachments.lightened(body) is body
        else:
            assert await attachments.lightened_all(body, lines=lines) is body
        assert tracemalloc.get_traced_memory()[1] < len(body)
    finally:
        tracemalloc.stop()


def test_sweeping_takes_what_did_not_come_again(tmp_path):
    folder = Folder(tmp_path)
    old, renewed = folder.put(b"old"), folder.put(b"renewed")
    for digest in (old, renewed):
        os.utime(tmp_path / digest[:2] / digest, (0, 0))
    (tmp_path / ".drafts" / "killed").write_bytes(b"half")
    os.utime(tmp_path / ".drafts" / "killed", (0, 0))
    assert folder.put(b"renewed") == renewed
    assert [blob.sha256 for blob in sweep(folder, 3600)] == [old]
    assert (folder.read(old), folder.read(renewed)) == (None, b"renewed")
    assert not list((tmp_path / ".drafts").iterdir())
    assert [blob.sha256 for blob in folder.all()] == [renewed]


def test_an_object_store_keeps_them_too():
    cloud = Cloud("memory://attachments-test")
    digest = cloud.put(b"content")
    assert cloud.put(b"content") == digest
    assert cloud.read(digest) == b"content"
    assert [(blob.sha256, blob.size) for blob in cloud.all()] == [(digest, 7)]
    assert sweep(cloud, -1)[0].sha256 == digest
    assert cloud.read(digest) is None


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(Retry, match="attachments: "):
        Folder(tmp_path / "kept").put(b"x")
