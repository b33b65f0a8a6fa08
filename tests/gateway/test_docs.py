"""The page: all of the document, nothing from elsewhere, and nothing that a browser would refuse."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from gateway_thread import GatewayThread

from streamapp.gateway import openapi
from streamapp.gateway.app import GATEWAY
from streamapp.gateway.openapi import page

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Elements of a page, with a check that each is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text, self.style = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text.append(data)


@pytest.fixture(scope="module")
def document():
    with GatewayThread(token="s3cret") as gateway:
        return openapi.openapi(gateway.app[GATEWAY])


@pytest.fixture(scope="module")
def parsed(document):
    return Page(page.render(document))


def test_every_operation_type_and_scope_is_on_it(document, parsed):
    text = "".join(parsed.text)
    for path, methods in document["paths"].items():
        assert path in text
        for operation in methods.values():
            assert operation["summary"].replace("`", "") in text
            for way in operation.get("security", []):
                assert all(scope in text for scope in way["token"])
    for name in document["components"]["schemas"]:
        assert name in text


def test_links_lead_to_places_of_the_page(parsed):
    places = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert len(places) == len(set(places))
    links = [attrs["href"] for tag, attrs in parsed.elements if tag == "a"]
    assert {link for link in links if not link.startswith("#")} == {"/openapi.json"}
    assert {link[1:] for link in links if link.startswith("#")} <= set(places)


def test_it_needs_nothing_from_elsewhere(parsed):
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "form", "input", "base"}
    for _, attrs in parsed.elements:
        assert not {name for name in attrs if name.startswith("on") or name in {"src", "style"}}
    assert not re.search(r"url\(|@import|https?:", parsed.style)


def test_the_policy_allows_its_style_and_nothing_else(parsed):
    policy = page.HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    digest = base64.b64encode(hashlib.sha256(parsed.style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy


async def test_the_page_has_the_policy(gate):
    async with gate.http.get(gate.url + "/docs") as answer:
        for name, value in page.HEADERS.items():
            assert answer.headers[name] == value


def test_what_a_document_says_is_text(document):
    evil = "<script>alert(1)</script>"
    shown = Page(page.render({**document, "info": {**document["info"], "title": evil}}))
    assert "script" not in {tag for tag, _ in shown.elements}
