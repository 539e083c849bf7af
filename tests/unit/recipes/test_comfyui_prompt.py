"""Prompts are found where the editor saves them: in widgets, behind links, inside and outside of subgraphs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from forgery_det.core.errors import SourceError
from forgery_det.recipes.comfyui_prompt import read_prompt

LAMP = "a brass lamp on a wooden desk"
DEFINITION = "11111111-2222-3333-4444-555555555555"


def saved(nodes: list[dict[str, Any]], links: list[Any] | None = None, subgraphs: list[Any] | None = None) -> bytes:
    workflow = {"nodes": nodes, "links": links or [], "definitions": {"subgraphs": subgraphs or []}}
    return json.dumps(workflow).encode()


def node(number: int, kind: str, *widgets: Any, **inputs: int | None) -> dict[str, Any]:
    entries = [{"name": name, "link": link, "widget": {"name": name}} for name, link in inputs.items()]
    return {"id": number, "type": kind, "widgets_values": list(widgets), "inputs": entries}


def subgraph(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """A definition with the inputs width, text, seed; link 70 carries `text` to an inner node."""
    inputs = [{"name": "width", "type": "INT"}, {"name": "text", "type": "STRING"}, {"name": "seed", "type": "INT"}]
    links = [{"id": 70, "origin_id": -10, "origin_slot": 1, "target_id": 3, "target_slot": 0}]
    return {"id": DEFINITION, "inputs": inputs, "nodes": nodes, "links": links}


class TestWidgets:
    def test_text_of_an_encoder_node(self) -> None:
        assert read_prompt(saved([node(6, "CLIPTextEncode", LAMP)]), "6") == LAMP

    def test_model_name_before_the_prompt_is_not_the_prompt(self) -> None:
        assert read_prompt(saved([node(2, "SomeApiNode", "image-model-3", LAMP, 7, "randomize")]), "2") == LAMP

    def test_short_prompt_before_a_long_system_prompt(self) -> None:
        workflow = saved([node(12, "SomeApiNode", "colour this", "model-1", "You are an engine. " * 20)])
        assert read_prompt(workflow, "12") == "colour this"

    def test_one_word_prompt(self) -> None:
        assert read_prompt(saved([node(1, "CLIPTextEncode", "", "lamp")]), "1") == "lamp"

    def test_widgets_saved_as_object_and_white_space(self) -> None:
        saved_node = {"id": 4, "type": "PrimitiveStringMultiline", "widgets_values": {"value": f"\n {LAMP} \n"}}
        assert read_prompt(saved([saved_node]), "4") == LAMP

    def test_named_widget_overrules_the_guess(self) -> None:
        workflow = saved([node(25, "SomeApiNode", "painter 5 lite", LAMP)])
        assert read_prompt(workflow, "25") == "painter 5 lite"
        assert read_prompt(workflow, "25:1") == LAMP


class TestLinks:
    def test_prompt_fed_by_a_string_node_over_a_reroute(self) -> None:
        nodes = [
            node(1, "PrimitiveStringMultiline", LAMP),
            node(2, "Reroute", **{"": 10}),
            node(3, "CLIPTextEncode", "a stale text", text=11),
        ]
        links = [[10, 1, 0, 2, 0, "STRING"], [11, 2, 0, 3, 0, "STRING"]]
        assert read_prompt(saved(nodes, links), "3") == LAMP

    def test_unlinked_prompt_input_reads_the_widget(self) -> None:
        assert read_prompt(saved([node(3, "CLIPTextEncode", LAMP, text=None)]), "3") == LAMP

    def test_concatenation_and_replacement_are_carried_out(self) -> None:
        nodes = [
            node(1, "PrimitiveString", "lamp"),
            node(2, "StringReplace", "a brass {thing}", "{thing}", "", string=None, replace=20),
            node(3, "StringConcatenate", "", "on a desk", ", ", string_a=21),
            node(4, "SomeApiNode", "", prompt=22),
        ]
        links = [[20, 1, 0, 2, 0, "STRING"], [21, 2, 0, 3, 0, "STRING"], [22, 3, 0, 4, 0, "STRING"]]
        assert read_prompt(saved(nodes, links), "2") == "a brass lamp"
        assert read_prompt(saved(nodes, links), "4") == "a brass lamp, on a desk"

    def test_fed_by_a_language_model_is_refused(self) -> None:
        nodes = [node(1, "TextGenerate", "rewrite this prompt"), node(2, "CLIPTextEncode", "", text=10)]
        with pytest.raises(
            SourceError, match=r"fed by a string node, got node 1 of type 'TextGenerate'; point the node"
        ):
            read_prompt(saved(nodes, [[10, 1, 0, 2, 0, "STRING"]]), "2")

    def test_cycle_ends_with_an_error(self) -> None:
        nodes = [node(1, "Reroute", **{"": 10}), node(2, "Reroute", **{"": 11})]
        links = [[10, 2, 0, 1, 0, "STRING"], [11, 1, 0, 2, 0, "STRING"]]
        with pytest.raises(SourceError, match=r"got a longer chain or a cycle"):
            read_prompt(saved(nodes, links), "1")

    def test_link_that_does_not_exist(self) -> None:
        with pytest.raises(SourceError, match=r"Expected link 99 of node 3 in the workflow, got none"):
            read_prompt(saved([node(3, "CLIPTextEncode", "", text=99)]), "3")


class TestSubgraphs:
    def test_inner_text_with_proxy_widgets(self) -> None:
        user = {"id": 9, "type": DEFINITION, "widgets_values": [], "properties": {"proxyWidgets": [["3", "text"]]}}
        workflow = saved([user], subgraphs=[subgraph([node(3, "CLIPTextEncode", LAMP, text=70)])])
        assert read_prompt(workflow, f"{DEFINITION}/3") == LAMP

    def test_text_typed_on_the_user_wins_over_the_inner_text(self) -> None:
        user = {"id": 9, "type": DEFINITION, "widgets_values": [1024, LAMP, 7]}
        workflow = saved([user], subgraphs=[subgraph([node(3, "CLIPTextEncode", "a stale text", text=70)])])
        assert read_prompt(workflow, f"{DEFINITION}/3") == LAMP
        assert read_prompt(workflow, "9") == LAMP

    def test_text_linked_to_the_user(self) -> None:
        nodes = [node(1, "PrimitiveStringMultiline", LAMP), node(9, DEFINITION, text=10)]
        inner = subgraph([node(3, "CLIPTextEncode", "", text=70)])
        assert read_prompt(saved(nodes, [[10, 1, 0, 9, 0, "STRING"]], [inner]), f"{DEFINITION}/3") == LAMP

    def test_the_switched_on_user_counts(self) -> None:
        off = {"id": 8, "type": DEFINITION, "mode": 4, "widgets_values": [1024, "a text of a branch that is off", 7]}
        on = {"id": 9, "type": DEFINITION, "mode": 0, "widgets_values": [1024, LAMP, 7]}
        workflow = saved([off, on], subgraphs=[subgraph([node(3, "CLIPTextEncode", "", text=70)])])
        assert read_prompt(workflow, f"{DEFINITION}/3") == LAMP

    def test_the_same_number_in_the_top_graph_is_another_node(self) -> None:
        workflow = saved([node(3, "Note", "some remark")], subgraphs=[subgraph([node(3, "CLIPTextEncode", LAMP)])])
        assert read_prompt(workflow, "3") == "some remark"
        assert read_prompt(workflow, f"{DEFINITION}/3") == LAMP

    def test_input_slot_that_does_not_exist(self) -> None:
        broken = subgraph([node(3, "CLIPTextEncode", "", text=70)]) | {"inputs": []}
        with pytest.raises(SourceError, match=r"Expected subgraph input 1 for node 3, got 0 inputs"):
            read_prompt(saved([], subgraphs=[broken]), f"{DEFINITION}/3")


class TestRefusals:
    @pytest.mark.parametrize("content", [b"\x89PNG", b"", b"\xff\xfe{"])
    def test_not_json(self, content: bytes) -> None:
        with pytest.raises(SourceError, match=rf"Expected a ComfyUI workflow as JSON, got {len(content)} bytes"):
            read_prompt(content, "1")

    @pytest.mark.parametrize("content", [b"[]", b"{}", b'{"3": {"class_type": "KSampler"}}'])
    def test_json_of_another_kind(self, content: bytes) -> None:
        with pytest.raises(SourceError, match=r"a list `nodes`, got JSON without one \(API format\?\)"):
            read_prompt(content, "1")

    @pytest.mark.parametrize("damage", [{"links": [[1]]}, {"links": 5}, {"definitions": {"subgraphs": [{"id": "a"}]}}])
    def test_damaged_layout(self, damage: dict[str, Any]) -> None:
        with pytest.raises(SourceError, match=r"Expected the layout of a saved ComfyUI workflow, got a damaged one"):
            read_prompt(json.dumps({"nodes": [], **damage}).encode(), "1")

    @pytest.mark.parametrize("ref", ["7", "", "six", "-1"])
    def test_missing_node(self, ref: str) -> None:
        with pytest.raises(SourceError, match=r"Expected a node .* in the workflow, got nodes 6"):
            read_prompt(saved([node(6, "CLIPTextEncode", LAMP)]), ref)

    def test_missing_definition(self) -> None:
        with pytest.raises(
            SourceError, match=r"Expected a subgraph definition 'abc' of the workflow, got none \(abc/6\)"
        ):
            read_prompt(saved([node(6, "CLIPTextEncode", LAMP)]), "abc/6")

    @pytest.mark.parametrize("widgets", [(), ("", "  "), (5, None)])
    def test_node_without_text(self, widgets: tuple[Any, ...]) -> None:
        with pytest.raises(SourceError, match=r"Expected a prompt in node 6 of type 'KSampler', got no text \(6\)"):
            read_prompt(saved([node(6, "KSampler", *widgets)]), "6")

    @pytest.mark.parametrize("ref", ["6:0", "6:9", "6:x"])
    def test_named_widget_that_is_no_string(self, ref: str) -> None:
        with pytest.raises(SourceError, match=r"Expected a string in widget .* of node 6, got .* of 2 widgets"):
            read_prompt(saved([node(6, "SomeApiNode", 42, LAMP)]), ref)
