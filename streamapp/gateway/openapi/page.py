"""The document as one HTML page: no script, nothing from elsewhere."""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

import msgspec

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { background: var(--soft); padding: .6rem; overflow-x: auto; border-radius: 4px; }
details { border: 1px solid var(--line); border-radius: 4px; margin: .4rem 0; padding: 0 .8rem; }
summary { cursor: pointer; padding: .45rem 0; }
summary b { display: inline-block; min-width: 4.5rem; }
table { border-collapse: collapse; width: 100%; }
td, th { border-top: 1px solid var(--line); padding: .25rem .5rem .25rem 0; text-align: left;
  vertical-align: top; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; }
@media (max-width: 40rem) {
  body { overflow-wrap: anywhere; }
  table, tbody, tr, td, th { display: block; border: 0; }
}
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
#: The page may load nothing, send nothing, and stand in no frame.
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_REF = "#/components/schemas/"


def render(document: Mapping[str, Any]) -> str:
    """The page of an OpenAPI document of ours."""
    info = document["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1><p>{_text(info['description'])}</p>"
        + "".join(_body(document))
        + "</body></html>"
    )


def _body(document: Mapping[str, Any]) -> Iterator[str]:
    tags, errors = document["tags"], document["components"]["responses"]
    links = "".join(f'<a href="#{_anchor(tag["name"])}">{escape(tag["name"])}</a>' for tag in tags)
    yield f'<nav>{links}<a href="#types">Types</a><a href="/openapi.json">openapi.json</a></nav>'
    for tag in tags:
        name = tag["name"]
        yield f'<h2 id="{_anchor(name)}">{escape(name)}</h2><p>{_text(tag["description"])}</p>'
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if name in operation["tags"]:
                    yield _operation(method, path, operation, errors)
    yield '<h2 id="types">Types</h2>'
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield _type(name, schema)


def _operation(
    method: str, path: str, operation: Mapping[str, Any], errors: Mapping[str, Any]
) -> str:
    scopes = [scope for way in operation.get("security", ()) for scope in way["token"]]
    asked = f"<p>Scope: <code>{escape(', '.join(scopes))}</code></p>" if scopes else ""
    about = f"<p>{_text(operation['description'])}</p>" if "description" in operation else ""
    body = operation.get("requestBody")
    return (
        f'<details id="{escape(operation["operationId"])}"><summary><b>{method.upper()}</b> '
        f"<code>{escape(path)}</code> {_text(operation['summary'])}</summary>{about}{asked}"
        + _parameters(operation.get("parameters", ()))
        + (f"<h3>Body</h3>{_contents(body['content'])}" if body else "")
        + f"<h3>Answers</h3>{_replies(operation['responses'], errors)}</details>"
    )


def _parameters(parameters: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (
            f"<code>{escape(each['name'])}</code>",
            escape(each["in"]) + (", required" if each["required"] else ""),
            f"{_text(each['description'])} {_schema(each['schema'])}",
        )
        for each in parameters
    ]
    return f"<h3>Parameters</h3>{_table(rows)}" if rows else ""


def _contents(contents: Mapping[str, Any]) -> str:
    rows = [
        (f"<code>{escape(media)}</code>", _schema(content["schema"]) + _example(content))
        for media, content in contents.items()
    ]
    return _table(rows)


def _replies(replies: Mapping[str, Any], errors: Mapping[str, Any]) -> str:
    """Each answer that says something of its own, then the statuses of the usual errors."""
    rows, usual = [], []
    for status, reply in replies.items():
        if "$ref" in reply:
            name = reply["$ref"].rpartition("/")[2]
            usual.append((status, next(iter(errors[name]["content"].values()))["schema"]))
            continue
        told = _text(reply["description"])
        for name, header in reply.get("headers", {}).items():
            told += f"<br><code>{escape(name)}</code>: {_text(header['description'])}"
        rows.append((f"<b>{status}</b>", told + _contents(reply.get("content", {}))))
    if usual:
        rows.append((", ".join(status for status, _ in usual), _schema(usual[0][1])))
    return _table(rows)


def _type(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        (
            f"<code>{escape(field)}</code>",
            "required" if field in required else "",
            f"{_schema(of)} {_text(of.get('description', ''))}",
        )
        for field, of in schema.get("properties", {}).items()
    ]
    about = _text(schema.get("description", ""))
    return (
        f'<details id="{_anchor(name)}"><summary><b>{escape(name)}</b></summary><p>{about}</p>'
        f"{_table(rows)}</details>"
    )


def _schema(schema: Mapping[str, Any]) -> str:
    """What a value is, in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF)
        return f'<a href="#{_anchor(name)}">{escape(name)}</a>'
    if "anyOf" in schema:
        return " or ".join(_schema(each) for each in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(f"<code>{_json(each)}</code>" for each in schema["enum"])
    if "const" in schema:
        return f"<code>{_json(schema['const'])}</code>"
    kind = schema.get("type", "any JSON")
    told = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if kind == "array" and "items" in schema:
        return f"array of {_schema(schema['items'])}"
    limits = [
        f"{word} <code>{escape(str(schema[key]))}</code>"
        for key, word in _LIMITS.items()
        if key in schema
    ]
    return ", ".join([escape(told), *limits])


_LIMITS = {
    "format": "format",
    "contentEncoding": "in",
    "minimum": "at least",
    "maximum": "at most",
    "maxLength": "characters at most",
    "maxItems": "elements at most",
    "pattern": "as",
}


def _example(content: Mapping[str, Any]) -> str:
    if "example" not in content:
        return ""
    example = content["example"]
    text = example if isinstance(example, str) else _pretty(example)
    return f"<pre>{escape(text)}</pre>"


def _table(rows: Iterable[Iterable[str]]) -> str:
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>" if lines else ""


def _text(text: str) -> str:
    """Prose, with `code` as such."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))


def _pretty(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _json(value: Any) -> str:
    return escape(msgspec.json.encode(value).decode())


def _anchor(name: str) -> str:
    return escape(name.lower().replace(" ", "-"))
