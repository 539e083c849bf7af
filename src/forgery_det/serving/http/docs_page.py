"""`/docs`: the OpenAPI schema as one plain HTML page, without scripts and without anything from the net."""

from __future__ import annotations

from html import escape
from typing import Any

_METHODS = ("get", "post")


def render_docs(schema: dict[str, Any]) -> str:
    """Return the page.

    Args:
        schema: What `/openapi.json` says.

    Example:
        >>> page = render_docs({"info": {"title": "t", "version": "1"}, "paths": {"/x": {"get": {"summary": "<b>"}}}})
        >>> "GET /x" in page, "&lt;b&gt;" in page
        (True, True)
    """
    info = schema["info"]
    sections = [
        _operation(method, path, operations[method])
        for path, operations in schema["paths"].items()
        for method in _METHODS
        if method in operations
    ]
    title = escape(f"{info['title']} {info['version']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}: API</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head>'
        f"<body><h1>{title}</h1><p>{escape(info.get('summary', ''))}</p>"
        '<p>The same for programs: <a href="/openapi.json">openapi.json</a>. Examples: docs/serving.md.</p>'
        f"{''.join(sections)}</body></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    text = operation.get("description") or operation.get("summary", "")
    parts = [f"<h2>{method.upper()} {escape(path)}</h2><p>{escape(text)}</p>"]
    parameters = [
        f"<li><code>?{escape(entry['name'])}=</code> {escape(entry.get('description', ''))}</li>"
        for entry in operation.get("parameters", ())
    ]
    content = operation.get("requestBody", {}).get("content", {})
    parameters += [f"<li>body: <code>{escape(kind)}</code></li>" for kind in content]
    if parameters:
        parts.append(f"<ul>{''.join(parameters)}</ul>")
    rows = [
        f"<tr><td>{escape(status)}</td><td>{escape(answer.get('description', ''))}</td></tr>"
        for status, answer in operation.get("responses", {}).items()
    ]
    if rows:
        parts.append(f"<table><tr><th>status</th><th>meaning</th></tr>{''.join(rows)}</table>")
    return "".join(parts)
