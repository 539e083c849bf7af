"""The prompt of a picture, read from the ComfyUI workflow that made it.

A workflow is a graph of nodes saved as JSON. Prompts are strings in a node's widgets, or arrive over a link from a
string node, or sit inside a *subgraph definition* (a graph that other graphs use like a node). A recipe therefore does
not copy prompts: it stores where they are, as `<workflow member>#<node ref>`, and this module resolves the node ref.

    node ref = [DEFINITION_ID/]NODE_ID[:WIDGET]
    18                                          a node of the top graph
    c3c58f7e-2004-43ae-8b06-a956294bf7f4/227    a node of a subgraph definition
    25:1                                        exactly the second widget of a node, nothing followed or guessed

How the string is found without `:WIDGET`: a linked prompt input is followed to the string node that feeds it (also out
of a subgraph, to the node that uses it; string concatenations and replacements are carried out); otherwise it is the
first widget string of more than one word, because API nodes keep model names such as `kling-image-o1` in the same list;
otherwise the first string that is not empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from forgery_det.core.errors import SourceError

_PROMPT_INPUTS = ("prompt", "text", "t5xxl", "value", "string")
_OPERANDS = {  # string operations and their three inputs, in widget order
    "StringConcatenate": ("string_a", "string_b", "delimiter"),
    "StringReplace": ("string", "find", "replace"),
}
_STRING_NODES = frozenset({"PrimitiveNode", "PrimitiveString", "PrimitiveStringMultiline", "Reroute", *_OPERANDS})
_WIDGET_TYPES = frozenset({"STRING", "INT", "FLOAT", "BOOLEAN", "COMBO"})
_SWITCHED_OFF = frozenset({2, 4})  # node modes "never" and "bypass" of the editor
_SUBGRAPH_INPUT = -10  # the reserved id of the node that carries a subgraph's inputs
_MAX_HOPS = 32  # far above any real chain; stops at cycles in a damaged file

Node = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Graph:
    """One graph of a workflow: the top graph (`definition` is None) or a subgraph definition."""

    nodes: tuple[Node, ...]
    links: dict[int, tuple[int, int]]
    definition: dict[str, Any] | None

    def node(self, node_id: int) -> Node | None:
        return next((node for node in self.nodes if node.get("id") == node_id), None)


def read_prompt(workflow_bytes: bytes, node_ref: str) -> str:
    """The prompt string that a node of a ComfyUI workflow holds or is fed with.

    Args:
        workflow_bytes: The workflow JSON as saved by the editor (UTF-8), not the "API format".
        node_ref: `[DEFINITION_ID/]NODE_ID[:WIDGET]`, see the module's docstring.

    Returns:
        The prompt, stripped; never empty.

    Raises:
        SourceError: The bytes are not a workflow, the node is missing, or it holds no text.

    Example:
        >>> node = {"id": 6, "type": "CLIPTextEncode", "widgets_values": ["a red fox in snow"]}
        >>> read_prompt(json.dumps({"nodes": [node], "links": []}).encode(), "6")
        'a red fox in snow'
    """
    graphs = _graphs(workflow_bytes)
    definition_id, _, local = node_ref.rpartition("/")
    number, _, widget = local.partition(":")
    graph = graphs.get(definition_id)
    if graph is None:
        raise SourceError(f"Expected a subgraph definition {definition_id!r} of the workflow, got none ({node_ref}).")
    node = graph.node(int(number)) if number.isdecimal() else None
    if node is None:
        known = ", ".join(str(found.get("id")) for found in graph.nodes[:12])
        raise SourceError(f"Expected a node {number!r} in the workflow, got nodes {known} ({node_ref}).")
    text = (_widget_text(node, widget) if widget else _text_of(graphs, graph, node, _MAX_HOPS)).strip()
    if not text:
        raise SourceError(f"Expected a prompt in node {number} of type {node.get('type')!r}, got no text ({node_ref}).")
    return text


def _graphs(workflow_bytes: bytes) -> dict[str, _Graph]:
    """All graphs by definition id; the top graph is under the empty string."""
    try:
        workflow = json.loads(workflow_bytes)
    except ValueError as error:
        raise SourceError(
            f"Expected a ComfyUI workflow as JSON, got {len(workflow_bytes)} bytes that are not."
        ) from error
    if not isinstance(workflow, dict) or not isinstance(workflow.get("nodes"), list):
        raise SourceError("Expected a ComfyUI workflow with a list `nodes`, got JSON without one (API format?).")
    try:
        graphs = {"": _Graph(tuple(workflow["nodes"]), _links(workflow.get("links") or []), None)}
        for definition in (workflow.get("definitions") or {}).get("subgraphs", []):
            links = _links(definition.get("links") or [])
            graphs[definition["id"]] = _Graph(tuple(definition["nodes"]), links, definition)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise SourceError(f"Expected the layout of a saved ComfyUI workflow, got a damaged one ({error!r}).") from error
    return graphs


def _links(saved: list[Any]) -> dict[int, tuple[int, int]]:
    """Link id -> (origin node id, origin slot). Top graphs save links as lists, subgraphs as objects."""
    links: dict[int, tuple[int, int]] = {}
    for link in saved:
        if isinstance(link, dict):
            links[link["id"]] = (link["origin_id"], link["origin_slot"])
        else:
            links[link[0]] = (link[1], link[2])
    return links


def _text_of(graphs: dict[str, _Graph], graph: _Graph, node: Node, hops: int) -> str:
    """The string a node gives: joined, followed over its linked prompt input, or its own widget."""
    if hops == 0:
        raise SourceError(
            f"Expected a prompt within {_MAX_HOPS} links, got a longer chain or a cycle at node {node.get('id')}."
        )
    if node.get("type") in _OPERANDS:
        return _computed(graphs, graph, node, hops)
    inputs = node.get("inputs") or []
    if node.get("type") == "Reroute":
        linked = next((entry for entry in inputs if entry.get("link") is not None), None)
    else:
        linked = next(
            (e for n in _PROMPT_INPUTS for e in inputs if e.get("name") == n and e.get("link") is not None), None
        )
    if linked is None:
        return _own_text(node)
    return _follow(graphs, graph, node, linked["link"], hops)


def _follow(graphs: dict[str, _Graph], graph: _Graph, node: Node, link: int, hops: int) -> str:
    if link not in graph.links:
        raise SourceError(f"Expected link {link} of node {node.get('id')} in the workflow, got none.")
    origin_id, slot = graph.links[link]
    if origin_id == _SUBGRAPH_INPUT:
        return _from_outside(graphs, graph, node, slot, hops)
    origin = graph.node(origin_id)
    if origin is None or origin.get("type") not in _STRING_NODES:
        kind = None if origin is None else origin.get("type")
        raise SourceError(
            f"Expected node {node.get('id')} to be fed by a string node, got node {origin_id} of type {kind!r}; "
            "point the node ref at the node where the text was typed."
        )
    return _text_of(graphs, graph, origin, hops - 1)


def _from_outside(graphs: dict[str, _Graph], graph: _Graph, node: Node, slot: int, hops: int) -> str:
    """A subgraph's input: the value typed on the node that uses the subgraph, else the inner node's own text."""
    definition = graph.definition or {}
    inputs = definition.get("inputs", [])
    if slot >= len(inputs):
        raise SourceError(f"Expected subgraph input {slot} for node {node.get('id')}, got {len(inputs)} inputs.")
    name = inputs[slot]["name"]
    for outer, user in _users(graphs, definition.get("id", "")):
        entry = next((e for e in user.get("inputs") or [] if e.get("name") == name and e.get("link") is not None), None)
        if entry is not None:
            return _follow(graphs, outer, user, entry["link"], hops - 1)
        typed = _promoted_value(user, inputs, slot)
        if typed:
            return typed
    return _own_text(node)


def _users(graphs: dict[str, _Graph], definition_id: str) -> Iterator[tuple[_Graph, Node]]:
    """Nodes that use a definition, those that are switched on first."""
    users = [(graph, node) for graph in graphs.values() for node in graph.nodes if node.get("type") == definition_id]
    yield from sorted(users, key=lambda user: user[1].get("mode") in _SWITCHED_OFF)


def _promoted_value(user: Node, inputs: list[dict[str, Any]], slot: int) -> str:
    """The widget value on a subgraph's user: saved in the order of the definition's widget inputs.

    Newer files list `proxyWidgets` instead and keep the value in the inner node; then there is nothing to read here.
    """
    values = user.get("widgets_values")
    if (user.get("properties") or {}).get("proxyWidgets") or not isinstance(values, list):
        return ""
    position = sum(entry.get("type") in _WIDGET_TYPES for entry in inputs[:slot])
    value = values[position] if position < len(values) else ""
    return value if isinstance(value, str) else ""


def _computed(graphs: dict[str, _Graph], graph: _Graph, node: Node, hops: int) -> str:
    """The result of a concatenation or a replacement; an operand is a widget unless it is linked."""
    names = _OPERANDS[node["type"]]
    strings = [value if isinstance(value, str) else "" for value in _values(node)] + [""] * len(names)
    operands = dict(zip(names, strings, strict=False))
    for entry in node.get("inputs") or []:
        if entry.get("name") in operands and entry.get("link") is not None:
            operands[entry["name"]] = _follow(graphs, graph, node, entry["link"], hops)
    first, second, third = operands.values()
    if node["type"] == "StringReplace":
        return first.replace(second, third) if second else first
    return third.join(part for part in (first, second) if part)


def _widget_text(node: Node, widget: str) -> str:
    values = _values(node)
    value = values[int(widget)] if widget.isdecimal() and int(widget) < len(values) else None
    if not isinstance(value, str):
        raise SourceError(
            f"Expected a string in widget {widget!r} of node {node.get('id')}, got {value!r} of {len(values)} widgets."
        )
    return value


def _own_text(node: Node) -> str:
    strings = [value for value in _values(node) if isinstance(value, str) and value.strip()]
    return next((text for text in strings if len(text.split()) > 1), strings[0] if strings else "")


def _values(node: Node) -> list[Any]:
    values = node.get("widgets_values") or []
    return list(values.values()) if isinstance(values, dict) else list(values)
